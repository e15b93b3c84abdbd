"""`prepare --as-training`: LLaVA JSON with answers, from each form of a download, against the benchmark's own files."""

import io
import json
import pickle
import shutil
import sys
from collections import Counter

import pytest

from llava.data.json_items import json_items, json_members
from llava.eval import prepare
from llava.eval.benchmarks import BY_NAME, DATA, TRAINING
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.benchmarks.training import most_common, write_training
from llava.eval.scoring.boxes import box_text, parse_box, to_pixels
from llava.eval.scoring.rules import iou
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS, draw, rows_of
from tests.made_hub import HUB_MAKERS, parquet, picture

ANY = Options(check_counts=False)
CAPTIONS = {f"10{i}": [f"A man {i}.", f"Someone {i}.", f"A man {i}.", "x", "y"] for i in range(6)}
SPLITS = ("train", "train", "train", "val", "test", "restval")


def flickr30k(raw):
    """Karpathy's file; the sixth image is in none of the splits."""
    images = [
        {"filename": f"{name}.jpg", "split": split, "imgid": i, "sentences": [{"raw": text} for text in texts]}
        for i, ((name, texts), split) in enumerate(zip(CAPTIONS.items(), SPLITS, strict=True))
    ]
    for i, image in enumerate(images):
        draw(raw / "flickr30k-images" / image["filename"], i)
    (raw / "dataset_flickr30k.json").write_text(json.dumps({"dataset": "flickr30k", "images": images}))


def flickr_tokens(raw):
    """The authors' file."""
    flickr30k(raw)
    (raw / "dataset_flickr30k.json").unlink()
    lines = [f"{name}.jpg#{i}\t{text}\n" for name, texts in CAPTIONS.items() for i, text in enumerate(texts)]
    (raw / "results_20130124.token").write_text("".join(lines))


def flickr_hub(raw, split=False):
    """A copy with one file for all images, whose rows may name their split."""
    flickr30k(raw / "made")
    rows = [
        {"filename": f"{name}.jpg", "caption": texts, "image": picture(raw / f"made/flickr30k-images/{name}.jpg")}
        | ({"split": own} if split else {})
        for (name, texts), own in zip(CAPTIONS.items(), SPLITS, strict=True)
    ]
    shutil.rmtree(raw / "made")
    parquet(raw / "data", "test", rows)


def train_part(name, raw):
    """Makes the split that the benchmark asks into a training split."""
    if name == "docvqa":
        file = raw / "val_v1.0_withQT.json"
        content = json.loads(file.read_text().replace('"val"', '"train"'))
        (raw / "train_v1.0_withQT.json").write_text(json.dumps(content))
        file.unlink()
    elif name == "ocrvqa":
        books = json.loads((raw / "dataset.json").read_text())
        books = {key: book | {"split": {3: 1, 1: 3}[book["split"]]} for key, book in books.items()}
        (raw / "dataset.json").write_text(json.dumps(books))
    elif name == "tdiuc":
        for file in list(raw.rglob("*")):
            if "val2014" in file.name and not file.is_dir():
                file.rename(file.with_name(file.name.replace("val2014", "train2014")))
        (raw / "Images/val2014").rename(raw / "Images/train2014")
    elif name == "refcocog":
        file = raw / "refs(umd).p"
        refs = [
            ref | {"split": {"test": "train"}.get(ref["split"], ref["split"])}
            for ref in pickle.loads(file.read_bytes())
        ]
        file.write_bytes(pickle.dumps(refs, protocol=0))


def records_of(path):
    return json.loads(path.read_text())


@pytest.fixture
def run(monkeypatch):
    def main(*words):
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, words)])
        prepare.main()

    return main


ON_HUB = [(name, name) for name in TRAINING if name in HUB_MAKERS] + [("refcocog", "refcocog_refs")]


