"""A wrong flag, number, file or sample ends a training with one message and no traceback."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from llava.files import locked
from llava.train.arguments import ARGUMENTS, parse_arguments
from llava.train.flag_names import LLAVA, _source, declared
from llava.train.learned import LearnedCheck
from llava.train.train import train
from tests.conftest import REPOSITORY

TURNS = [{"from": "human", "value": "Where is the line?"}, {"from": "gpt", "value": "left"}]


@pytest.fixture
def refused(train_flags, tmp_path, monkeypatch):
    """The message of a training that ends before weights are loaded."""
    from llava.families import ModelFamily

    monkeypatch.setattr(ModelFamily, "load_model_class", lambda self: pytest.fail("weights were about to be loaded"))

    def message(**changes: object) -> str:
        with pytest.raises(SystemExit) as stop:
            train(argv=train_flags(tmp_path / "out", **changes))
        assert not (tmp_path / "out").exists()
        return str(stop.value)

    return message


@pytest.fixture
def data(tmp_path):
    """Writes a data file: bytes, or items."""

    def write(content: bytes | list) -> str:
        file = tmp_path / "own.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(file)

    return write


def test_a_misspelt_flag_ends_before_torch_is_imported():
    code = """
        import sys
        from {package}.train.train import train
        try:
            train(argv=["--lora_enabel", "True", "--model-name-or-pat", "m", "--no_double_quant", "--lerning_rate=1"])
        except SystemExit as stop:
            print(stop.code)
        print("torch" in sys.modules, "transformers" in sys.modules)
    """
    for package in ("llava", "bunny"):
        text = textwrap.dedent(code).format(package=package)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=REPOSITORY)
        assert done.stdout.splitlines() == [
            "error: no such flag: --lora_enabel; did you mean --lora_enable?, --lerning_rate; did you mean "
            "--learning_rate? (--help shows all flags)",
            "False False",
        ], done.stderr


def test_the_names_in_the_source_are_the_fields():
    names = {name for module in (LLAVA, "transformers.training_args") for name in declared(_source(module))}
    assert {part.name for values in ARGUMENTS for part in dataclasses.fields(values)} <= names


def test_a_wrong_value_and_a_misspelt_flag_of_another_package(train_flags, tmp_path, capsys):
    cases = {
        "--lora_r many": "argument --lora_r/--lora-r: invalid int value: 'many' (--help",
        "--eval_strategy stepz": "did you mean 'steps'?",
        "--lora_enable maybe": "Truthy value expected: got maybe",
        "--torch_empty_cache_steps 0": "`torch_empty_cache_steps` must be an integer bigger than 0",
    }
    for words, message in cases.items():
        with pytest.raises(SystemExit) as stop:
            train(argv=[*train_flags(tmp_path / "out"), *words.split()])
        assert message in str(stop.value)
        assert str(stop.value).count("\n") == 0
    with pytest.raises(SystemExit, match=r"--lora_enabel; did you mean --lora_enable\?"):
        train(argv=[*train_flags(tmp_path / "out"), "--lora_enabel", "True"], arguments=ARGUMENTS)


def test_help_has_our_flags_first(capsys):
    with pytest.raises(SystemExit):
        train(argv=["--help"])
    text = capsys.readouterr().out
    first, second = text.split("flags of transformers.TrainingArguments:")
    assert len(text.split("\noptions:")[0].splitlines()) <= 4
    for flag in (
        "--tune_layers",
        "--vision_tower",
        "--data_path",
        "--lora_r",
        "--mm_projector_lr",
        "--model_max_length",
    ):
        assert f"\n  {flag}" in first
        assert f"\n  {flag}" not in second
    assert "\n  --learning_rate" in second


def test_numbers_and_places_are_told_all_at_once(refused, tmp_path):
    afile = tmp_path / "afile"
    afile.touch()
    text = refused(
        per_device_train_batch_size=0,
        model_max_length=0,
        lora_enable=True,
        lora_r=0,
        lora_dropout=1,
        fp16=True,
        bf16=True,
        learning_rate=-1,
        max_steps=-7,
        output_dir=afile / "x",
        data_path="/nowhere.json",
        evaluation_strategy="steps",
    )
    for words in (
        "--per_device_train_batch_size 0 must be at least 1",
        "--model_max_length 0 must be at least 1",
        "--lora_r 0 must be at least 1",
        "--lora_dropout 1 must be below 1",
        "--fp16 True with --bf16 True",
        "--learning_rate -1.0 must be at least 0",
        "--max_steps -7: give at least 1 step",
        f"--output_dir {afile}/x: {afile} is a file",
        "data file /nowhere.json does not exist",
        "--eval_strategy steps needs --eval_data_path",
    ):
        assert f"\n- {words}" in text
    assert text.count("\n- ") == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output_dir": ""}, "--output_dir is empty"),
        ({"output_dir": __file__}, "is a file; give a folder"),
        ({"max_steps": -1, "num_train_epochs": 0}, "--num_train_epochs 0 trains nothing"),
        ({"max_steps": 0}, "--max_steps 0: give at least 1 step"),
        ({"save_strategy": "steps", "save_steps": 0}, "--save_steps 0 must be above 0"),
        ({"data_path": REPOSITORY}, "is a folder; give the JSON file in it"),
        ({"pretrain_mm_mlp_adapter": REPOSITORY}, "is a folder; give mm_projector.bin in it"),
        ({"kernels": "liger"}, "--kernels liger cannot run: Liger's kernels need a GPU; use none, or auto"),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor 0.1 is not supported"),
        ({"use_liger_kernel": True}, "use --kernels liger"),
        ({"model_max_length": 4}, "every label lies past model_max_length 4"),
    ],
)
def test_one_mistake(refused, changes, words):
    assert words in refused(**changes)


def test_a_tower_that_cannot_be_loaded(tiny, refused, tmp_path):
    tower = shutil.copytree(tiny.tower, tmp_path / "tower")
    (tower / "preprocessor_config.json").unlink()
    assert f"vision tower {tower} has no preprocessor_config.json" in refused(vision_tower=tower)
    shutil.copyfile(tiny.tower / "preprocessor_config.json", tower / "preprocessor_config.json")
    weights = tower / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"vision tower {tower} is not whole: " in refused(vision_tower=tower)


@pytest.mark.parametrize(
    "turns",
    [TURNS[:1], [TURNS[0], {"from": "gpt", "value": ""}], TURNS[1:]],
    ids=["human turns only", "empty answers", "gpt turns only"],
)
def test_data_without_a_label(refused, data, turns):
    text = refused(data_path=data([{"id": f"a{i}", "conversations": turns} for i in range(3)]))
    assert "own.json: no sample has a label to learn from (3 samples checked):\n3 samples: " in text
    assert "(ids a0, a1, a2)" in text


@pytest.fixture
def mixed_captions(tiny, data):
    """A data file of captions and other samples, and what is wrong with it."""
    captions = json.loads(tiny.captions.read_text())
    two = captions[0]["conversations"]
    others = [{"id": "text", "conversations": TURNS}, captions[0] | {"id": "long", "conversations": two + TURNS}]
    found = "they are not captions: the template 'plain' takes exactly two turns with <image> in the first"
    return data([*others, *captions]), f"2 samples: {found} (ids text, long)"


def test_samples_that_are_no_captions(tiny, mixed_captions, refused):
    """Each would end the run in the middle."""
    file, found = mixed_captions
    assert found in refused(version="plain", data_path=file)
    assert found in refused(version="plain", data_path=tiny.captions, eval_data_path=file)


def test_samples_that_are_no_captions_are_left_out(mixed_captions, train_flags, tmp_path, capsys):
    file, found = mixed_captions
    changes = {"tune_mm_mlp_adapter": True, "version": "plain", "bad_samples": "skip"}
    train(argv=train_flags(tmp_path / "out", **changes, data_path=file))
    assert f"leaving out 2 of 10 samples:\n{found}" in capsys.readouterr().out


def test_one_label_is_enough(refused, data):
    items = [{"id": i, "conversations": TURNS[:1]} for i in range(3)] + [{"id": 3, "conversations": TURNS}]
    assert "label to learn from" not in refused(data_path=data(items), lora_bias="all")


def test_text_that_is_no_utf_8(refused, data):
    good, bad = ({"id": f"é{i}", "conversations": TURNS} for i in range(2))
    bad = bad | {"conversations": [TURNS[0], {"from": "gpt", "value": "à gauche"}]}
    latin = (
        json.dumps([good], ensure_ascii=False).encode()[:-1]
        + b',{"id": "s", "conversations": ['
        + (json.dumps(bad["conversations"], ensure_ascii=False)[1:].encode("latin-1") + b"}]")
    )
    text = refused(data_path=data(latin))
    assert "own.json is not LLaVA JSON: item 1 (id 's') turn 1 holds the byte 0xe0, which is not UTF-8" in text
    assert "own.json is UTF-16; convert it to UTF-8" in refused(data_path=data(json.dumps([good]).encode("utf-16")))
    half = [good, bad | {"conversations": [TURNS[0], {"from": "gpt", "value": "\ud83d!"}]}]
    assert r"item 1 (id 'é1') turn 1 holds half of a surrogate pair (\ud83d)" in refused(data_path=data(half))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image(tiny, train_flags, data, tmp_path, workers):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    turns = [{"from": "human", "value": "<image>\nWhere?"}, TURNS[1]]
    file = data([{"id": "s7", "image": "cut.png", "conversations": turns}])
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", data_path=file, image_folder=tmp_path, dataloader_num_workers=workers))
    assert str(stop.value).startswith(f"error: sample s7 of {file} cannot be used: the image {tmp_path / 'cut.png'}")
    assert "\n" not in str(stop.value)


def test_a_folder_as_an_image(refused, data):
    turns = [{"from": "human", "value": "<image>\nWhere?"}, TURNS[1]]
    text = refused(data_path=data([{"id": "s7", "image": ".", "conversations": turns}]))
    assert "image files are missing" in text
    assert "(such as .) (ids s7)" in text


def test_a_run_whose_losses_are_all_zero(train_flags, tmp_path, monkeypatch):
    """Labels that are lost only inside the model: no result is written."""
    monkeypatch.setattr("llava.train.plan._check_labels", lambda *a: None)
    changes = {"model_max_length": 4, "lora_enable": True, "lora_r": 4, "save_strategy": "steps", "save_steps": 1}
    # Started again, the run makes no step at all.
    for _ in range(2):
        with pytest.raises(SystemExit, match="nothing was learned: the loss was 0 in every step"):
            train(argv=train_flags(tmp_path / "out", **changes, max_steps=1))
        assert not (tmp_path / "out" / "config.json").exists()


def test_a_resumed_run_has_learned_before():
    check, alone = LearnedCheck(), SimpleNamespace(gather=lambda values: values)
    check.resume([{"loss": 0.0, "step": 1}, {"loss": 0.5, "step": 2}, {"train_runtime": 1.0}], torch.device("cpu"))
    check.step(torch.zeros(()))
    check.end(alone)


def test_a_folder_that_another_run_holds(train_flags, tmp_path, monkeypatch):
    """As when a command is typed again while it still runs elsewhere."""
    monkeypatch.setattr("llava.train.run._WORKERS_END", 0)
    with (
        locked(tmp_path / "out"),
        pytest.raises(SystemExit, match=r"another process trains into .*; wait for it, or give another --output_dir"),
    ):
        train(argv=train_flags(tmp_path / "out", tune_mm_mlp_adapter=True, max_steps=1))
    train(argv=train_flags(tmp_path / "out", tune_mm_mlp_adapter=True, max_steps=1))
    assert not (tmp_path / "out/.lock").exists()


def test_hardware_without_tf32(train_flags, tmp_path, monkeypatch):
    """The scripts ask for it; transformers would end on a GPU before Ampere."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    argv = train_flags(tmp_path / "out", use_cpu=False)
    assert parse_arguments(argv)[2].tf32 is None


