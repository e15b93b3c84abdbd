"""Preparation of every benchmark of the table, from made-up downloads."""

import json
import re
import shutil
import sys

import pytest

from llava.eval import prepare
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.names import agree
from tests.made_benchmarks import MAKERS, rows_of

ANY = Options(check_counts=False)
# What has a question file of its own, in the order of the table; MMBench's download is one.
QUESTION_FILES = {name: BY_NAME[name].questions for name in MAKERS if name != "mmbench"}


@pytest.mark.parametrize("name", MAKERS)
def test_a_download_becomes_questions(name, tmp_path):
    perfect = MAKERS[name](tmp_path / "raw")
    asked = BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    assert asked == len(perfect)
    if name in QUESTION_FILES:
        assert len(rows_of(tmp_path / "out" / QUESTION_FILES[name])) == asked
    # Again, and again from the folder itself: nothing changes.
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY) == asked
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", MAKERS)
def test_published_counts_are_checked(name, tmp_path):
    MAKERS[name](tmp_path / "raw")
    with pytest.raises(PrepareError, match=r"published are [\d,]+.*--any-count"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "mmbench"])
def test_missing_images_are_counted_or_left_out_aloud(name, tmp_path, capsys):
    perfect = MAKERS[name](tmp_path / "raw")
    images = sorted(p for p in (tmp_path / "raw").rglob("*") if p.suffix in (".jpg", ".png"))
    images[0].unlink()
    with pytest.raises(PrepareError, match=rf"1 of \d+ images is missing under .*{images[0].name}.*skip-missing"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    options = Options(check_counts=False, skip_missing_images=True)
    asked = BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", options)
    assert 0 < asked < len(perfect)
    left_out, of = len(perfect) - asked, f"of {len(perfect)} questions"
    assert f"{left_out} {of} {agree(left_out, 'is', 'are')} left out" in capsys.readouterr().out


@pytest.mark.parametrize("name", MAKERS)
def test_an_empty_folder_says_what_is_needed(name, tmp_path):
    (tmp_path / "download.zip").touch()
    with pytest.raises(PrepareError, match=r"unpack download.zip first; playground/data/eval/README.md"):
        BY_NAME[name].prepare(tmp_path, tmp_path / "out", ANY)


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_cut_off_is_named(name, tmp_path):
    MAKERS[name](tmp_path / "raw")
    for file in (tmp_path / "raw").rglob("*"):
        if file.suffix in (".json", ".tsv", ".p"):
            file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    with pytest.raises(ValueError, match=str(tmp_path / "raw")):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "mmbench"])
def test_another_benchmarks_files(name, tmp_path):
    MAKERS[name](tmp_path / "raw")
    for file in (tmp_path / "raw").rglob("*.json"):
        file.write_text('{"data": [{"x": 1}], "questions": [{"x": 1}], "1": {"y": 2}, "test": ["1"]}')
    # Of what a scorer reads too, some name no folder.
    named = r"^the annotations are not |^refs and instances are not |^problems\.json: "
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / 'raw'))}|{named}"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)


@pytest.mark.parametrize(("name", "published"), [("gqa", 12578), ("textvqa", 5000), ("scienceqa", 4241)])
def test_whole_files_have_the_published_counts(name, published, tmp_path):
    MAKERS[name](tmp_path / "raw")
    grow(name, tmp_path / "raw", published)
    assert BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", Options()) == published
    rows = rows_of(tmp_path / "out" / QUESTION_FILES[name])
    assert len(rows) == published
    if name == "scienceqa":
        assert sum("image" in row for row in rows) == 2017
    grow(name, tmp_path / "raw", published - 1)
    with pytest.raises(PrepareError, match=f"{published - 1:,} questions; published are {published:,}"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", Options())


def grow(name, raw, size):
    """Makes a made download as large as the real one, by repeating its questions."""

    def change(file, edit):
        (raw / file).write_text(json.dumps(edit(json.loads((raw / file).read_text()))))

    if name == "gqa":
        entry = next(iter(json.loads((raw / "testdev_balanced_questions.json").read_text()).values()))
        change("testdev_balanced_questions.json", lambda _: {str(i): entry for i in range(size)})
    elif name == "textvqa":
        change(
            "TextVQA_0.5.1_val.json",
            lambda d: d | {"data": [d["data"][0] | {"question": f"{i}?"} for i in range(size)]},
        )
    else:
        bare = json.loads((raw / "problems.json").read_text())["1"]
        for i in range(2017):
            (raw / f"images/test/{i}").mkdir(exist_ok=True)
            (raw / f"images/test/{i}/image.png").touch()
        image = {True: "image.png", False: None}
        change("problems.json", lambda _: {str(i): bare | {"image": image[i < 2017]} for i in range(size)})
        change("pid_splits.json", lambda _: {"test": [str(i) for i in range(size)]})


@pytest.mark.parametrize("name", sorted(QUESTION_FILES))
def test_a_refused_download_changes_nothing(name, tmp_path):
    """Else the questions of one download would stand on the images and annotations of another."""
    MAKERS[name](tmp_path / "raw")
    BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    questions = tmp_path / "out" / QUESTION_FILES[name]
    rows = rows_of(questions)[:-1]
    text = json.dumps(rows) if questions.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    questions.write_text(text)
    before = {p: p.resolve() for p in (tmp_path / "out").rglob("*")}
    shutil.copytree(tmp_path / "raw", tmp_path / "other")
    with pytest.raises(PrepareError, match="--overwrite replaces it"):
        BY_NAME[name].prepare(tmp_path / "other", tmp_path / "out", ANY)
    assert {p: p.resolve() for p in (tmp_path / "out").rglob("*")} == before
    assert questions.read_text() == text


def test_command_line(tmp_path, monkeypatch, capsys):
    MAKERS["docvqa"](tmp_path / "raw")
    flags = ["prepare", "docvqa", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", flags)
    with pytest.raises(PrepareError, match="5 questions; published are 5,349"):
        prepare.main()
    monkeypatch.setattr(sys, "argv", [*flags, "--any-count"])
    prepare.main()
    assert f"5 questions written to {tmp_path}/out/questions.jsonl" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["prepare", "docvqa", "--raw", str(tmp_path / "no")])
    with pytest.raises(PrepareError, match="is not a folder"):
        prepare.main()
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["prepare", "vqav2", "--raw", str(tmp_path)])
    with pytest.raises(SystemExit):
        prepare.main()
    assert "invalid choice: 'vqav2' (choose from" in capsys.readouterr().err
    assert set(MAKERS) <= set(BY_NAME)


@pytest.mark.parametrize("name", ["bbh", "mmlu"])
def test_text_benchmarks_are_prepared_by_the_same_command(name, tmp_path):
    with pytest.raises(ValueError, match=r"missing|has no data/test nor test"):
        BY_NAME[name].prepare(tmp_path, tmp_path / "out", ANY)
