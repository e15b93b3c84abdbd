"""The pages: each command in them is understood by the program that it names, and no link is dead."""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from llava.eval.benchmarks import BY_NAME
from llava.eval.suite import benchmark
from llava.eval.suite.program_flags import check_program_flags
from llava.flags import Parser
from tests.conftest import REPOSITORY
from tests.scripts.test_scripts import TRAINERS, parsed

PAGES = sorted(
    str(page.relative_to(REPOSITORY))
    for page in [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        REPOSITORY / "playground/data/eval/README.md",
        REPOSITORY / "playground/embedded/mixture/README.md",
    ]
)
NO_DRY_RUN = {
    "scripts/quickstart.sh": "tests/scripts/test_quickstart.py runs it at small scale",
    "scripts/test.sh": "it runs these tests",
    "scripts/docs.sh": "the test below runs it",
    "scripts/docs_pictures.sh": "the test below runs its first command",
    "scripts/score_quickstart.sh": "tests/scripts/test_score_quickstart.py",
    "scripts/eval/quickstart_real_run.sh": "many steps with results between them",
    "scripts/bench/gpu.sh": "tests/scripts/test_gpu_bench.py",
}
"""Script -> where it is run instead."""
OF_OTHERS = ("llava.eval.harness", "lmms_eval")
"""Modules with the command line of another project; tests/llava/eval/harness runs them."""
OF_LIBRARIES = {"OMP_NUM_THREADS"}
"""Variables that libraries read, not the scripts."""
_SETTING = re.compile(r"[A-Z_]+=")


def commands(page):
    """The commands of the code blocks of a page that run our programs, as (settings, words)."""
    text = (REPOSITORY / page).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.M | re.S) + re.findall(r"^    \S.*", text, re.M)
    # A table whose heading is the beginning of its commands.
    for start, rows in re.findall(r"^\| `(python -m \S+)` \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        blocks += [f"{start} {words}" for words in re.findall(r"^\| `([^`]+)`", rows, re.M)]
    for line in (line for block in blocks for line in block.splitlines()):
        for command in re.split(r"&&|\|", line.split("  #")[0]):
            try:
                words = shlex.split(command)
            except ValueError:
                continue
            settings = []
            while words and _SETTING.match(words[0]):
                settings.append(words.pop(0))
            if words and words[0] in ("python", "bash", "visual-region", "llava-train", "llava-eval"):
                yield settings, words


def commands_in_text(page):
    """Those of the sentences and tables of a page, as (settings, words); of two projects side by side only ours."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```|^    \S.*?$", "", text, flags=re.M | re.S)
    if Path(page).name.startswith("from_"):
        text = re.sub(r"^\| [^|]*\|", "", text, flags=re.M)
    for command in re.findall(r"`((?:[A-Z_]+=\S* )*(?:python|bash) [^`]+)`", text):
        words = shlex.split(command)
        settings = list(takewhile(_SETTING.match, words))
        words = [word for word in words if word != "..." and not _SETTING.match(word)]
        if len(words) > 1 and "--help" not in words:
            yield settings, words


ALL = [(page, settings, words) for page in PAGES for settings, words in commands(page)]
SETTINGS_IN_TEXT = [command for page in PAGES for command in commands_in_text(page)]
IN_TEXT = [words for _, words in SETTINGS_IN_TEXT]


class Understood(BaseException):
    """The parser has read all flags."""


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(
    "words",
    [words for _, _, words in ALL if words[0] == "python" and not set(OF_OTHERS) & set(words)],
    ids=lambda words: " ".join(words)[:70],
)
def test_python_commands_parse(words, monkeypatch):
    """Up to the point where the flags are read."""

    original = Parser.parse_args

    def read(self, *args):
        original(self, *args)
        raise Understood

    _run_until_read(words, read, monkeypatch)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(
    "words",
    [words for words in IN_TEXT if words[0] == "python" and any(word.startswith("--") for word in words)],
    ids=lambda words: " ".join(words)[:70],
)
def test_flags_of_commands_in_the_text_exist(words, monkeypatch):
    """Such a command need not be whole."""

    def read(self, given=None):
        unknown = self.known(sys.argv[1:] if given is None else given)[1]
        assert not [word for word in unknown if word.startswith("-")]
        raise Understood

    _run_until_read(words, read, monkeypatch)


def _run_until_read(words, read, monkeypatch):
    monkeypatch.setattr(Parser, "parse_args", read)
    monkeypatch.chdir(REPOSITORY)
    words = ["gqa" if word == "NAME" else word for word in words]
    module = words[2] if words[1] == "-m" else None
    monkeypatch.setattr(sys, "argv", words[2:] if module else words[1:])
    run, name = (runpy.run_module, module) if module else (runpy.run_path, words[1])
    with pytest.raises(Understood):
        run(name, run_name="__main__")