@pytest.mark.parametrize(("name", "hub"), [*((name, None) for name in TRAINING if name in MAKERS), *ON_HUB])
def test_questions_become_samples(name, hub, tmp_path, run, program, capsys):
    """The same prompts, images and right answers as the benchmark's own question file and annotations have."""
    perfect = MAKERS[name](tmp_path / "raw")
    raw, output = tmp_path / "raw", tmp_path / "train.json"
    BY_NAME[name].prepare(raw, tmp_path / "questions", ANY)
    asked = rows_of(tmp_path / "questions" / BY_NAME[name].questions)
    if hub:
        raw = tmp_path / "hub"
        raw.mkdir()
        HUB_MAKERS[hub](tmp_path / "raw", raw)
    # This copy has no training split.
    own = hub == "refcocog"
    if not own:
        if hub:
            for file in list(raw.rglob("*.parquet")):
                renamed = file.name.replace("validation", "train").replace("test", "train")
                file.rename(file.with_name(renamed))
        else:
            train_part(name, raw)
    run(name, "--raw", raw, "--out", tmp_path / "out", "--as-training", output, "--any-count")
    said = capsys.readouterr().out
    records = records_of(output)
    ids = [str(row["question_id"]) for row in asked]
    if own:
        assert "refcocog asks these questions: a model that was trained on them must not be scored" in said
        ids = [record["id"] for record in records]
    else:
        assert "warning" not in said
    assert [record["id"] for record in records] == ids
    assert len(records) == len(perfect)
    folder = said.rsplit("--image-folder ", 1)[1].strip()
    for record, row in zip(records, asked, strict=True):
        human, gpt = record["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        assert human["value"] == f"<image>\n{row['text']}"
        assert record["image"] == row["image"].replace("val2014", "train2014")
        right = perfect[str(row["question_id"])]
        if name == "refcocog":
            assert gpt["value"] == str([round(share, 2) for share in json.loads(right)])
        elif name == "docvqa":
            assert gpt["value"] == f"{row['text'].split('page ')[1][0]}.28", "the first of equally common answers"
        else:
            assert gpt["value"] == right
    # Our own check of the file and its images finds nothing.
    with pytest.raises(SystemExit) as stop:
        program("llava.data.check", "--data_path", output, "--image_folder", folder)
    assert stop.value.code == 0
    # Again: the same file stays; a part of it is another file, which is refused.
    run(name, "--raw", raw, "--out", tmp_path / "out", "--as-training", output, "--any-count")
    with pytest.raises(PrepareError, match="exists and holds other samples; --overwrite replaces it"):
        run(name, "--raw", raw, "--out", tmp_path / "out", "--as-training", output, "--any-count", "--limit", 2)
    assert records_of(output) == records


@pytest.mark.parametrize(
    ("make", "split", "expected"),
    [
        (flickr30k, None, ["100", "101", "102"]),
        (flickr30k, "val", ["103"]),
        (flickr30k, "all", list(CAPTIONS)),
        (flickr_tokens, None, list(CAPTIONS)),
        (flickr_hub, None, list(CAPTIONS)),
        (lambda raw: flickr_hub(raw, split=True), None, ["100", "101", "102"]),
        (lambda raw: flickr_hub(raw, split=True), "test", ["104"]),
    ],
)
def test_captions(make, split, expected, tmp_path, run, capsys):
    make(tmp_path / "raw")
    words = ["flickr30k", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--as-training", tmp_path / "t.json"]
    run(*words, "--any-count", *(["--split", split] if split else []))
    folder = capsys.readouterr().out.rsplit("--image-folder ", 1)[1].strip()
    for record, name in zip(records_of(tmp_path / "t.json"), expected, strict=True):
        assert record == {
            "id": name,
            "image": f"{name}.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nProvide a one-sentence caption for the provided image."},
                {"from": "gpt", "value": Counter(CAPTIONS[name]).most_common(1)[0][0]},
            ],
        }
        assert (tmp_path / folder / record["image"]).is_file()
    with pytest.raises(PrepareError, match=r"images; published are [\d,]+.*--any-count"):
        run(*words, "--overwrite", *(["--split", split] if split else []))


def test_a_part_is_drawn_and_nested_in_nothing_else(tmp_path, run, capsys):
    MAKERS["tdiuc"](tmp_path / "raw")
    words = ["tdiuc", "--raw", tmp_path / "raw", "--any-count", "--limit", 3, "--overwrite", "--as-training"]
    found = []
    for seed in (0, 0, 1):
        run(*words, tmp_path / "t.json", "--seed", seed)
        found.append([record["id"] for record in records_of(tmp_path / "t.json")])
    assert found[0] == found[1] == sorted(found[0])
    assert found[0] != found[2]
    assert "3 of 8 samples of tdiuc, split val, written to" in capsys.readouterr().out
    with pytest.raises(PrepareError, match="--limit 9; the split val has 8 samples"):
        run(*words, tmp_path / "t.json", "--limit", 9)


