import json
import pickle
import shutil
import sys

import pytest

from llava.eval import prepare
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.benchmarks.refcocog import load_plain_pickle
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS

ANY = Options(check_counts=False)
QUESTION_FILES = {
    "textvqa": "llava_textvqa_val_v051_ocr.jsonl",
    "scienceqa": "llava_test_CQM-A.json",
    "gqa": "llava_gqa_testdev_balanced.jsonl",
    "ocrvqa": "questions.jsonl",
    "docvqa": "questions.jsonl",
    "refcocog": "questions.jsonl",
    "tdiuc": "questions.jsonl",
}
SAMPLES = REPOSITORY / "tests/data/samples"


def rows_of(path):
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


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


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "mmbench"])
def test_published_counts_are_checked(name, tmp_path):
    MAKERS[name](tmp_path / "raw")
    with pytest.raises(PrepareError, match=r"published are \d+.*--any-count"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "mmbench"])
def test_missing_images_are_counted_or_left_out_aloud(name, tmp_path, capsys):
    perfect = MAKERS[name](tmp_path / "raw")
    images = sorted(p for p in (tmp_path / "raw").rglob("*") if p.suffix in (".jpg", ".png"))
    images[0].unlink()
    with pytest.raises(PrepareError, match=rf"1 of \d+ images are missing under .*{images[0].name}.*skip-missing"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    options = Options(check_counts=False, skip_missing_images=True)
    asked = BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", options)
    assert 0 < asked < len(perfect)
    assert f"{len(perfect) - asked} of {len(perfect)} questions are left out" in capsys.readouterr().out


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
    with pytest.raises(ValueError, match=r".+"):
        BY_NAME[name].prepare(tmp_path / "raw", tmp_path / "out", ANY)


def test_gqas_real_questions_become_llavas_line_for_line(tmp_path):
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    shutil.copy(SAMPLES / "gqa_testdev_balanced_questions.head.json", raw / "testdev_balanced_questions.json")
    for row in rows_of(SAMPLES / "gqa_testdev_balanced.head.jsonl"):
        (raw / "images" / row["image"]).touch()
    assert BY_NAME["gqa"].prepare(raw, tmp_path / "out", ANY) == 40
    ours = (tmp_path / "out/llava_gqa_testdev_balanced.jsonl").read_text()
    assert ours == (SAMPLES / "gqa_testdev_balanced.head.jsonl").read_text()


def test_textvqas_real_questions_become_llavas_line_for_line(tmp_path):
    """From LLaVA's 40 lines back to the official files, and forth again."""
    raw, theirs = tmp_path / "raw", rows_of(SAMPLES / "textvqa_val_v051_ocr.head.jsonl")
    (raw / "train_images").mkdir(parents=True)
    entries, tokens = [], {}
    for number, row in enumerate(theirs):
        question, line, _ = row["text"].split("\n")
        entries.append({"question_id": number, "image_id": row["question_id"], "question": question, "answers": []})
        tokens[row["question_id"]] = line.removeprefix("Reference OCR token: ").split(", ")
        (raw / "train_images" / row["image"]).touch()
    (raw / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": entries}))
    ocr = [{"image_id": k, "ocr_tokens": v} for k, v in tokens.items()]
    (raw / "TextVQA_Rosetta_OCR_v0.2_val.json").write_text(json.dumps({"data": ocr}))
    assert BY_NAME["textvqa"].prepare(raw, tmp_path / "out", ANY) == 40
    assert rows_of(tmp_path / "out/llava_textvqa_val_v051_ocr.jsonl") == theirs
    options = Options(check_counts=False, ocr=False)
    assert BY_NAME["textvqa"].prepare(raw, tmp_path / "out", options) == 40
    bare = rows_of(tmp_path / "out/llava_textvqa_val_v051.jsonl")
    assert bare[0]["text"].count("\n") == 1


def test_scienceqa_asks_as_llava_does(tmp_path):
    MAKERS["scienceqa"](tmp_path / "raw")
    BY_NAME["scienceqa"].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    rows = rows_of(tmp_path / "out/llava_test_CQM-A.json")
    assert rows[0] == {
        "id": "0",
        "image": "0/image.png",
        "conversations": [
            {"from": "human", "value": "<image>\nContext: Look closely.\nWhich is 0?\nA. zero\nB. one"},
            {"from": "gpt", "value": "A"},
        ],
    }
    assert rows[1] == {
        "id": "1",
        "conversations": [
            {"from": "human", "value": "Which is 1?\nA. zero\nB. one\nC. two"},
            {"from": "gpt", "value": "B"},
        ],
    }


def test_refcocog_keeps_what_the_scorer_needs(tmp_path):
    MAKERS["refcocog"](tmp_path / "raw")
    BY_NAME["refcocog"].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    data = json.loads((tmp_path / "out/annotations.json").read_text())
    assert (data["split"], data["split_by"], len(data["data"])) == ("test", "umd", 6)
    assert data["data"][2] == {
        "question_id": 10,
        "ref_id": 1,
        "sentence": "the red one 0",
        "image": "COCO_train2014_000000000001.jpg",
        "width": 40,
        "height": 20,
        "bbox": [2.0, 4.0, 10.0, 8.0],
    }
    asked = rows_of(tmp_path / "out/questions.jsonl")[2]
    assert asked["text"].endswith("this sentence describes: the red one 0.")
    options = Options(check_counts=False, template="Where is {}?", overwrite=True)
    BY_NAME["refcocog"].prepare(tmp_path / "raw", tmp_path / "out", options)
    assert rows_of(tmp_path / "out/questions.jsonl")[2]["text"] == "Where is the red one 0?"
    with pytest.raises(PrepareError, match=r"no \{\} for the expression"):
        BY_NAME["refcocog"].prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, template="Where?"))


