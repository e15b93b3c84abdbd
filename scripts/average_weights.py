"""Weighted average of merged models, as Bunny's recipes end.

python scripts/average_weights.py --model-paths RECIPE1 RECIPE2 --weights 0.42 0.58 --output FINAL
"""

import argparse
import sys

from llava.checkpoint.average import average_checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description="Average the weights of models of one architecture")
    parser.add_argument("--model-paths", nargs="+", required=True, help="full checkpoints; config is the last one's")
    parser.add_argument("--weights", nargs="+", type=float, help="one each, summing to 1; default: equal")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --output holds")
    args = parser.parse_args()
    try:
        average_checkpoints(args.model_paths, args.weights, args.output, args.overwrite)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"the average is in {args.output}")


if __name__ == "__main__":
    main()
