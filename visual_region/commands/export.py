"""`python -m visual_region export`: a checkpoint as a stock transformers model."""

import argparse

HELP = "write a folder that stock transformers loads, without any of our code"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", required=True, help="full, LoRA, projector, region-tuned or pruned checkpoint")
    parser.add_argument("--model-base", help="base of a LoRA or a projector; default: the recorded one")
    parser.add_argument("--vision-tower", help="tower folder, where config.json records one of another machine")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="of what is written; default: as stored")
    parser.add_argument("--conv-mode", help="conversation template to write; default: the checkpoint's")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --output holds")


def run(args: argparse.Namespace) -> None:
    """Loads a checkpoint, merges its LoRA, and writes LlavaForConditionalGeneration with processor and tokenizer."""
    from llava.checkpoint.resolve import planned_config, resolve, stored_dtype
    from llava.conversation import get_template
    from llava.eval.answering.arguments import DTYPES, recorded_template
    from llava.model.builder import load_pretrained_model
    from llava.model.export import check_exportable, export
    from llava.model.multimodal_encoder.builder import build_vision_tower
    from llava.outputs import check_output

    checkpoint, base, _ = resolve(args.model_path, args.model_base)
    check_output(args.output, [checkpoint.path, base, args.vision_tower], 0, args.overwrite)
    conv_mode = args.conv_mode or recorded_template(args.model_path)
    template = get_template(conv_mode)
    config = planned_config(args.model_path, args.model_base, args.vision_tower)
    tower = build_vision_tower(config, delay_load=True) if getattr(config, "mm_vision_tower", None) else None
    check_exportable(config, tower)
    tokenizer, model, processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        device="cpu",
        dtype=DTYPES[args.dtype] if args.dtype else stored_dtype(base),
        vision_tower=args.vision_tower,
    )
    model.config.conversation_template = conv_mode
    for note in export(model, tokenizer, processor, args.output, template):
        print(f"note: {note}")
    print(
        f"{args.output} holds a LlavaForConditionalGeneration of {model.config.num_hidden_layers} layers; load it with "
        f"AutoModelForImageTextToText.from_pretrained({args.output!r}) and AutoProcessor.from_pretrained(...)"
    )
