"""No code of a folder runs: neither what `auto_map` names, nor what a pickle holds; each is refused in one line."""

import ast
import json
import os
import shutil
from http import HTTPStatus

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import REPOSITORY

PLACE = "llava/checkpoint/safe.py"
PACKAGES = ("llava", "bunny", "visual_region", "playground", "scripts", "llava_plugins")
LOADERS = ("from_pretrained", "from_config")


def test_one_file_loads():
    """Elsewhere a loader of transformers is only named, as the first argument of `without_code`."""
    for package in PACKAGES:
        for file in (REPOSITORY / package).rglob("*.py"):
            if str(file.relative_to(REPOSITORY)) == PLACE:
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute):
                    assert called.attr not in LOADERS, f"{file}:{node.lineno} calls {called.attr} by itself"
                    assert ast.unparse(called) not in ("torch.load", "pickle.load", "pickle.loads"), (file, node.lineno)


class Mark:
    """What a pickle of this does when it is loaded: it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def parts(tmp_path, tiny, tiny_llava, tiny_lora):
    """Copies of a tower, a language model, a LLaVA and a LoRA, whose settings name each other."""
    places = {"tower": tiny.tower, "llm": tiny.llm, "llava": tiny_llava, "lora": tiny_lora}
    for name, source in places.items():
        shutil.copytree(source, tmp_path / name)
    for name in ("llava", "lora"):
        change(tmp_path / name / "config.json", mm_vision_tower=str(tmp_path / "tower"))
    change(tmp_path / "lora" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "llm"))
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 0, "text": "Where?", "image": "0.png"}) + "\n")
    return tmp_path


def change(file, **values):
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(old | values))


def plant(folder, mark, unknown=False):
    """Python code in every place that can name some; `unknown`: under class names that only that code has."""
    code = f"open({str(mark)!r}, 'w')\n\n\nclass A:\n    pass\n\n\ndef generate(*a, **k):\n    pass\n"
    (folder / "evil.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoImageProcessor", "AutoProcessor")
    mapped = {"auto_map": dict.fromkeys(names, "evil.A") | {"AutoTokenizer": ["evil.A", "evil.A"]}}
    change(folder / "generation_config.json", custom_generate="custom_generate", **mapped)
    if (folder / "adapter_config.json").exists():
        change(folder / "adapter_config.json", auto_mapping={"parent_library": "evil", "base_model_class": "A"})
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        change(folder / file, **mapped)
    if unknown:
        change(folder / "tokenizer_config.json", tokenizer_class="Evil")
        kinds = dict.fromkeys(("image_processor_type", "feature_extractor_type", "processor_class"), "Evil")
        for file in ("preprocessor_config.json", "processor_config.json"):
            change(folder / file, **kinds)


def programs(parts, tiny, train_flags):
    """Every program that opens a folder, with its flags."""
    model, out = ("--model-path", parts / "llava"), parts / "out"
    data = ("--data-path", tiny.data, "--image-folder", tiny.images)
    quick = {"max_steps": 1, "model_name_or_path": parts / "llm", "vision_tower": parts / "tower"}
    answer = ("--question-file", parts / "q.jsonl", "--image-folder", tiny.images, "--max_new_tokens", 2)
    heal = ("heal", *model, "--teacher", parts / "lora", *data, "--steps", 1, "--lora-r", 2, "--batch-size", 2)
    return {
        "train": ("llava.train.train", *train_flags(out / "train", lora_enable=True, **quick)),
        "answers": ("llava.eval.model_vqa_loader", *model, *answer, "--answers-file", out / "a.jsonl"),
        "lora": (
            *("llava.eval.model_vqa_loader", "--model-path", parts / "lora", *answer),
            *("--answers-file", out / "b.jsonl"),
        ),
        "chat": ("llava.serve.cli", *model, "--image-file", tiny.images / "0.png"),
        "score": ("visual_region", "score", *model, *data, "--samples", 2, "--output", out / "s.json"),
        "prune": ("visual_region", "prune", *model, "--layers", 1, "--output", out / "pruned"),
        "prune-lora": (
            *("visual_region", "prune", "--model-path", parts / "lora", "--layers", 1),
            *("--output", out / "pruned2"),
        ),
        "revert": (
            *("visual_region", "revert", *model, "--layers", 1, "--backbone", parts / "llm"),
            *("--output", out / "reverted"),
        ),
        "heal": ("visual_region", *heal, "--dtype", "fp32", "--output", out / "healed"),
        "plan": ("visual_region", "plan", *model, "--tune-layers", "0"),
        "perplexity": (
            *("visual_region", "perplexity", *model, *data, "--backbone", parts / "llm", "--samples", 2),
            *("--revert", "0", "--output", out / "p.json"),
        ),
        "export": ("visual_region", "export", *model, "--output", out / "stock"),
        "merge": (
            *("scripts/merge_lora_weights.py", "--model-path", parts / "lora"),
            *("--save-model-path", out / "merged"),
        ),
        "extract": ("scripts/extract_mm_projector.py", *model, "--output", out / "mm_projector.bin"),
        "average": (
            *("scripts/average_weights.py", "--model-paths", parts / "llava", parts / "llava"),
            *("--output", out / "average"),
        ),
    }


NAMES = [
    *("train", "answers", "lora", "chat", "score", "prune", "prune-lora", "revert", "heal", "plan", "perplexity"),
    *("export", "merge", "extract", "average"),
]
READS_NO_CLASSES = {"prune", "revert", "plan", "extract", "average"}
"""Programs that copy tensors or read config.json only."""


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked on the terminal; about code the answer is yes."""
    found = []
    monkeypatch.setattr("builtins.input", lambda text="": found.append(text) or ("y" if "code" in text else ""))
    return found


