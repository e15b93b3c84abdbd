"""Weighted average of merged models, the last step of Bunny's recipes.

python scripts/average_weights.py --model-paths RECIPE1 RECIPE2 --weights 0.42 0.58 --output FINAL
"""

from llava.flags import Parser, add_output_flags, run_program


def main() -> None:
    parser = Parser(description="Average the weights of models of one architecture")
    parser.add_argument("--model-paths", nargs="+", required=True, help="full checkpoints; config is the last one's")
    parser.add_argument("--weights", nargs="+", type=float, help="one per model, summing to 1; default: equal")
    add_output_flags(parser)
    args = parser.parse_args()
    # These import torch, so they wait until the flags have been read.
    from llava.checkpoint.average import average_checkpoints
    from llava.checkpoint.folder import open_checkpoint

    checkpoints = [open_checkpoint(path, flag="--model-paths") for path in args.model_paths]
    average_checkpoints(checkpoints, args.weights, args.output, args.overwrite)
    print(f"the average is in {args.output}")


if __name__ == "__main__":
    run_program(main, interrupted="")
