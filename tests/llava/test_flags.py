"""The one parser: what is wrong with the flags is said in one line, with what was probably meant."""

import os
import signal
import subprocess
import sys

import pytest

from llava.flags import Parser, run_program
from llava.names import close, did_you_mean


@pytest.fixture
def parser():
    parser = Parser(prog="prog")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--lora_enable", action="store_true")
    parser.add_argument("--dtype", choices=("fp32", "bf16"))
    return parser


@pytest.mark.parametrize(
    ("words", "error"),
    [
        # A misspelt flag is the error, not the required one that it was meant to be.
        ("--modle-path x", "no such flag: --modle-path; did you mean --model-path?"),
        ("--Model_Path=x", "no such flag: --Model_Path; did you mean --model-path?"),
        ("--lora-enabel", "no such flag: --lora-enabel; did you mean --lora_enable?"),
        ("--model-path x --zzz 1 --dytpe y", "no such flag: --zzz, --dytpe; did you mean --dtype?"),
        ("--model-path x y z", "no such argument: y, z"),
        ("--lora_enable", "the following arguments are required: --model-path"),
        ("--model-path", "argument --model-path: expected one argument"),
        (
            "--model-path x --dtype BF_16",
            "argument --dtype: invalid choice: 'BF_16' (choose from 'fp32', 'bf16'); did you mean 'bf16'?",
        ),
    ],
)
def test_wrong_flags_are_one_line(parser, capsys, words, error):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(words.split())
    assert capsys.readouterr().err == f"error: {error} (all flags: prog --help)\n"


def test_flags_that_are_right(parser):
    assert parser.parse_args(["--model-path", "-1", "--lora_enable"]).model_path == "-1"
    args, unknown = parser.known(["--dtype", "fp32", "--other", "x"])
    assert (args.dtype, args.model_path, unknown) == ("fp32", None, ["--other"])
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([])


def test_did_you_mean():
    assert close("sparse_unifrom", ["all", "sparse-uniform"]) == ["sparse-uniform"]
    assert close("xyz", ["all", "sparse-uniform"]) == []
    assert did_you_mean() == ""
    assert did_you_mean("a", "--b") == "; did you mean 'a' or --b?"


CHILD = """
import time
from llava.flags import run_program
run_program(lambda: (print("up", flush=True), time.sleep(60)))
"""
PARENT = f"""
import sys
from llava.flags import run_command, run_program
run_program(lambda: sys.exit(run_command([sys.executable, "-c", {CHILD!r}])))
"""


def test_ctrl_c_ends_a_program_and_what_it_started_with_one_line():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell lets its background jobs ignore Ctrl-C, and so would the programs that the tests start there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert parent.stdout.readline() == "up\n"
    # As a terminal does: to all processes of the group.
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert said == "\ninterrupted; the same command goes on from here\n"


def test_a_reader_that_ends_is_no_success():
    """As in `quickstart.sh | head`: a stage that stopped for it is not finished."""
    code = (
        "from llava.flags import run_program\nrun_program(lambda: [print('x' * 999, flush=True) for _ in range(9999)])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


def test_a_connection_that_ends_is_an_error():
    def lost():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit, match=r"error: .*Broken pipe"):
        run_program(lost)