def one_line(stop):
    text = str(stop.value)
    assert text.startswith("error: ") or text.startswith("this run cannot start"), text
    # One line for each error of a training.
    assert all(line.startswith("- ") for line in text.splitlines()[1:]), text
    assert not [word for word in ("trust_remote_code", "weights_only", "Traceback") if word in text], text
    return text


@pytest.mark.parametrize("name", NAMES)
def test_code_in_a_folder_never_runs(name, program, parts, tiny, train_flags, asked):
    """Our own folders load although they hold planted code; folders that need their code are refused in one line."""
    mark = parts / "ran"
    for folder in ("tower", "llm", "llava", "lora"):
        plant(parts / folder, mark, unknown=True)
    words = programs(parts, tiny, train_flags)[name]
    if name in READS_NO_CLASSES:
        program(*words)
    else:
        with pytest.raises(SystemExit) as stop:
            program(*words)
        assert "asks for Python code of its own" in one_line(stop)
    assert not mark.exists()
    assert not [text for text in asked if "code" in text]


@pytest.mark.parametrize("name", ["train", "answers", "lora", "score"])
def test_known_classes_load_beside_code(name, program, parts, tiny, train_flags, asked):
    mark = parts / "ran"
    for folder in ("tower", "llm", "llava", "lora"):
        plant(parts / folder, mark)
    program(*programs(parts, tiny, train_flags)[name])
    assert not mark.exists()
    assert not asked


def spoil(file, mark, old=False):
    """Adds an object that would leave a mark to the tensors of a file; safetensors become a .bin file."""
    source = file.with_name(file.name.replace("pytorch_model.bin", "model.safetensors").replace(".bin", ".safetensors"))
    held = load_file(source) if source != file and source.exists() else {}
    if held:
        source.unlink()
    torch.save(held | {"evil": Mark(mark)}, file, _use_new_zipfile_serialization=not old)


