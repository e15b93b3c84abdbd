"""`python -m visual_region perplexity`: perplexity with blocks of layers set back to the backbone (Figure 1, left)."""

import argparse
import json
from pathlib import Path
from typing import Any

from llava.eval.answering.arguments import add_model_flags
from llava.files import write_json
from llava.outputs import PERPLEXITIES, check_cache, check_files
from visual_region.layers import LayerSelection
from visual_region.surgery import SurgeryError

HELP = "perplexity of text and answers, with blocks of layers set back to the backbone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_flags(parser)
    parser.add_argument("--backbone", help="folder of the plain language model; default: a LoRA's base")
    parser.add_argument("--text-file", action="append", default=[], help="as in llava.eval.perplexity; may be repeated")
    parser.add_argument("--data-path", action="append", default=[], help="LLaVA JSON; may be repeated")
    parser.add_argument(
        "--revert",
        action="append",
        help="layers to set back, a row of the table; may be repeated. Default: each quarter of the stack, and all",
    )
    parser.add_argument("--samples", type=int, help="the first so many documents or samples of each corpus")
    parser.add_argument("--max-tokens", type=int, help="of each text: the first so many tokens")
    parser.add_argument("--context", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--bos", choices=("auto", "none"), default="auto")
    parser.add_argument("--unit", choices=("token", "byte", "word"), default="token")
    parser.add_argument(
        "--output", required=True, help="JSON file to write; what it holds already is not measured again"
    )


def run(args: argparse.Namespace) -> None:
    """A table: a row a variant, a column a corpus. Each cell is kept as soon as it is measured."""
    from llava.checkpoint.side_files import family_at
    from llava.conversation import get_template
    from llava.eval.answering.arguments import load, open_model
    from visual_region.reversion import reverted_shards
    from visual_region.surgery import weights_replaced

    check_files({"--output": (args.output, PERPLEXITIES)}, [*args.text_file, *args.data_path])
    check_cache(args.vision_feature_cache)
    family, config = family_at("--model-path", args.model_path)
    if args.conv_mode:
        get_template(args.conv_mode)
    corpora = _corpora(args)
    names, index = _backbone(args, config)
    depth = len(index)
    specs = args.revert or [f"{depth * i // 4}-{depth * (i + 1) // 4 - 1}" for i in range(4)] + ["all"]
    variants = {"as it is": ()} | {f"{s} reverted": LayerSelection.parse(s, depth).layers for s in specs}
    for layers in variants.values():
        # Found out before a model is loaded: every tensor that goes back is there and of the same shape.
        reverted_shards(_decoder_folder(args), names, layers, index, family.layer_path)
    table = _open_table(args, corpora, variants)

    tokenizer, model, processor = load(args, open_model(args), any(corpus.needs_tower for corpus in corpora.values()))
    for variant, layers in variants.items():
        if all(name in table["rows"][variant]["perplexity"] for name in corpora):
            continue
        with weights_replaced(model, _backbone_weights(model, names, layers, index, family.layer_path)):
            for name, corpus in corpora.items():
                if name not in table["rows"][variant]["perplexity"]:
                    _measure(args, table, variant, name, corpus, (model, tokenizer, processor))
                    write_json(args.output, table)
    print(_text(table, list(corpora)))
    print(f"perplexities are in {args.output}")


def _corpora(args: argparse.Namespace) -> dict[str, Any]:
    """Each corpus by its path, found to be there."""
    from llava.eval.answering.arguments import open_model
    from llava.eval.answering.perplexity import Corpus, check_flags

    corpora, checkpoint = {}, open_model(args)
    for kind, paths in (("text_file", args.text_file), ("data_path", args.data_path)):
        for path in paths:
            one = argparse.Namespace(**{**vars(args), "text_file": None, "data_path": None, kind: path})
            if kind == "data_path":
                one.context = one.stride = one.max_tokens = None
            check_flags(one, checkpoint)
            corpora[str(path)] = Corpus.open(one, checkpoint)
    if not corpora:
        raise SurgeryError("give at least one --text-file or --data-path")
    return corpora


def _backbone(args: argparse.Namespace, config: Any) -> tuple[dict[str, Any], list[int]]:
    """The backbone's tensors, and which of its layers each of the model's was."""
    from llava.checkpoint.hf_llava import our_name
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.checkpoint.rewrite import stored_tensors
    from llava.checkpoint.side_files import family_at
    from llava.model.builder import resolve_base
    from visual_region.reversion import backbone_index

    checkpoint = read_checkpoint(args.model_path)
    folder = args.backbone
    if folder is None:
        if checkpoint.kind is Kind.FULL:
            raise SurgeryError(f"{checkpoint.path} needs its backbone; give --backbone the language model's folder")
        folder = resolve_base(checkpoint, args.model_base)
    backbone = read_checkpoint(folder)
    if backbone.kind is not Kind.FULL:
        raise SurgeryError(
            f"--backbone {folder} is a {backbone.kind.value} checkpoint; give a folder with whole weights"
        )
    tensors = {our_name(name): stored for name, stored in stored_tensors(backbone.path).items()}
    theirs = family_at("--backbone", folder, backbone.config)[1]
    return tensors, backbone_index(config, theirs, stored_tensors(_decoder_folder(args)), tensors)


def _decoder_folder(args: argparse.Namespace) -> Path:
    """The folder that holds the decoder's tensors: the checkpoint's own, or its base's."""
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.model.builder import resolve_base

    checkpoint = read_checkpoint(args.model_path)
    return checkpoint.path if checkpoint.kind is Kind.FULL else Path(resolve_base(checkpoint, args.model_base))


def _backbone_weights(
    model: Any, backbone: dict[str, Any], layers: tuple[int, ...], index: list[int], layer_path: str
) -> dict[str, Any]:
    """The model's parameters that go back, with the backbone's values."""
    from visual_region.reversion import backbone_names

    parameters = dict(model.named_parameters())
    weights = {}
    for name, theirs in backbone_names(parameters, layers, index, layer_path).items() if layers else ():
        if theirs not in backbone and theirs == "lm_head.weight":
            continue
        if theirs not in backbone or backbone[theirs].shape != tuple(parameters[name].shape):
            found = tuple(backbone[theirs].shape) if theirs in backbone else "absent"
            raise SurgeryError(
                f"the backbone's {theirs} is {found}, and the model's {name} is {tuple(parameters[name].shape)}"
            )
        weights[name] = backbone[theirs].tensor()
    return weights


def _open_table(args: argparse.Namespace, corpora: dict[str, Any], variants: dict[str, tuple[int, ...]]) -> Any:
    """The file's content where it is of this very measurement, else an empty table."""
    from llava.checkpoint.old_folder import read_checkpoint
    from llava.files import sha256_of
    from visual_region.importance.score_file import identity_of

    settings = {
        "model": str(args.model_path),
        "identity": identity_of(read_checkpoint(args.model_path), args.model_base),
        "backbone": args.backbone,
        "corpora": {name: sha256_of(name) for name in corpora},
        "variants": {name: list(layers) for name, layers in variants.items()},
        **{
            name: getattr(args, name)
            for name in ("samples", "max_tokens", "context", "stride", "bos", "unit", "dtype", "conv_mode")
        },
    }
    rows = {name: {"layers": list(layers), "perplexity": {}} for name, layers in variants.items()}
    path = Path(args.output)
    if path.is_file() and path.stat().st_size:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["settings"] != settings:
            raise SurgeryError(
                f"--output {path} was written for another model, corpus or setting; delete it, or give another file"
            )
        return table
    return {"settings": settings, "corpora": {}, "rows": rows}


def _measure(args: argparse.Namespace, table: Any, variant: str, name: str, corpus: Any, parts: tuple) -> None:
    from dataclasses import asdict

    from llava.eval.answering.perplexity import report_of

    model, tokenizer, processor = parts
    print(f"{variant}, {name}")
    pieces, details = corpus.measure(model, tokenizer, processor)
    report = report_of(pieces, args.unit, details, str(args.model_path))
    table["rows"][variant]["perplexity"][name] = asdict(report.headline)
    table["corpora"][name] = {key: value for key, value in report.details.items() if key not in ("pieces", "scored")}


def _text(table: Any, names: list[str]) -> str:
    """The table: perplexity with its 95% interval."""
    lines = [("", [Path(name).name for name in names])]
    for variant, row in table["rows"].items():
        cells = [row["perplexity"][name] for name in names]
        lines.append((variant, [f"{c['value']:.4g} ({c['low']:.4g} to {c['high']:.4g})" for c in cells]))
    first = max(len(name) for name, _ in lines)
    widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(names))]
    return "\n".join(
        f"{name:<{first}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for name, cells in lines
    )
