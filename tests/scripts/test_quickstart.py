"""The stages of scripts/quickstart.sh with a false Python: finished ones are skipped, other settings are refused."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = (
    *("install", "prepare", "pretrain", "finetune", "evaluate", "wrong_image", "score"),
    *("curve", "remove", "heal", "healed"),
)
FALSE_PYTHON = """#!/bin/bash
# Prints its arguments in a dry run, and else notes them. At its call KILL_AT it kills its process group.
if [ -n "$DRY_RUN" ]; then
    # A benchmark prints the command that answers.
    [ "$2" != llava.eval.suite.benchmark ] || set -- -m llava.eval.answering.launch ${GPUS:+--gpus "$GPUS"} "${@:3}"
    echo "python $*"
    exit
fi
echo "$*" >> "$LOG"
[ "$(wc -l < "$LOG")" != "${KILL_AT:-0}" ] || kill -KILL 0
"""


@pytest.fixture
def quickstart(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FALSE_PYTHON)
    python.chmod(0o755)

    def run(out="out", log="log", **changes):
        """Exit status, the programs that ran, and the errors."""
        own = {"OUT": str(tmp_path / out), "VENV": str(tmp_path / "venv"), "LOG": str(tmp_path / log)}
        command = ["bash", ROOT / "scripts/quickstart.sh"]
        environment = {**os.environ, **own, **changes}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True)
        path = tmp_path / log
        ran = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        ran = [line.replace(own["OUT"], "OUT") for line in ran if not line.startswith("-c import")]
        return done.returncode, ran, done.stderr

    return run


def test_other_settings_are_refused(quickstart, tmp_path):
    status, ran, _ = quickstart()
    assert status == 0
    assert "--tune_layers sparse-uniform:25%" in "\n".join(ran)
    status, ran, _ = quickstart()
    assert (status, [line.split()[:2] for line in ran]) == (0, [["-m", "playground.embedded.report"]])
    for changes, names in (
        ({"TUNE_LAYERS": "top:25%"}, "finetune {} --tune_layers sparse-uniform:25% before, --tune_layers top:25% now"),
        ({"EPOCHS": "3"}, "pretrain {} --num_train_epochs 1 before, --num_train_epochs 3 now"),
        ({"EVAL_DATA": "e.json"}, "pretrain {} nothing before, --eval_data_path e.json now"),
    ):
        status, ran, errors = quickstart(**changes)
        assert (status, ran) == (1, [])
        stage, _, settings = names.partition(" {} ")
        begun = f"the stage {stage} in {tmp_path}/out was begun with other settings: {settings}."
        out = tmp_path / "out"
        assert errors == f"error: {begun} Set OUT to another folder, such as OUT={out}-2, or delete {out}\n"


def test_a_gpu_that_comes_or_goes_is_no_other_setting(quickstart, tmp_path):
    """On a GPU the evaluations get a number of processes."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    changes = {"PATH": f"{program.parent}:{os.environ['PATH']}", "GPUS": "", "CUDA_VISIBLE_DEVICES": ""}
    for out, first, second in (("a", "exit 1", "echo GPU 0"), ("b", "echo GPU 0", "exit 1")):
        for text, calls in ((first, None), (second, 1)):
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
            status, ran, errors = quickstart(out, **changes)
            assert status == 0, errors
            assert calls in (None, len(ran))
    # As an earlier version recorded it on a GPU.
    record = tmp_path / "b/stages/evaluate.settings"
    text = record.read_text()
    assert text.startswith("-m llava.eval.answering.launch easy_vqa ")
    record.write_text(text.replace(" easy_vqa ", "\n--gpus 1 easy_vqa ", 1))
    status, ran, errors = quickstart("b", **changes)
    assert (status, len(ran)) == (0, 1), errors


def test_a_dry_run_finishes_no_stage(quickstart, tmp_path):
    status, ran, errors = quickstart(DRY_RUN="1")
    assert (status, ran) == (2, [])
    assert errors == "error: the quickstart has no dry run; unset DRY_RUN\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("layers", "anywhere"), [("all", True), ("top:25%", False)])
def test_with_all_layers_tuned_none_is_protected(quickstart, tmp_path, layers, anywhere):
    status, ran, _ = quickstart(TUNE_LAYERS=layers)
    (line,) = [line for line in ran if " prune " in line]
    assert (status, "--anywhere" in line) == (0, anywhere)
    # An earlier version began the stage without the flag, and failed.
    stages = tmp_path / "out/stages"
    (stages / "remove").unlink()
    (stages / "remove.settings").write_text("-m visual_region prune\n")
    assert quickstart(TUNE_LAYERS=layers)[0] == 0


def test_stages_of_earlier_versions_and_a_moved_folder_are_finished(quickstart, tmp_path):
    quickstart()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert len(quickstart("moved")[1]) == 1
    for record in (tmp_path / "moved/stages").glob("*.settings"):
        record.unlink()
    assert len(quickstart("moved", TUNE_LAYERS="top:25%")[1]) == 1


def test_killed_in_any_stage_it_goes_on(quickstart, tmp_path):
    _, whole, _ = quickstart("whole")
    stages = {path.name for path in (tmp_path / "whole/stages").iterdir()}
    assert stages == {*STAGES, *(f"{name}.settings" for name in STAGES)}
    # The installation is over.
    calls = [line for line in whole if "pip" not in line]
    for call in range(1, len(calls) + 1):
        status, before, _ = quickstart(f"out{call}", KILL_AT=str(call))
        assert (status, before) == (-signal.SIGKILL, calls[:call])
        status, after, _ = quickstart(f"out{call}")
        assert status == 0
        assert after == calls[call - 1 :]
        assert {path.name for path in (tmp_path / f"out{call}/stages").iterdir()} == stages
