"""The model card of a folder that this project writes: README.md, with the metadata that the Hub reads.

Everything in it is read from the folder itself: config.json, adapter_config.json and, after a training, run.json. The
evaluation adds the scores (llava/eval/suite/all.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.checkpoint.adapter import ADAPTER_CONFIG
from llava.checkpoint.record import LayerRecord
from llava.families import STOCK_CLASSES
from llava.files import written_whole
from llava.names import count
from llava.outputs import GGUF_MODEL, GGUF_PROJECTOR
from llava.tables import markdown_table

CARD = "README.md"
RUN_FILE = "run.json"
"""What a training was and what it cost (llava/train/run_meter.py)."""
_TAG = "llava-visual-region"
_SCORES, _LOADING = "## Scores", "## How to load it"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LOAD = """```python
from llava.model.builder import load_pretrained_model

tokenizer, model, image_processor, context_length = load_pretrained_model("{name}")
```

`python -m llava.serve.cli --model-path {name} --image-file IMAGE` is a chat in the terminal."""


@dataclass(frozen=True)
class _Form:
    """What a folder holds: a sentence, the Hub's name of the library, how it is loaded, the Hub's name of the task."""

    what: str
    library: str
    load: str = _LOAD
    task: str = "image-text-to-text"


_FULL = _Form("A vision-language model, or a part of one, in LLaVA's format.", "transformers")
_LORA = _Form(
    "LoRA weights and a projector for a vision-language model; they need the base that is named below.", "peft"
)
_LOAD_STOCK = """```python
from transformers import AutoProcessor, CLASS

processor = AutoProcessor.from_pretrained("{name}")
model = CLASS.from_pretrained("{name}", dtype="auto")
```"""
_STOCK = {
    model_type: _Form(
        f"A vision-language model in the format of transformers' `{stock}`.",
        "transformers",
        _LOAD_STOCK.replace("CLASS", stock),
    )
    for model_type, stock in STOCK_CLASSES.items()
}
_GGUF = _Form(
    "A vision-language model in the format of llama.cpp (GGUF).",
    "gguf",
    "`llama-mtmd-cli -m {name}/model.gguf --mmproj {name}/mmproj.gguf --image IMAGE` is a chat in the terminal.",
)
_GGUF_TEXT = _Form(
    "A language model in the format of llama.cpp (GGUF).",
    "gguf",
    "`llama-cli -m {name}/model.gguf` is a chat in the terminal.",
    "text-generation",
)


def write_card(folder: Path, config: Mapping[str, Any], name: str | None = None, run: Path | None = None) -> None:
    """Writes the card of a folder with this config.json.

    `name`: of the model, by default the folder's; `run`: the output folder of its training, by default the folder.
    A README.md of the user stays: only a card of ours, or of PEFT, which writes one with each adapter, is replaced.
    """
    if not has_card_of_user(folder):
        text = model_card(folder, config, name or folder.resolve().name, run or folder)
        (folder / CARD).write_text(text, encoding="utf-8")


def has_card_of_user(folder: Path) -> bool:
    """Whether a folder has a README.md that neither this project nor PEFT wrote."""
    file = folder / CARD
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    return text is not None and _TAG not in text and "library_name: peft" not in text


def model_card(folder: Path, config: Mapping[str, Any], name: str, run: Path) -> str:
    """The text of the card; arguments as of `write_card`."""
    adapter = _json(folder / ADAPTER_CONFIG)
    cost = read_run(run)
    base = adapter.get("base_model_name_or_path") or cost.get("base")
    form = _form(folder, config, adapter)
    parts = [
        _metadata(config, adapter, base, form),
        f"# {name}",
        form.what,
        _facts(config, base),
        *_layers(config),
    ]
    parts += _training(cost)
    parts += [_LOADING, form.load.format(name=name)]
    return "\n\n".join(parts) + "\n"


def add_scores(folder: Path, table: str) -> bool:
    """Puts a table of scores into the folder's card, in place of earlier ones; False without a card of ours there."""
    file = folder / CARD
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    above, loading, below = text.partition(f"\n{_LOADING}\n")
    if _TAG not in text or not loading:
        return False
    above = above.partition(f"\n{_SCORES}\n")[0]
    try:
        with written_whole(file) as aside:
            aside.write_text(f"{above}\n{_SCORES}\n\n{table.strip()}\n{loading}{below}", encoding="utf-8")
    except OSError:
        # A checkpoint may lie where its user cannot write. The scores are in the results' folder.
        return False
    return True


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json of an output folder; empty if there is none, or one that a training of ours did not write."""
    try:
        run = _json(folder / RUN_FILE)
    except ValueError:
        return {}
    return run if isinstance(run, dict) and {"kind", "starts", "devices"} <= run.keys() else {}


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _form(folder: Path, config: Mapping[str, Any], adapter: Mapping[str, Any]) -> _Form:
    if (folder / GGUF_MODEL).is_file():
        return _GGUF if (folder / GGUF_PROJECTOR).is_file() else _GGUF_TEXT
    return _STOCK.get(config.get("model_type")) or (_LORA if adapter else _FULL)


def _metadata(config: Mapping[str, Any], adapter: Mapping[str, Any], base: str | None, form: _Form) -> str:
    """The block of YAML; a base is named only if it is a model of the Hub, as the Hub accepts no other."""
    tags = [
        _TAG,
        "llava",
        *(["lora"] if adapter else []),
        *(["layer-pruning"] if LayerRecord.of(config).removed else []),
    ]
    lines = ["---", f"pipeline_tag: {form.task}", f"library_name: {form.library}"]
    if base and _HUB_ID.fullmatch(base) and not Path(base).exists():
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _facts(config: Mapping[str, Any], base: str | None) -> str:
    rows = [
        ("architecture", config.get("model_type")),
        ("base", base),
        ("vision tower", config.get("mm_vision_tower")),
        ("projector", config.get("mm_projector_type")),
        ("images", "several views of each (anyres)" if config.get("image_aspect_ratio") == "anyres" else None),
        ("conversation template", config.get("conversation_template")),
        ("decoder layers", config.get("num_hidden_layers") or config.get("text_config", {}).get("num_hidden_layers")),
    ]
    return markdown_table(("", ""), [row for row in rows if row[1]]).strip()


def _layers(config: Mapping[str, Any]) -> list[str]:
    """What the record says of the decoder layers, with the picture of the stack."""
    record = LayerRecord.of(config)
    if not record.values:
        return []
    depth, removed, tuned = record.original_depth, set(record.removed), set(record.layers or ())
    picture = "".join("·" if i in removed else "■" if i in tuned else "□" for i in range(depth))
    lines = [f"    {picture}", "", "One character per layer, from layer 0 on: ■ tuned, □ not tuned, · removed."]
    lines += describe_layers(record)
    return ["## Decoder layers", "\n".join(lines)]


def describe_layers(record: LayerRecord) -> list[str]:
    """A record in Markdown sentences: what was tuned, removed, set back and healed."""
    lines = []
    if record.layers:
        number = f"{count(len(record.layers), 'layer')} of {record.original_depth}"
        lines.append(f"Tuned: {number} (`--tune_layers {record.spec}`): {_listed(record.layers)}.")
    if record.removed:
        lines.append(f"Removed: {_listed(record.removed)}.")
    if record.reverted:
        lines.append(f"Set back to the backbone's weights: {_listed(record.reverted)}.")
    if record.healed:
        lines.append(f"Healed after the removal, in layers {_listed(record.healed['layers'])}.")
    return lines


def _training(run: Mapping[str, Any]) -> list[str]:
    if not run:
        return []
    rows = [
        ("what trained", run["kind"]),
        ("data", f"{Path(run['data']['path']).name}, {count(run['data']['samples'], 'sample')} ({run['data_share']})"),
        ("steps", f"{run['steps']} of {count(run['batch_size'], 'sample')}"),
        ("seed", run["seed"]),
        ("dtype", run["dtype"]),
        ("devices", f"{run['devices']['number']} x {run['devices']['name']}"),
    ]
    return ["## Training", markdown_table(("", ""), rows).strip()]


def _listed(layers: Any) -> str:
    return ", ".join(map(str, sorted(layers)))
