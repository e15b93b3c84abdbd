"""`python -m visual_region`: only the asked command is imported, and what the user mistyped is named."""

import json
import subprocess
import sys

import pytest

from visual_region.commands import COMMANDS

HEAVY = ("torch", "transformers", "matplotlib", "numpy")


def run(*arguments):
    """Runs the program in a fresh process; the names of the heavy packages that it imported end its output."""
    code = (
        "import sys, runpy\n"
        "try:\n"
        "    runpy.run_module('visual_region', run_name='__main__')\n"
        "finally:\n"
        f"    print('imported:', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), "Decoder layers"),
        (("select", "--help"), "--num-layers"),
        (("select", "sparse-uniform:8", "--num-layers", "32"), "--tune_layers 0,4,8,12,18,22,26,30"),
    ],
)
def test_help_and_a_selection_by_name_import_no_torch(arguments, words):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert done.stdout.splitlines()[-1] == "imported:"


def test_a_selection_by_a_score_file_imports_no_torch(tmp_path):
    scores = {"num_layers": 4, "metrics": {"bi": {"values": [0.1, 0.4, 0.2, 0.3]}}}
    (tmp_path / "s.json").write_text(json.dumps(scores))
    done = run("select", f"{tmp_path / 's.json'}#bi:2", "--markdown", str(tmp_path / "t.md"))
    assert "--tune_layers 1,3\n" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_help_lists_every_command():
    done = run("--help")
    for name, line in COMMANDS.items():
        assert f"{name}" in done.stdout
        assert line in done.stdout


@pytest.mark.parametrize(
    ("name", "words"), [("prnue", "no command 'prnue'; did you mean 'prune'"), ("xyz", "there are select, score")]
)
def test_an_unknown_command(command, name, words):
    with pytest.raises(SystemExit, match=words):
        command(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name, capsys):
    with pytest.raises(SystemExit, match="0"):
        command(name, "--help")
    assert f"python -m visual_region {name}" in capsys.readouterr().out
