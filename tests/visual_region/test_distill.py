"""Healing: the loss against its formula, a run through the trainer, resuming, and pairs that do not fit."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_checkpoint, load_pretrained_model
from visual_region.commands import heal
from visual_region.distill import Distillation, kl_from_teacher


@pytest.fixture
def pruned(command, tiny_llava, tmp_path):
    """The tiny model without layer 1, and with the settings that a training run would have recorded."""
    source = shutil.copytree(tiny_llava, tmp_path / "teacher")
    config = json.loads((source / "config.json").read_text())
    config |= {"conversation_template": "v1", "tokenizer_model_max_length": 256}
    (source / "config.json").write_text(json.dumps(config))
    command("prune", "--model-path", source, "--layers", "1", "--output", tmp_path / "pruned")
    return tmp_path / "pruned"


def flags(tiny, pruned, output, **changes):
    given = {
        "model-path": pruned,
        "teacher": pruned.parent / "teacher",
        "data-path": tiny.data,
        "image-folder": tiny.images,
        "lora-r": 4,
        "steps": 4,
        "batch-size": 3,
        "learning-rate": 1e-2,
        "dtype": "fp32",
        "output": output,
    } | changes
    argv = [text for name, value in given.items() if value is not None for text in (f"--{name}", value)]
    return ["heal", *argv, "--", "--logging_steps", "1", "--disable_tqdm", "True"]


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_equals_its_formula(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 11), torch.randn(7, 11)
    p, q = ((x.double() / temperature).softmax(-1) for x in (teacher, student))
    expected = temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()
    assert kl_from_teacher(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)
    assert kl_from_teacher(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)


def test_a_student_comes_nearer_to_its_teacher(command, tiny, pruned, tmp_path, monkeypatch):
    output, devices = tmp_path / "healed", []

    def load(*args, device, **kwargs):
        devices.append(device)
        return load_checkpoint(*args, device=device, **kwargs)

    monkeypatch.setattr("visual_region.commands.heal.load_checkpoint", load)
    command(*flags(tiny, pruned, output, steps=12, **{"tune-layers": "0,1"}))
    assert devices == ["cpu"], "the student's; else several GPUs would share the teacher"
    found = losses(output)
    assert sum(found[-4:]) < 0.9 * sum(found[:4])
    assert {n.split(".layers.")[1][0] for n in load_file(output / "adapter_model.safetensors")} == {"0", "1"}
    _, model, _, _ = load_pretrained_model(str(output), device="cpu")
    record = model.config.visual_region
    assert record["layers"] == [0, 3]
    assert record["removed_layers"] == [1]
    assert record["healed"]["layers"] == [0, 2]
    assert record["healed"]["temperature"] == 1.0


def test_the_first_loss_is_the_kl_between_the_two(command, tiny, pruned, tmp_path):
    """One step on all samples: equal to a naive computation over whole logits, sample by sample."""
    from llava.conversation import get_template
    from llava.data.preprocess import preprocess
    from llava.data.records import open_records
    from llava.images import open_image
    from llava.mm_utils import process_image

    output = tmp_path / "healed"
    changes = {"steps": 1, "batch-size": 24, "temperature": 2.0, "ce-weight": 0.5}
    command(*flags(tiny, pruned, output, **changes))
    tokenizer, teacher, processor, _ = load_pretrained_model(str(pruned.parent / "teacher"), device="cpu")
    student = load_pretrained_model(str(pruned), device="cpu")[1]
    kl, ce = [], []
    for record in open_records(tiny.data):
        ids, labels = preprocess(record.turns, tokenizer, get_template("v1"), len(record.images))
        images = None
        if record.images:
            images = process_image(open_image(tiny.images / record.images[0], "x"), processor, "pad")[None]
        _, _, _, _, embeds, spliced = student.prepare_inputs_labels_for_multimodal(
            ids[None], None, None, None, labels[None], images
        )
        wanted = (labels[None] if embeds is None else spliced)[0, 1:]
        with torch.no_grad():
            p, q = (m(input_ids=ids[None], images=images).logits[0, :-1].double() for m in (teacher, student))
        p, q = ((x[wanted != -100] / 2).log_softmax(-1) for x in (p, q))
        kl.append(4 * (p.exp() * (p - q)).sum(-1))
        ce.append(-(2 * q).log_softmax(-1).gather(1, wanted[wanted != -100, None])[:, 0])
    expected = torch.cat(kl).mean() + 0.5 * torch.cat(ce).mean()
    assert losses(output)[0] == pytest.approx(expected.item(), rel=1e-3)


def test_whole_layers_and_resuming(command, tiny, pruned, tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    whole = {"lora-r": 0, "tune-layers": "0", "save-steps": 2}
    command(*flags(tiny, pruned, straight, **whole))
    command(*flags(tiny, pruned, resumed, **whole), "--save_total_limit", "2")
    # As if the run had died after its second step.
    for file in resumed.iterdir():
        if file.is_file():
            file.unlink()
    shutil.rmtree(resumed / "checkpoint-4")
    command(*flags(tiny, pruned, resumed, **whole))

    before, first, again = (load_file(f / "model.safetensors") for f in (pruned, straight, resumed))
    changed = {n for n in before if not torch.equal(first[n], before[n])}
    assert changed
    assert all(n.startswith("model.layers.0.") for n in changed)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert losses(resumed) == losses(straight)


def test_where_the_output_must_not_lie(command, tiny, pruned, tmp_path, monkeypatch):
    """Before any weight is loaded: the student, its teacher, a file, another model."""
    afile = tmp_path / "afile"
    afile.write_text("precious")
    other = shutil.copytree(pruned, tmp_path / "other")
    monkeypatch.setattr("llava.train.train.train", None)
    before = sorted(tmp_path.rglob("*"))
    cases = [
        (pruned, "overlap"),
        (pruned / "healed", "overlap"),
        (tmp_path, "overlap"),
        (pruned.parent / "teacher", "overlap"),
        (afile, "is a file; give a folder"),
        (afile / "healed", "nothing can be written below it"),
        (other, "holds a checkpoint that heal did not write"),
    ]
    for output, words in cases:
        with pytest.raises(SystemExit, match=words):
            command(*flags(tiny, pruned, output))
    with pytest.raises(SystemExit, match=r"--vision-feature-cache .* is a file; give a folder"):
        command(*flags(tiny, pruned, tmp_path / "healed", **{"vision-feature-cache": afile}))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_run_may_be_run_again(command, tiny, pruned, tmp_path, capsys):
    """It is done, unless its teacher or another setting differs."""
    output = tmp_path / "healed"
    command(*flags(tiny, pruned, output, steps=1))
    command(*flags(tiny, pruned, output, steps=1))
    assert "done before, with the same settings" in capsys.readouterr().out
    teacher = pruned.parent / "teacher"
    weights = load_file(teacher / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, teacher / "model.safetensors")
    with pytest.raises(SystemExit) as stop:
        command(*flags(tiny, pruned, output, steps=1, temperature=2))
    assert f"--teacher: before {teacher} with another content, now {teacher}" in str(stop.value)
    assert "--temperature: before 1.0, now 2.0" in str(stop.value)


def test_a_tower_that_lies_elsewhere(command, tiny, pruned, tmp_path, monkeypatch):
    """Both record a folder that does not exist here, or two spellings of one; --vision-tower is for both."""
    teacher, here = pruned.parent / "teacher", shutil.copytree(tiny.tower, tmp_path / "here")

    def record(folder, tower):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": str(tower)}))

    for folder in (teacher, pruned):
        record(folder, "/nowhere/tower")
    output = tmp_path / "healed"
    command(*flags(tiny, pruned, output, steps=1, **{"vision-tower": here}))
    assert json.loads((output / "config.json").read_text())["mm_vision_tower"] == str(here)
    load_pretrained_model(str(output), device="cpu")

    monkeypatch.setattr("llava.train.train.train", lambda *_, **__: print("trained"))
    record(pruned, here)
    with pytest.raises(SystemExit, match=r"is '/nowhere/tower' in the teacher and .*; .* give --vision-tower"):
        command(*flags(tiny, pruned, tmp_path / "new"))
    command(*flags(tiny, pruned, tmp_path / "new", **{"vision-tower": here}))
    record(teacher, "here")
    monkeypatch.chdir(tmp_path)
    command(*flags(tiny, pruned, tmp_path / "new"))


def test_the_teacher_is_loaded_whole(command, tiny, pruned, tmp_path, monkeypatch):
    """With ZeRO-3, transformers would load a part of each of its weights."""
    inside, original = [], heal.load_checkpoint

    @contextlib.contextmanager
    def whole(training):
        inside.append(True)
        yield
        inside.pop()

    def load(*args, **kwargs):
        assert inside
        return original(*args, **kwargs)

    monkeypatch.setattr(heal, "weights_whole", whole)
    monkeypatch.setattr(heal, "load_checkpoint", load)
    command(*flags(tiny, pruned, tmp_path / "healed", steps=1))


def test_a_teacher_from_the_hub_is_recorded_by_its_id(command, tiny, pruned, tmp_path, monkeypatch):
    teacher = str(pruned.parent / "teacher")
    for name in ("snapshot_download", "list_repo_files"):
        monkeypatch.setattr(f"llava.checkpoint.folder.{name}", lambda name, **options: teacher)
    command(*flags(tiny, pruned, tmp_path / "healed", steps=1, teacher="org/teacher"))
    config = json.loads((tmp_path / "healed/config.json").read_text())
    assert config["visual_region"]["healed"]["teacher"] == "org/teacher"


def test_marks_around_images_are_not_lost(command, tiny, pruned, tmp_path):
    """The trainer would show the images without them."""
    student = shutil.copytree(pruned, tmp_path / "student")
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"mm_use_im_start_end": True}))
    with pytest.raises(SystemExit, match="has marks around images"):
        command(*flags(tiny, student, tmp_path / "healed", teacher=pruned.parent / "teacher"))
    assert not (tmp_path / "healed").exists()


def test_pairs_that_do_not_fit_and_flags_that_make_no_sense(command, tiny, pruned, tiny_llava, tmp_path, monkeypatch):
    other = shutil.copytree(tiny_llava, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"mm_vision_select_layer": -1}))
    cases = [
        ({"teacher": other}, "mm_vision_select_layer is -1 in the teacher and -2 in the student"),
        ({"teacher": pruned}, "cannot teach (itself|.*: they are the same model)"),
        ({"teacher": shutil.copytree(pruned, tmp_path / "copy")}, "cannot teach .*: they are the same model"),
        ({"temperature": 0}, "--temperature 0 must be above 0"),
        ({"ce-weight": -1}, "--ce-weight -1 must be at least 0"),
        ({"steps": 0}, "--steps 0 must be at least 1"),
        ({"batch-size": 0, "lora-r": -1}, "--batch-size 0 must be at least 1; --lora-r -1 must be at least 0"),
        ({"save-steps": 0}, "--save-steps 0 must be at least 1"),
        ({"learning-rate": 0}, "--learning-rate 0.0 must be above 0"),
        ({"tune-layers": "5"}, "there is no layer 5"),
        ({"model-path": tmp_path / "none"}, "does not exist"),
    ]
    for changes, words in cases:
        with pytest.raises(SystemExit, match=words):
            command(*flags(tiny, pruned, tmp_path / "out", **changes))
    for words in (["--unfreeze_vision_tower", "True"], ["--unfreeze_vision_tower=1"], ["--unfreeze-vision-tower"]):
        with pytest.raises(SystemExit, match="--unfreeze_vision_tower: the tower stays frozen"):
            command(*flags(tiny, pruned, tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="temperature"):
        Distillation(temperature=-1)