def test_only_drawn_images_of_parquet_files_are_written(tmp_path, run):
    flickr_hub(tmp_path / "raw")
    words = ["--raw", tmp_path / "raw", "--out", tmp_path / "out", "--any-count", "--limit", 2]
    run("flickr30k", *words, "--as-training", tmp_path / "t.json")
    written = {path.name for path in (tmp_path / "out/images").iterdir()}
    assert written == {record["image"] for record in records_of(tmp_path / "t.json")}
    assert len(written) == 2


def test_a_broken_image_in_a_parquet_file_is_named(tmp_path, run):
    """Before anything is written, where its size is needed."""
    row = {"question_id": "7", "answer": ["the dog"], "bbox": [1.0, 2.0, 3.0, 4.0], "file_name": "COCO_1_0.jpg"}
    parquet(tmp_path / "raw/data", "test", [row | {"image": {"bytes": b"no image", "path": "1.jpg"}}], shards=1)
    words = ["refcocog", "--raw", tmp_path / "raw", "--as-training", tmp_path / "t.json", "--out", tmp_path / "out"]
    with pytest.raises(ValueError, match=r"data, row 0 is not of this data set .*cannot be opened"):
        run(*words)
    assert not (tmp_path / "t.json").exists()


def test_missing_images_and_blank_answers(tmp_path, run, capsys):
    MAKERS["ocrvqa"](tmp_path / "raw")
    train_part("ocrvqa", tmp_path / "raw")
    file = tmp_path / "raw/dataset.json"
    books = json.loads(file.read_text())
    books["140000"]["answers"][1] = " "
    file.write_text(json.dumps(books))
    (tmp_path / "raw/images/140001.jpg").unlink()
    books["140003"] = books["140000"] | {"answers": ["", " "]}
    file.write_text(json.dumps(books))
    words = ["ocrvqa", "--raw", tmp_path / "raw", "--as-training", tmp_path / "t.json"]
    # Nobody needs the missing image of the fourth book, which has no answers.
    with pytest.raises(PrepareError, match=r"1 of 3 images is missing under .*: 140001\.jpg; --skip.* 2 samples about"):
        run(*words)
    assert not (tmp_path / "t.json").exists()
    run(*words, "--skip-missing-images")
    assert [record["id"] for record in records_of(tmp_path / "t.json")] == ["140000_0", "140002_0", "140002_1"]
    assert "3 samples without an answer left out" in capsys.readouterr().out