PICKLES = [
    ("llava/pytorch_model.bin", "answers chat score prune revert heal perplexity export extract average"),
    ("llm/pytorch_model.bin", "train lora prune-lora merge"),
    ("lora/adapter_model.bin", "lora prune-lora merge"),
    ("lora/non_lora_trainables.bin", "lora prune-lora merge"),
    ("tower/pytorch_model.bin", "train answers chat score heal export merge prune-lora"),
    ("mm_projector.bin", "train"),
]


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in PICKLES for name in names.split()])
def test_a_pickle_with_code_is_refused(file, name, program, parts, tiny, train_flags):
    """One line names the file and why, without torch's advice to load it all the same."""
    mark = parts / "ran"
    words = programs(parts, tiny, train_flags)[name]
    if file == "mm_projector.bin":
        words = (*words, "--pretrain_mm_mlp_adapter", parts / file)
    for old in (False, True):
        spoil(parts / file, mark, old)
        with pytest.raises(SystemExit) as stop:
            program(*words)
        text = one_line(stop)
        assert f"{parts / file} is refused: it holds more than tensors (posix.system)" in text
        assert not mark.exists()


def test_resuming_runs_no_code(program, parts, tiny, train_flags):
    """The Trainer reads these files itself."""
    mark, flags = parts / "ran", {"save_strategy": "steps", "save_steps": 1, "vision_tower": parts / "tower"}
    for lora in (True, False):
        output = parts / f"lora-{lora}"
        flags |= {"lora_enable": lora}
        program("llava.train.train", *train_flags(output, max_steps=1, **flags))
        folder = output / "checkpoint-1"
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth") if lora else ("pytorch_model.bin",):
            before = (folder / name).read_bytes() if (folder / name).exists() else None
            spoil(folder / name, mark)
            with pytest.raises(SystemExit) as stop:
                program("llava.train.train", *train_flags(output, max_steps=2, **flags))
            assert f"{folder / name} is refused" in one_line(stop)
            if before:
                (folder / name).write_bytes(before)
        if lora:
            program("llava.train.train", *train_flags(output, max_steps=2, **flags))
    assert not mark.exists()


def test_files_of_deepspeed(tmp_path):
    """DeepSpeed loads its own files with any code in them: they are looked through before."""
    zero = pytest.importorskip("deepspeed.runtime.zero.config")
    from deepspeed.runtime.fp16.loss_scaler import LossScaler

    from llava.checkpoint.safe import UntrustedError
    from llava.train.checkpoint import check_trusted

    shard = tmp_path / "global_step1" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    shard.parent.mkdir()
    own = {"loss_scaler": LossScaler(1.0), "zero_stage": zero.ZeroStageEnum.weights, "flat": torch.ones(3)}
    torch.save(own, shard)
    (tmp_path / "latest").write_text("global_step1")
    check_trusted(tmp_path)
    (tmp_path / "latest").write_text("../elsewhere")
    with pytest.raises(UntrustedError, match="which is not a folder next to it"):
        check_trusted(tmp_path)
    (tmp_path / "latest").write_text("global_step1")
    torch.save(own | {"evil": Mark(tmp_path / "ran")}, shard)
    with pytest.raises(UntrustedError, match="is refused: it holds more than tensors"):
        check_trusted(tmp_path)
    assert not (tmp_path / "ran").exists()


class ByName:
    """Pickled as `getattr(owner, name)`."""

    def __init__(self, owner: object, name: str) -> None:
        self.how = (owner, name)

    def __reduce__(self) -> tuple:
        return getattr, self.how


def test_members_of_enums_by_name(tmp_path):
    """Python 3.11.0 to 3.11.3 pickle the member of an enum as a `getattr`; `getattr` of anything else stays refused."""
    from llava.checkpoint.safe import UntrustedError, load_pickled

    path = tmp_path / "a.pt"
    torch.save(ByName(HTTPStatus, "OK"), path)
    assert load_pickled(path, allowed=[HTTPStatus]) is HTTPStatus.OK
    with pytest.raises(UntrustedError, match=r"it holds more than tensors \(getattr\)"):
        load_pickled(path)
    for owner, name in [(HTTPStatus, "mro"), (torch.Tensor, "numpy"), (HTTPStatus, "__class__")]:
        torch.save(ByName(owner, name), path)
        with pytest.raises(UntrustedError, match=r"it holds more than tensors \(getattr\)"):
            load_pickled(path, allowed=[HTTPStatus])
