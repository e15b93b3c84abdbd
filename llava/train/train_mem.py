"""Trains with flash attention if it can run here, else with torch's own kernels (sdpa); prints which."""

from llava.train.flag_names import AUTO
from llava.train.train import train

if __name__ == "__main__":
    train(attn_implementation=AUTO)
