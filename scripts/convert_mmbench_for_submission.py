"""Upstream's name for `python -m llava.eval.convert_mmbench`."""

from llava.eval.convert_mmbench import main
from llava.flags import run_program

if __name__ == "__main__":
    run_program(main)
