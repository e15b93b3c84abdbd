"""Samples per second and peak memory of training, next to upstream LLaVA's own trainer, in one run.

`python scripts/bench/beside_upstream.py --folder FOLDER [--rounds 3]`

Makes a venv with PyPI's llava-torch in FOLDER once, then a Vicuna-like model with random weights, a CLIP
tower, images and conversations of mixed length. Both trainers get the same files and the flags of upstream's
finetune_lora.sh; they run in turn, each in a new process. The table gives medians over rounds and ratios of each round.
Upstream is run as it is on PyPI; on a CPU, in float32, by scripts/bench/upstream_on_cpu.py. The first losses differ,
because each trainer draws its own projector and its own order of samples.
"""

import json
import lzma
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.checkpoint.older_config import with_older_fields
from llava.flags import Parser, positive, run_program
from llava.tables import text_table
from scripts.bench.shared import median_ratio

ROOT = Path(__file__).parents[2]
# The releases that upstream's own pins allow, except torch, for which there is a build without CUDA.
_FIRST = ("numpy<2", "torch==2.13.0")
_PINS = (
    *("torchvision", "transformers==4.37.2", "tokenizers==0.15.1", "accelerate==0.21.0", "peft==0.4.0"),
    *("sentencepiece", "protobuf", "pillow", "einops", "requests", "psutil", "shortuuid"),
)
_UPSTREAM = "llava-torch==1.2.2.post1"

MODELS = {
    "tiny": {"hidden": 64, "layers": 4, "heads": 4, "tower": 32, "tower_layers": 2},
    "laptop": {"hidden": 512, "layers": 12, "heads": 8, "tower": 256, "tower_layers": 4},
}
_IMAGE, _PATCH = 168, 14
_WORDS = ("the", "red", "large", "shape", "circle", "image", "shows", "there", "is", "what", "colour", "left", "blue")

# As in our scripts.
_AUTO = ("--kernels", "auto")
_QUARTER = ("--tune_layers", "sparse-uniform:25%")
WAYS: dict[str, tuple[str, list[str]]] = {
    "upstream, all layers": ("upstream", ["--gradient_checkpointing", "True"]),
    "ours, all layers": ("ours", [*_AUTO, "--gradient_checkpointing", "auto"]),
    "ours, 25% of layers": ("ours", [*_AUTO, "--gradient_checkpointing", "auto", *_QUARTER]),
    "ours, all layers, recomputed": ("ours", [*_AUTO, "--gradient_checkpointing", "True"]),
    "ours, 25%, recomputed": ("ours", [*_AUTO, "--gradient_checkpointing", "True", *_QUARTER]),
}


def install(folder: Path) -> Path:
    """The Python of a venv with upstream's package; a venv that was not finished is completed."""
    python = folder / "bin" / "python"
    if (folder / "finished").exists():
        return python
    print(f"installing {_UPSTREAM} into {folder}", flush=True)
    # The last file that it writes; python is an early one.
    if not (folder / "bin" / "activate").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for packages in (_FIRST, (*_FIRST, *_PINS), ("--no-deps", _UPSTREAM)):
        subprocess.run([*pip, *packages], check=True)
    (folder / "finished").touch()
    return python


def make_models(folder: Path, size: dict[str, int], image: int = _IMAGE) -> None:
    """A language model and a tower with random weights, which both trainers read: the folders `llm` and `tower`."""
    torch.manual_seed(0)
    llm, tower = folder / "llm", folder / "tower"
    shape = {"vocab_size": 32000, "hidden_size": size["hidden"], "intermediate_size": size["hidden"] * 11 // 4}
    config = LlamaConfig(**shape, num_hidden_layers=size["layers"], num_attention_heads=size["heads"])
    LlamaForCausalLM(config).save_pretrained(llm)
    values = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps(with_older_fields(values)))
    packed = ROOT / "tests/data/sentencepiece/tokenizer.model.v1.xz"
    (llm / "tokenizer.model").write_bytes(lzma.decompress(packed.read_bytes()))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (llm / "tokenizer_config.json").write_text(json.dumps(names | {"model_max_length": 2048}))

    widths = {"hidden_size": size["tower"], "intermediate_size": 4 * size["tower"]}
    vision = CLIPVisionConfig(
        **widths,
        num_hidden_layers=size["tower_layers"],
        num_attention_heads=size["tower"] // 16,
        image_size=image,
        patch_size=_PATCH,
    )
    CLIPVisionModel(vision).save_pretrained(tower)
    # Earlier releases read the names with this prefix.
    weights = load_file(tower / "model.safetensors")
    named = {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in weights.items()}
    save_file(named, tower / "model.safetensors", {"format": "pt"})
    sizes = {"size": {"shortest_edge": image}, "crop_size": {"height": image, "width": image}}
    CLIPImageProcessorPil(**sizes).save_pretrained(tower)


