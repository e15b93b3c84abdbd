import json
import shutil
from pathlib import Path

import pytest

from llava.eval.answering.questions import read_questions
from llava.eval.answering.subset import write_subset
from llava.eval.benchmarks.bbh import prepare as prepare_bbh
from llava.eval.benchmarks.mmlu import SUBJECTS
from llava.eval.benchmarks.mmlu import prepare as prepare_mmlu
from llava.eval.benchmarks.perplexity import prepare as prepare_perplexity
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.bbh_forms import TASKS

BBH = Path(__file__).parents[3] / "data/bbh"
ANY = Options(check_counts=False)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bbh(tmp_path):
    assert prepare_bbh(BBH, tmp_path, ANY) == 54
    questions = read_questions(tmp_path / "questions.jsonl")
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    assert [q.question_id for q in questions] == list(annotations)
    assert {truth["task"] for truth in annotations.values()} == set(TASKS)
    assert questions[0].text.startswith(annotations[questions[0].question_id]["input"])
    assert questions[0].image is None


def test_bbh_counts_and_files(tmp_path):
    with pytest.raises(PrepareError, match=r"snarks\.json holds 2 questions; published are 178"):
        prepare_bbh(BBH, tmp_path, Options())
    raw = tmp_path / "raw"
    shutil.copytree(BBH / "bbh", raw)
    (raw / "navigate.json").unlink()
    (raw / "snarks.json").write_text('{"examples": [{"input": "a"}]}')
    with pytest.raises(PrepareError, match=r"navigate\.json is missing; snarks\.json is not a task file"):
        prepare_bbh(raw, tmp_path / "out", ANY)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def mmlu(tmp_path) -> Path:
    """Two subjects in the layout of data.tar; a question over two lines, and one with a line separator."""
    for split, count in (("dev", 6), ("test", 3)):
        folder = tmp_path / "raw/data" / split
        folder.mkdir(parents=True)
        for subject in ("anatomy", "astronomy"):
            lines = [
                f'"{split} {i},\nof {subject}?",one,two,"three, or\u2028",four,{"ABCD"[i % 4]}\n' for i in range(count)
            ]
            (folder / f"{subject}_{split}.csv").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "raw"


def test_mmlu(mmlu, tmp_path):
    out = tmp_path / "out"
    assert prepare_mmlu(mmlu, out, ANY) == 6
    assert [q.question_id for q in read_questions(out / "questions.jsonl")][:4] == [
        "anatomy/0",
        "anatomy/1",
        "anatomy/2",
        "astronomy/0",
    ]
    row = rows(out / "questions.jsonl")[1]
    assert row["choices"] == ["one", "two", "three, or\u2028", "four"]
    assert row["text"].count("\nAnswer: ") == 5
    assert "dev 4," in row["text"]
    assert "dev 5," not in row["text"], "the first five of the dev file"
    assert json.loads((out / "annotations.json").read_text())["anatomy/1"]["answer"] == "B"
    assert len(json.loads((out / "shots.json").read_text())["astronomy"]) == 5
    assert prepare_mmlu(mmlu / "data", tmp_path / "again", ANY) == 6


def test_mmlu_counts_and_files(mmlu, tmp_path):
    with pytest.raises(PrepareError, match=r"abstract_algebra_dev\.csv is missing"):
        prepare_mmlu(mmlu, tmp_path / "out", Options())
    for split in ("dev", "test"):
        text = (mmlu / f"data/{split}/anatomy_{split}.csv").read_text()
        for subject in SUBJECTS:
            (mmlu / f"data/{split}/{subject}_{split}.csv").write_text(text)
    with pytest.raises(PrepareError, match="171 test questions; published are 14042"):
        prepare_mmlu(mmlu, tmp_path / "out", Options())
    (mmlu / "data/dev/virology_dev.csv").write_text("q,1,2,3,4,A\n")
    with pytest.raises(PrepareError, match=r"virology_dev\.csv holds 1 questions; 5 are needed"):
        prepare_mmlu(mmlu, tmp_path / "out", ANY)
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "data.tar").touch()
    with pytest.raises(PrepareError, match=r"has no data/test nor test; unpack data\.tar first"):
        prepare_mmlu(packed, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_subset_is_the_same_every_time_and_grows(tmp_path):
    prepare_bbh(BBH, tmp_path, ANY)
    source = tmp_path / "questions.jsonl"
    assert write_subset(source, 1, tmp_path / "one.jsonl") == (27, 54)
    assert write_subset(source, 1, tmp_path / "again.jsonl") == (27, 54)
    assert write_subset(source, 5, tmp_path / "all.jsonl") == (54, 54)
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "again.jsonl").read_text()
    assert (tmp_path / "all.jsonl").read_text() == source.read_text()
    one = rows(tmp_path / "one.jsonl")
    assert len({row["category"] for row in one}) == 27
    everything = rows(source)
    assert [everything.index(row) for row in one] == sorted(everything.index(row) for row in one)
    # A category's draw does not depend on which others are there.
    part = tmp_path / "part.jsonl"
    part.write_text("".join(line for line in source.read_text().splitlines(True) if '"snarks/' in line))
    write_subset(part, 1, tmp_path / "part_one.jsonl")
    assert rows(tmp_path / "part_one.jsonl") == [row for row in one if row["category"] == "snarks"]
    with_image = tmp_path / "images.jsonl"
    with_image.write_text(json.dumps({"question_id": 1, "text": "a\u2028", "image": "b.png"}) + "\n")
    assert write_subset(with_image, None, tmp_path / "bare.jsonl", images=False) == (1, 1)
    assert rows(tmp_path / "bare.jsonl") == [{"question_id": 1, "text": "a\u2028"}]
    with pytest.raises(ValueError, match="--per-category is 0"):
        write_subset(source, 0, tmp_path / "none.jsonl")


def test_wikitext(tmp_path):
    raw, out = tmp_path / "raw/wikitext-2", tmp_path / "out"
    raw.mkdir(parents=True)
    with pytest.raises(PrepareError, match=r"has no wiki\.valid\.tokens nor valid\.txt"):
        prepare_perplexity(tmp_path / "raw", out, ANY)
    (raw / "wiki.valid.tokens").write_text(" = Title = \n some words \n")
    with pytest.raises(PrepareError, match=r"7 words and line ends in wiki\.valid\.tokens; published are 217646"):
        prepare_perplexity(tmp_path / "raw", out, Options())
    assert prepare_perplexity(tmp_path / "raw", out, ANY) == 7
    assert (out / "wikitext-2-valid.txt").read_text() == " = Title = \n some words \n"
    (raw / "test.txt").write_text("")
    with pytest.raises(PrepareError, match=r"test\.txt is empty"):
        prepare_perplexity(tmp_path / "raw", out, ANY)
    (raw / "wiki.valid.tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(PrepareError, match="is not UTF-8 text"):
        prepare_perplexity(raw, out, ANY)
