"""Trains with flash attention where it is installed and able, else with torch's own kernels (sdpa), said aloud."""

import transformers

from llava.train.attention import AUTO
from llava.train.train import train

if __name__ == "__main__":
    transformers.logging.set_verbosity_warning()
    train(attn_implementation=AUTO)