def make_data(folder: Path, samples: int) -> None:
    """Images and LLaVA JSON."""
    images = folder / "images"
    images.mkdir()
    draw, data = random.Random(0), []
    for number in range(samples):
        colour = tuple(draw.randrange(256) for _ in range(3))
        Image.new("RGB", (draw.randrange(120, 260), draw.randrange(120, 260)), colour).save(images / f"{number}.png")
        turns = []
        for turn in range(draw.randrange(1, 4)):
            question, answer = (" ".join(draw.choices(_WORDS, k=draw.randrange(5, 60))) for _ in range(2))
            turns.append({"from": "human", "value": "<image>\n" * (turn == 0) + question})
            turns.append({"from": "gpt", "value": answer})
        data.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(data))


def flags(folder: Path, output: Path, args: Any) -> list[str]:
    """Flags of upstream's finetune_lora.sh, at this size."""
    values = {
        "lora_enable": True,
        "lora_r": args.rank,
        "lora_alpha": 2 * args.rank,
        "mm_projector_lr": 2e-5,
        "model_name_or_path": folder / "llm",
        "version": "v1",
        "data_path": folder / "data.json",
        "image_folder": folder / "images",
        "vision_tower": folder / "tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "group_by_modality_length": True,
        "bf16": False,
        "output_dir": output,
        "num_train_epochs": 1,
        "per_device_train_batch_size": args.batch,
        "evaluation_strategy": "no",
        "save_strategy": "no",
        "learning_rate": 2e-4,
        "weight_decay": 0.0,
        "warmup_ratio": 0.03,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "model_max_length": 2048,
        "dataloader_num_workers": 0,
        "lazy_preprocess": True,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def measure(command: list[str], output: Path) -> dict[str, float]:
    """Runs a trainer in a new process: `samples_per_second` of the training alone, `peak_gib`, the first `loss`."""
    log = output.with_suffix(".log")
    # Only ours: our package would be found before upstream's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(ROOT)} if command[0] == sys.executable else {}
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=log.parent)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"a trainer ended with status {process.returncode}; its output is in {log}")
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    speed = next(entry["train_samples_per_second"] for entry in history if "train_samples_per_second" in entry)
    return {"samples_per_second": speed, "peak_gib": used.ru_maxrss / 2**20, "loss": history[0]["loss"]}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for upstream's venv, the inputs and the outputs")
    parser.add_argument("--model", choices=MODELS, default="laptop")
    parser.add_argument("--samples", type=positive, default=96)
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument("--rank", type=positive, default=32)
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args()
    run(args)


def run(args: Any) -> None:
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    python = install(args.folder / "venv")
    work = args.folder / f"{args.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    work.mkdir()
    make_models(work, MODELS[args.model])
    make_data(work, args.samples)
    print(f"{args.model} {MODELS[args.model]}, {args.samples} samples, batch {args.batch}, LoRA r {args.rank}, float32")
    programs = {
        "upstream": [str(python), str(ROOT / "scripts/bench/upstream_on_cpu.py")],
        "ours": [sys.executable, str(ROOT / "llava/train/train_mem.py")],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number in range(args.rounds):
        for name, (whose, extra) in WAYS.items():
            output = work / f"round{number}-{len(found[name])}-{name.replace(' ', '_').replace(',', '')}"
            found[name].append(measure([*programs[whose], *flags(work, output, args), *extra], output))
            print(f"round {number + 1} of {args.rounds}: {name}: {found[name][-1]}", flush=True)
    print(text_table(rows(found)))
    print(f"the outputs are in {work}")


def rows(found: dict[str, list[dict[str, float]]]) -> list[tuple[str, ...]]:
    """The table; ratios are to upstream, medians of those of each round."""
    table = [("trainer", "samples/s", "ratio", "peak GiB", "ratio", "first loss")]
    reference = next(iter(found.values()))
    for name, results in found.items():
        cells = [name]
        for key in ("samples_per_second", "peak_gib"):
            values, others = ([result[key] for result in way] for way in (results, reference))
            cells += [f"{statistics.median(values):.2f}", f"{median_ratio(values, others):.2f}"]
        table.append((*cells, f"{results[0]['loss']:.4f}"))
    return table


if __name__ == "__main__":
    run_program(main, interrupted="")
