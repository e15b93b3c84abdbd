"""`python -m visual_region export`: a checkpoint as a stock transformers model."""

import argparse

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import get_template
from llava.dtypes import dtype_of
from llava.families import STOCK_CLASSES
from llava.model.builder import load_checkpoint
from llava.model.export import check_exportable, export
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.outputs import check_output


def run(args: argparse.Namespace) -> None:
    """Writes transformers' own class with processor and tokenizer; a LoRA is merged."""
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    check_output(args.output, [*checkpoint.folders, args.vision_tower], 0, args.overwrite, stock=True)
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
