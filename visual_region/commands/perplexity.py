"""`python -m visual_region perplexity`: perplexity with layers set back to the backbone (the paper, Figure 1, left)."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from llava.checkpoint import identity
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.tensors import Stored
from llava.conversation import get_template
from llava.eval.answering.arguments import dtype_name, load, open_model
from llava.eval.answering.perplexity import Corpus, check_flags, report_of
from llava.files import sha256_of, write_json
from llava.journal import differences
from llava.names import some
from llava.outputs import FileKind, check_cache, check_files
from llava.tables import text_table
from visual_region.layers import LayerSelection
from visual_region.reversion import (
    backbone_index,
    backbone_names,
    check_recorded_backbone,
    named_tensors,
    reverted,
    reverted_shards,
)
from visual_region.surgery import SurgeryError, weights_replaced

PERPLEXITIES = FileKind("a file of perplexities", keys=frozenset({"settings", "rows"}))
_MEASURED_WITH = ("samples", "max_tokens", "context", "stride", "bos", "unit", "dtype", "conv_mode")
"""Flags that change what is measured."""


def run(args: argparse.Namespace) -> None:
    """Prints a table, one row per variant and one column per corpus; writes the file after each cell."""
    check_files({"--output": (args.output, PERPLEXITIES)}, [*args.text_file, *args.data_path])
    check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower, args.backbone])
    checkpoint = open_model(args)
    if args.conv_mode:
        get_template(args.conv_mode)
    corpora = _corpora(args, checkpoint)
    if args.backbone is None and checkpoint.kind is Kind.FULL:
        raise SurgeryError(f"{checkpoint.path} needs its backbone; give --backbone the language model's folder")
    backbone = open_checkpoint(args.backbone, flag="--backbone") if args.backbone else checkpoint.whole
    index = backbone_index(checkpoint.whole, backbone)
    depth = len(index)
    ends = sorted({depth * i // 4 for i in range(5)})
    specs = args.revert or [*(f"{start}-{end - 1}" for start, end in pairwise(ends)), "all"]
    variants = {"as it is": ()} | {f"{s} reverted": LayerSelection.parse(s, depth).layers for s in specs}
    if not args.backbone:
        check_recorded_backbone(checkpoint, backbone, chain(*variants.values()))
    for layers in variants.values():
        # Checks, before a model is loaded, that the backbone has every tensor in the same shape.
        reverted_shards(checkpoint.whole, backbone, layers)
    table = _open_table(args, checkpoint, backbone, corpora, variants)

    tokenizer, model, processor = load(args, checkpoint, any(corpus.needs_tower for corpus in corpora.values()))
    names, tensors = dict(model.named_parameters()), named_tensors(backbone)
    for variant, layers in variants.items():
        cells = table["rows"][variant]["perplexity"]
        left = {name: corpus for name, corpus in corpora.items() if name not in cells}
        wanted = backbone_names(names, layers, index, checkpoint.family.layer_path) if layers and left else {}
        stored = {name: reverted(Stored.of(name, names[name]), theirs, tensors) for name, theirs in wanted.items()}
        with weights_replaced(model, stored):
            for name, corpus in left.items():
                print(f"{variant}, {name}")
                pieces, details = corpus.measure(model, tokenizer, processor)
                report = report_of(pieces, args.unit, details, str(args.model_path))
                cells[name] = asdict(report.headline)
                table["corpora"][name] = {k: v for k, v in report.details.items() if k not in ("pieces", "scored")}
                write_json(args.output, table)
    rows = [["", *(Path(name).name for name in corpora)]]
    for variant, row in table["rows"].items():
        values = [row["perplexity"][name] for name in corpora]
        rows.append([variant, *(f"{v['value']:.4g} ({v['low']:.4g} to {v['high']:.4g})" for v in values)])
    print(text_table(rows))
    print(f"perplexities are in {args.output}")


def _corpora(args: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Corpus]:
    corpora = {}
    of_answers = {"text_file": None, "context": None, "stride": None, "max_tokens": None, "as_lm_eval": False}
    for kind, others in (("text_file", {"data_path": None}), ("data_path", of_answers)):
        for path in getattr(args, kind):
            one = argparse.Namespace(**{**vars(args), **others, kind: path})
            check_flags(one, checkpoint)
            corpora[str(path)] = Corpus.open(one, checkpoint)
    if not corpora:
        raise SurgeryError("give at least one --text-file or --data-path")
    return corpora


def _open_table(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    backbone: Checkpoint,
    corpora: Iterable[str],
    variants: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """The file's content, or an empty table; raises `SurgeryError` for a file of another measurement."""
    older = {
        "model": str(args.model_path),
        "identity": identity.digest(checkpoint),
        "backbone": args.backbone,
        "corpora": {name: sha256_of(name) for name in corpora},
        "variants": {name: list(layers) for name, layers in variants.items()},
        **{name: getattr(args, name) for name in _MEASURED_WITH},
        # Files of earlier versions do not have it.
        **({"as_lm_eval": True} if args.as_lm_eval else {}),
    }
    # Files of earlier versions hold the flag of the dtype, and nothing of these.
    settings = older | {"dtype": dtype_name(args), "backbone_identity": identity.digest(backbone)}
    if args.data_path:
        settings |= {"vision_tower": args.vision_tower, "images": args.image_folder}
    path = Path(args.output)
    if path.is_file() and path.stat().st_size:
        table = json.loads(path.read_text(encoding="utf-8"))
        begun = table["settings"]
        if begun not in (settings, older):
            differ = some(differences(begun, settings if "backbone_identity" in begun else older))
            why = f"was written for another model, corpus or setting ({differ}); delete it, or give another file"
            raise SurgeryError(f"--output {path} {why}")
        return table
    rows = {name: {"layers": list(layers), "perplexity": {}} for name, layers in variants.items()}
    return {"settings": settings, "corpora": {}, "rows": rows}
