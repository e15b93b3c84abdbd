"""Wrong flags of `demo` are one line, all at once, before anything is loaded."""

import importlib.util
import re
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--model-path, to ask"),
        (("--compare", "b"), "give the first one as --model-path"),
        (("--model-path", "a/b", "--compare", "./a/b/"), "--compare names the checkpoint of --model-path"),
        (("--model-path", "a", "--compare-base", "b", "--port", "80"), "--compare, which is missing; --port 80"),
        (("--scores", "s", "--port", "99999"), "not from 1024 to 65535"),
        (("--scores", "s", "--share"), "no such flag: --share"),
    ],
)
def test_wrong_flags(command, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        command("demo", *flags)
    said = f"{ended.value.code}{capsys.readouterr().err}"
    assert re.search(words, said), said


def test_without_gradio_one_line_says_what_to_install(command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else find(name, *more)
    )
    with pytest.raises(SystemExit, match=r"gradio: pip install -c constraints\.txt -e '\.\[demo\]'"):
        command("demo", "--scores", "s.json")


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio: pip install -e '.[demo]'")
class TestWithGradio:
    def test_wrong_files(self, command, tmp_path):
        with pytest.raises(SystemExit, match="is not a score file"):
            command("demo", "--scores", tmp_path / "none.json")
        with pytest.raises(SystemExit, match="--model-path: "):
            command("demo", "--model-path", tmp_path / "none")

    def test_scores_alone_and_ctrl_c(self, tmp_path):
        (tmp_path / "s.json").write_text('{"num_layers": 4, "metrics": {"bi": {"values": [0.1, 0.4, 0.2, 0.3]}}}')
        words = [sys.executable, "-m", "visual_region", "demo", "--scores", str(tmp_path / "s.json")]
        server = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "the page is at http://127.0.0.1:" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
        assert server.stderr.read().strip() == "interrupted"
