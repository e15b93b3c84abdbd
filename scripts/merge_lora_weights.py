"""Merges a LoRA (or a projector) into its base and writes a full checkpoint (upstream: same name and flags).

python scripts/merge_lora_weights.py --model-path LORA --model-base BASE --save-model-path MERGED

It merges Bunny's checkpoints too, and checks their `--model-type`.
"""

import argparse
from pathlib import Path

from llava.files import folder_written_whole
from llava.flags import Parser, add_checkpoint_flags, run_program
from llava.outputs import check_output


def merge_lora(args: argparse.Namespace) -> None:
    """Sums in float32, casts once, writes model, tower and tokenizer; the folder appears whole."""
    # These import torch, so they wait until the flags have been read.
    from bunny.model.builder import check_checkpoint
    from llava.checkpoint.folder import open_checkpoint
    from llava.checkpoint.write import bytes_of, finish_folder, nbytes_of
    from llava.dtypes import dtype_of
    from llava.model.builder import load_checkpoint

    checkpoint = open_checkpoint(args.model_path, args.model_base)
    reads = [*checkpoint.folders, args.vision_tower]
    dtype = dtype_of(args.dtype) or checkpoint.stored_dtype
    nbytes = nbytes_of([stored.cast(dtype) for stored in shard] for shard in checkpoint.whole.tensors.shards)
    check_output(args.save_model_path, reads, nbytes, args.overwrite, "--save-model-path")
    if args.model_type:
        check_checkpoint(checkpoint, args.model_type)
    tokenizer, model, _, _ = load_checkpoint(checkpoint, device="cpu", dtype=dtype, vision_tower=args.vision_tower)
    with folder_written_whole(args.save_model_path, bytes_of(model.state_dict())) as aside:
        model.save_pretrained(aside)
        finish_folder(aside, tokenizer, Path(args.save_model_path).name)
    print(f"the merged model is in {args.save_model_path} ({str(dtype).removeprefix('torch.')})")


def main() -> None:
    parser = Parser(description="Merge a LoRA into its base")
    add_checkpoint_flags(parser, dtype_help="of what is written; default: as the base is stored")
    parser.add_argument("--model-type", help="Bunny's, such as phi-2; the checkpoint must be that")
    parser.add_argument("--save-model-path", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --save-model-path holds")
    merge_lora(parser.parse_args())


if __name__ == "__main__":
    run_program(main)
