"""Scores the answers to any benchmark: `python -m llava.eval.score NAME [flags]`; `NAME --help` lists its flags."""

import sys

from llava.eval.benchmarks import BY_NAME
from llava.flags import Parser, run_program


def main() -> None:
    parser = Parser(prog="python -m llava.eval.score", description="Score the answers to a benchmark")
    parser.add_argument("name", choices=[name for name, benchmark in BY_NAME.items() if benchmark.score])
    name = parser.parse_args(sys.argv[1:2]).name
    BY_NAME[name].score_main(sys.argv[2:])


if __name__ == "__main__":
    run_program(main)
