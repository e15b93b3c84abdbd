"""Trains with flash attention if it can run here, else with torch's own kernels (sdpa); prints which."""

import transformers

from llava.train.attention import AUTO
from llava.train.train import train

if __name__ == "__main__":
    transformers.logging.set_verbosity_warning()
    train(attn_implementation=AUTO)