def test_scripts_in_the_text_exist():
    named = {words[1].replace("NAME.sh", "gqa.sh") for words in IN_TEXT if words[0] == "bash" and "/" in words[1]}
    assert not [script for script in named if not (REPOSITORY / script).is_file()]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(
    ("settings", "words"),
    [(settings, words) for _, settings, words in ALL if words[0] == "bash" and words[1] not in NO_DRY_RUN],
    ids=lambda words: " ".join(words)[:70],
)
def test_scripts_run_dry(settings, words, monkeypatch):
    """And print commands whose flags exist."""
    words = [word.replace("NAME.sh", "gqa.sh") for word in words]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= dict(setting.split("=", 1) for setting in settings) | {"DRY_RUN": "1", "PYTHON": sys.executable}
    result = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    for line in result.stdout.splitlines():
        check_flags(shlex.split(line), monkeypatch)


def check_flags(words, monkeypatch):
    """Fails for a flag that the program of a printed command does not know."""
    if set(words) & set(TRAINERS):
        parsed(words)
        return
    assert words[1] == "-m"
    module, *given = words[2:]
    if module == "llava.eval.answering.launch":
        # It passes what follows on.
        module, *given = words[next(i for i, word in enumerate(words) if word.startswith("llava.eval.model_")) :]
    read = argparse.ArgumentParser.parse_known_args

    def stop(self, *args):
        raise Understood(*read(self, *args))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr(sys, "argv", [module, *given])
        with pytest.raises(Understood) as understood:
            runpy.run_module(module, run_name="__main__")
    args, unknown = understood.value.args
    if module == "llava.eval.suite.all":
        # The others are for the programs that answer.
        check_program_flags([BY_NAME[name] for name in args.only or BY_NAME], unknown)
    else:
        assert not unknown


def test_scripts_read_the_settings_in_front_of_them():
    """A variable that no script reads would change nothing, and nothing would say so."""
    given = [*((settings, words) for _, settings, words in ALL), *SETTINGS_IN_TEXT]
    given = [(words[1], {setting.partition("=")[0] for setting in s}) for s, words in given if words[0] == "bash"]
    assert any(names for _, names in given)
    assert not [(script, left) for script, names in given if (left := names - settings_of(script) - OF_LIBRARIES)]


def settings_of(script):
    """The variables that the scripts in a script's folder read; in scripts/eval also what suite.benchmark reads."""
    folder = (REPOSITORY / script).parent
    files = [*folder.glob("*.sh"), REPOSITORY / "scripts/train/common.sh"]
    read = {name for file in files for name in re.findall(r"\$\{?([A-Z][A-Z_]+)", file.read_text(encoding="utf-8"))}
    if folder.name == "eval":
        read |= set(re.findall(r"^([A-Z_]{2,})\b", benchmark.__doc__, re.M))
        read |= {setting.name for one in BY_NAME.values() for setting in one.settings}
    return read


def test_scripts_without_a_dry_run_exist():
    assert not [script for script in NO_DRY_RUN if not (REPOSITORY / script).is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text)
    for target, heading in targets:
        if "://" in target:
            continue
        path = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert path.exists(), target
        # The site holds docs/ only; the file's name in the text serves there.
        assert not page.startswith("docs/") or path.resolve().is_relative_to(REPOSITORY / "docs"), target
        assert not heading or heading in headings(path), f"{target}#{heading}"


def headings(page):
    """The anchors of a page, as GitHub and mkdocs name them."""
    found = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in found}


def test_every_page_is_in_the_navigation():
    """mkdocs itself only mentions a page that is left out."""
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(REPOSITORY / "docs")) for page in (REPOSITORY / "docs").rglob("*.md")]
    # What a study's command wrote; its page has them.
    pages = [page for page in pages if not page.startswith(("study/tables/", "study/figures/"))]
    assert not [page for page in pages if f": {page}\n" not in text]


def test_every_picture_is_used():
    pictures = [*(REPOSITORY / "docs").rglob("*.png"), *(REPOSITORY / "docs").rglob("*.svg")]
    text = "".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
    assert not [picture.name for picture in pictures if picture.name not in text]


def test_the_site_builds(tmp_path):
    pytest.importorskip("material", reason="pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install -e '.[docs]'")
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", "scripts/docs.sh", "build", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (Path(tmp_path) / "site/layers/index.html").is_file()