def test_what_is_refused(tmp_path, run):
    MAKERS["docvqa"](tmp_path / "raw")
    (tmp_path / "empty").mkdir()
    docvqa, output = ["docvqa", "--raw", tmp_path / "raw"], ["--as-training", tmp_path / "t.json"]
    (tmp_path / "notes.json").write_text('{"my": "notes"}')
    for words, why in (
        (
            ["gqa", "--raw", tmp_path / "raw", *output],
            "--as-training is for ocrvqa, docvqa, refcocog, tdiuc, flickr30k",
        ),
        (["flickr30k", "--raw", tmp_path / "raw"], r"flickr30k is training data, .*; give --as-training OUTPUT\.json"),
        ([*docvqa, "--split", "val"], r"--split is of --as-training; give --as-training OUTPUT\.json"),
        ([*docvqa, *output, "--split", "test"], "--split test; there are train, val"),
        ([*docvqa, *output, "--split", "train"], "has no split train; playground/data/eval/README.md says"),
        ([*docvqa, *output], "5 questions; published are 5,349"),
        (
            ["docvqa", "--raw", tmp_path / "empty", *output],
            r"has no train_v1\.0_withQT\.json nor .*README\.md",
        ),
        ([*docvqa, "--as-training", tmp_path / "notes.json", "--overwrite"], "exists and is not LLaVA JSON"),
    ):
        with pytest.raises(ValueError, match=why):
            run(*words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes.json", "raw"]


@pytest.mark.parametrize("name", ["docvqa", "ocrvqa", "tdiuc", "refcocog", "flickr30k"])
def test_a_file_cut_off_is_named(name, tmp_path):
    (MAKERS | {"flickr30k": flickr30k})[name](tmp_path / "raw")
    for file in (tmp_path / "raw").rglob("*"):
        if file.suffix in (".json", ".p"):
            file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    with pytest.raises(ValueError, match=str(tmp_path / "raw")):
        write_training(TRAINING[name], name, tmp_path / "raw", tmp_path / "out", tmp_path / "t.json", ANY)
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("size", [(40, 20), (24, 32), (640, 427), (333, 500)])
def test_a_written_box_is_the_box(size):
    """To a hundredth of the longer side; by the way back, which scores replies."""
    width, height = size
    box = (0.1 * width, 0.2 * height, 0.75 * width, float(height))
    found = to_pixels(parse_box(box_text(box, *size)), *size, "padded")
    assert max(abs(a - b) for a, b in zip(box, found, strict=True)) <= 0.005 * max(size) + 1e-9
    assert iou(box, found) > 0.95
    assert box_text((-3, -3, 2 * width, 2 * height), *size).count("1.0") >= 1


def test_the_most_common_answer_and_of_equals_the_first():
    assert most_common(["b", "a", "a", "c"]) == "a"
    assert most_common(["b", "a", "a", "b"]) == "b"


def test_lists_in_objects_are_read_as_by_json(monkeypatch):
    items = [{"i": i, "t": 'é"{[' * i} for i in range(9)]
    value = {"info": {"a": [1, 2]}, "n": 12345, "x": 0.25, "skipped": [{"x": "]}"}, 7, 1.5, -2.5e-07, 3e100]}
    value |= {"data": items, "after": 1}
    for chars in (1, 2, 7, 1 << 20):
        monkeypatch.setattr("llava.data.json_items._READ_CHARS", chars)
        for indent in (None, 2):
            text = json.dumps(value, indent=indent)
            assert list(json_items(io.StringIO(text), "data")) == value["data"]
            assert dict(json_members(io.StringIO(text))) == value
            with pytest.raises(ValueError, match="it has no key 'other'"):
                list(json_items(io.StringIO(text), "other"))
            with pytest.raises(ValueError, match=r"it begins with '1.*', not with a list"):
                list(json_items(io.StringIO(text), "n"))
            for end in range(text.index('"after"')):
                with pytest.raises(ValueError, match=r"."):
                    dict(json_members(io.StringIO(text[:end])))
    for text in ("[]", "", "{1: 2}", '{"a" 2}', '{"a": 2 "b": 3}', '{"a": 2,}'):
        with pytest.raises(ValueError, match=r"."):
            dict(json_members(io.StringIO(text)))
    assert not dict(json_members(io.StringIO("{}")))


def test_the_readme_lists_them():
    text = (REPOSITORY / DATA / "README.md").read_text()
    for name in TRAINING:
        assert f"\n| {name} | train" in text


def test_score_perplexity_and_prune_read_them(tmp_path, run, program, command, tiny_llava):
    MAKERS["docvqa"](tmp_path / "raw")
    run("docvqa", "--raw", tmp_path / "raw", "--any-count", "--as-training", tmp_path / "t.json")
    data = [
        "--model-path",
        tiny_llava,
        "--data-path",
        tmp_path / "t.json",
        "--image-folder",
        tmp_path / "raw/documents",
    ]
    command("score", *data, "--samples", "all", "--resamples", 10, "--output", tmp_path / "s.json", "--metrics", "bi")
    assert json.loads((tmp_path / "s.json").read_text())["data"]["with_images"] == 5
    program("llava.eval.perplexity", *data, "--conv-mode", "v1", "--report-file", tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["samples"] == 5
    block = ["--block", 2, "--block-scores", tmp_path / "b.json", "--output", tmp_path / "pruned"]
    command("prune", *data, "--samples", "all", "--conv-mode", "v1", *block)
    assert json.loads((tmp_path / "b.json").read_text())["samples"] == 5
    # Outside the tuned region, 0 and 3.
    record = json.loads((tmp_path / "pruned/config.json").read_text())["visual_region"]
    assert record["removed_layers"] in ([1, 2], [4, 5])
