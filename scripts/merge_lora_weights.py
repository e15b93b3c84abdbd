"""Merges a LoRA (or a projector) into its base and writes a full checkpoint (upstream: same name and flags).

python scripts/merge_lora_weights.py --model-path LORA --model-base BASE --save-model-path MERGED

Bunny's checkpoints too; its `--model-type` is checked.
"""

import argparse
import sys

from bunny.model.builder import check_checkpoint
from llava.checkpoint.resolve import resolve, stored_dtype
from llava.eval.answering.arguments import DTYPES
from llava.files import folder_written_whole
from llava.model.builder import load_pretrained_model
from llava.outputs import check_output


def merge_lora(args: argparse.Namespace) -> None:
    """Sums in float32, casts once, writes model, tower and tokenizer; the folder appears whole."""
    checkpoint, base, _ = resolve(args.model_path, args.model_base)
    reads = [checkpoint.path, base, args.vision_tower]
    check_output(args.save_model_path, reads, 0, args.overwrite, "--save-model-path")
    if args.model_type:
        check_checkpoint(args.model_path, args.model_base, args.model_type)
    dtype = DTYPES[args.dtype] if args.dtype else stored_dtype(base)
    tokenizer, model, _, _ = load_pretrained_model(
        args.model_path, args.model_base, device="cpu", dtype=dtype, vision_tower=args.vision_tower
    )
    with folder_written_whole(args.save_model_path) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    print(f"the merged model is in {args.save_model_path} ({str(dtype).removeprefix('torch.')})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge a LoRA into its base")
    parser.add_argument("--model-path", required=True, help="LoRA checkpoint")
    parser.add_argument("--model-base", help="the model it was trained on; default: the one that it records")
    parser.add_argument("--model-type", help="Bunny's, such as phi-2; the checkpoint must be that")
    parser.add_argument("--save-model-path", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --save-model-path holds")
    parser.add_argument("--vision-tower", help="tower folder, where config.json records one of another machine")
    parser.add_argument("--dtype", choices=DTYPES, help="of what is written; default: as the base is stored")
    try:
        merge_lora(parser.parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