def test_ctrl_c_with_several_processes_is_no_traceback(tmp_path):
    program, began = tmp_path / "sleep.py", tmp_path / "began"
    lines = ["import pathlib, time", f"pathlib.Path({str(began)!r}).touch()"]
    lines += ["try: time.sleep(60)", "except BaseException: pass"]
    program.write_text("\n".join(lines))
    words = [sys.executable, "-m", "llava.train.launch", "--standalone", "--nproc_per_node", "2", str(program)]
    # A shell lets its background jobs ignore Ctrl-C.
    restore = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(words, cwd=REPOSITORY, stdout=said, stderr=said, preexec_fn=restore)
    deadline = time.monotonic() + 60
    while not began.exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_the_first_process_reports_first(monkeypatch):
    """The launcher ends the others while they wait."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    for rank in "0", "1":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit, match="did you mean --lora_enable"):
            train(argv=["--lora_enabel", "True"])
        assert len(waited) == int(rank)


@pytest.mark.parametrize("name", ["optimizer.pt", "tokenizer.json", "adapter_model.safetensors"])
def test_a_full_disk(train_flags, tmp_path, name, monkeypatch):
    """One error, and nothing half written stays; torch and safetensors have errors of their own for it."""
    output = tmp_path / "out"
    errors = {
        "optimizer.pt": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 24000 vs 23892"),
        "tokenizer.json": Exception("No space left on device (os error 28)"),
        "adapter_model.safetensors": SafetensorError("Error while serializing: I/O error: No space left on device"),
    }
    writers = {
        "optimizer.pt": "transformers.Trainer._save_optimizer_and_scheduler",
        "tokenizer.json": "transformers.PreTrainedTokenizerFast.save_pretrained",
        "adapter_model.safetensors": "llava.train.llava_trainer.save_trained",
    }

    def fail(*args, **kwargs):
        raise errors[name]

    monkeypatch.setattr(writers[name], fail)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    changes = {"lora_enable": True, "lora_r": 4, "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(output, **changes))
    assert f"error: the disk is full: {output}/checkpoint-1 needs more than " in str(stop.value)
    assert "1.0 kB free" in str(stop.value)
    assert sorted(file.name for file in output.iterdir()) == ["run.json", "run_settings.json"]
    monkeypatch.undo()
    monkeypatch.setattr(writers[name], fail)
    monkeypatch.setitem(errors, name, RuntimeError("another error"))
    with pytest.raises(RuntimeError, match="another error"):
        train(argv=train_flags(output, **changes))