def test_a_pickle_that_names_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "bad.p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(PrepareError, match=r"names builtins\.print, which is not plain data"):
        load_plain_pickle(tmp_path / "bad.p")
    # A text of Python 2, protocol 0, with a byte beyond ASCII in UTF-8.
    (tmp_path / "old.p").write_bytes(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.")
    assert load_plain_pickle(tmp_path / "old.p") == ["café"]


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
    with pytest.raises(PrepareError, match=f"{published - 1} questions; published are {published}"):
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


def test_mmbench_must_have_every_rotation(tmp_path):
    MAKERS["mmbench"](tmp_path / "raw")
    file = tmp_path / "raw/mmbench_dev_20230712.tsv"
    assert BY_NAME["mmbench"].prepare(tmp_path / "raw", tmp_path / "out", Options()) == 9
    file.write_text("\n".join(file.read_text().split("\n")[:-2]) + "\n")
    with pytest.raises(PrepareError, match=r"1 of 3 questions have not one row for each rotation .*: 243"):
        BY_NAME["mmbench"].prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert BY_NAME["mmbench"].prepare(tmp_path / "raw", tmp_path / "out", ANY) == 8


def test_upstreams_own_file_is_kept(tmp_path, capsys):
    MAKERS["gqa"](tmp_path / "raw")
    path = tmp_path / "out/llava_gqa_testdev_balanced.jsonl"
    BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    theirs = [row | {"text": row["text"].replace("Answer", "Please answer")} for row in rows_of(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(theirs)))
    BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    assert "asks these 6 questions in its own words; kept" in capsys.readouterr().out
    assert rows_of(path) == theirs[::-1]
    path.write_text("".join(json.dumps(row) + "\n" for row in theirs[1:]))
    with pytest.raises(PrepareError, match="asks 5 questions, which are not the 6 of this download; --overwrite"):
        BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "out", ANY)
    BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, overwrite=True))
    assert len(rows_of(path)) == 6


def test_raw_may_be_the_folder_itself(tmp_path):
    MAKERS["gqa"](tmp_path / "data")
    assert BY_NAME["gqa"].prepare(tmp_path, tmp_path, ANY) == 6
    assert not (tmp_path / "data/images").is_symlink()


def test_other_data_in_the_way(tmp_path):
    MAKERS["gqa"](tmp_path / "raw")
    (tmp_path / "out/data/images").mkdir(parents=True)
    with pytest.raises(PrepareError, match="images exists and is not"):
        BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "out", ANY)


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


def test_a_sample(tmp_path):
    MAKERS["tdiuc"](tmp_path / "raw")
    options = Options(check_counts=False, sample=3)
    BY_NAME["tdiuc"].prepare(tmp_path / "raw", tmp_path / "out", options)
    ids = [row["question_id"] for row in rows_of(tmp_path / "out/questions.sample-3.jsonl")]
    assert len(ids) == 3
    assert ids == sorted(ids)
    with pytest.raises(PrepareError, match="--sample 9; there are 8 questions"):
        BY_NAME["tdiuc"].prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, sample=9))


def test_command_line(tmp_path, monkeypatch, capsys):
    MAKERS["docvqa"](tmp_path / "raw")
    flags = ["prepare", "docvqa", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", flags)
    with pytest.raises(PrepareError, match="5 questions; published are 5349"):
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
