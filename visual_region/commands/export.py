"""`python -m visual_region export`: a checkpoint as a stock transformers model, or as GGUF files for llama.cpp."""

import argparse
import importlib.util
from pathlib import Path

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint
from llava.conversation import get_template
from llava.dtypes import dtype_of
from llava.families import STOCK_CLASSES
from llava.model.builder import load_checkpoint
from llava.model.export import ExportError, check_exportable, export
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.outputs import GGUF_MODEL, GGUF_PROJECTOR, check_output


def run(args: argparse.Namespace) -> None:
    """A LoRA is merged."""
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    gguf = args.format == "gguf"
    check_output(args.output, [*checkpoint.folders, args.vision_tower], 0, args.overwrite, stock=not gguf, gguf=gguf)
    if gguf:
        _export_gguf(args, checkpoint)
    else:
        _export_stock(args, checkpoint)


def _export_stock(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Writes transformers' own class with processor and tokenizer."""
    if args.text_only:
        raise ExportError("--text-only is for --format gguf; a language model alone needs no export to transformers")
    conv_mode = args.conv_mode or checkpoint.template
    template = get_template(conv_mode)
    config = checkpoint.model_config(args.vision_tower)
    tower = build_vision_tower(config, delay_load=True) if getattr(config, "mm_vision_tower", None) else None
    check_exportable(config, tower)
    tokenizer, model, processor, _ = load_checkpoint(
        checkpoint, device="cpu", dtype=dtype_of(args.dtype) or checkpoint.stored_dtype, vision_tower=args.vision_tower
    )
    model.config.conversation_template = conv_mode
    stock = STOCK_CLASSES["llava_next" if model.tiling.several else "llava"]
    for note in export(model, tokenizer, processor, args.output, template):
        print(f"note: {note}")
    print(
        f"{args.output} holds a {stock} of {model.config.num_hidden_layers} layers; load it with "
        f"AutoModelForImageTextToText.from_pretrained({args.output!r}) and AutoProcessor.from_pretrained(...)"
    )


def _export_gguf(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Writes the language model, and tower with projector, one tensor at a time."""
    if importlib.util.find_spec("gguf") is None:
        raise ExportError("--format gguf needs the package gguf, which is not installed: pip install -e '.[gguf]'")
    from llava.model.gguf.export import prepare_export

    name = Path(args.output).resolve().name
    planned = prepare_export(checkpoint, name, dtype_of(args.dtype), args.conv_mode, args.vision_tower, args.text_only)
    check_output(args.output, [], planned.nbytes, args.overwrite, gguf=True)
    for note in planned.notes:
        print(f"note: {note}")
    planned.write(args.output)
    model, projector = Path(args.output, GGUF_MODEL), Path(args.output, GGUF_PROJECTOR)
    both = f"llama-mtmd-cli -m {model} --mmproj {projector} --image photo.jpg"
    load = both if projector.is_file() else f"llama-cli -m {model}"
    print(f"{args.output} holds a language model of {checkpoint.depth} layers for llama.cpp: {load}")
