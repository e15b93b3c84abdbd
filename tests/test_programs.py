"""Every program: a wrong flag is one line, without torch; so is a file that is missing, empty or of another kind."""

import json
import subprocess
import sys

from tests.conftest import REPOSITORY
from visual_region.commands import COMMANDS

LIBRARIES = ("__init__", "m4c_evaluator")
ENTRIES = (
    *(f"llava.eval.{f.stem}" for f in sorted((REPOSITORY / "llava/eval").glob("*.py")) if f.stem not in LIBRARIES),
    *(f"bunny.eval.{file.stem}" for file in sorted((REPOSITORY / "bunny/eval").glob("[em]*_*.py"))),
    *("llava.serve.cli", "bunny.serve.cli", "llava.eval.suite.all", "llava.eval.suite.compare"),
    *("llava.eval.suite.benchmark", "llava.eval.answering.launch", "llava.eval.answering.merge_answers"),
    *("llava.eval.answering.subset", "playground.embedded.prepare", "playground.embedded.report"),
    *("scripts.average_weights", "scripts.extract_mm_projector", "scripts.merge_lora_weights"),
    *("scripts.convert_gqa_for_eval", "scripts.convert_mmbench_for_submission"),
)
BEFORE = {
    "llava.eval.score": ["gqa"],
    "llava.eval.prepare": ["gqa"],
    "llava.eval.suite.benchmark": ["gqa", "checkpoint"],
    "llava.eval.suite.all": ["checkpoint", "--data", "DATA", "--only", "perplexity"],
}
"""What stands before the wrong flag."""
RUN_ALL = """
import contextlib, io, json, runpy, sys
sys.modules["torch"] = None  # Its import fails.
found = {}
for name, words in json.load(sys.stdin).items():
    sys.argv, said = [name, *words], io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            runpy.run_module(name.partition(":")[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code
    found[name] = [code, said.getvalue()]
print(json.dumps(found))
"""


def run_all(commands):
    """Exit status (or message) and output of each program, in a process where torch cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_ALL], input=json.dumps(commands), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_wrong_flag_is_one_line_without_torch(tmp_path):
    (tmp_path / "perplexity").mkdir()
    (tmp_path / "perplexity/wikitext-2-valid.txt").touch()
    commands = {name: [*BEFORE.get(name, []), "--no-such-flag", "x"] for name in ENTRIES}
    commands |= {f"visual_region:{name}": [name, "--no-such-flag", "x"] for name in COMMANDS}
    commands["llava.eval.suite.all"][2] = str(tmp_path)
    commands["visual_region:picture"][1:1] = ["bars", "scores.json"]
    for name, (code, said) in run_all(commands).items():
        line = code if isinstance(code, str) else said
        assert code not in (0, None), name
        assert line.startswith("error: "), (name, line)
        assert "--no-such-flag" in line, (name, line)
        assert len(line.strip().splitlines()) == 1, (name, line)


def test_a_missing_flag_is_one_line_without_torch():
    """Of programs that need one; doctor says instead that torch is missing."""
    commands = {name: [] for name in ENTRIES if name != "playground.embedded.prepare"}
    commands |= {f"visual_region:{name}": [name] for name in COMMANDS}
    found = run_all(commands)
    assert "torch cannot be imported" in found.pop("visual_region:doctor")[1]
    for name, (code, said) in found.items():
        line = code if isinstance(code, str) else said
        assert code not in (0, None), name
        assert line.startswith("error: "), (name, line)
        assert len(line.strip().splitlines()) == 1, (name, line)
