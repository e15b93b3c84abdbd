"""Downloads of the Hub give what the official ones give."""

import json
import os

import pytest

from llava.eval.benchmarks import BY_NAME, parquet
from llava.eval.benchmarks.mmbench import FILE, LEGACY
from llava.eval.benchmarks.parquet import find_split
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.mmbench_tsv import read_tsv
from llava.eval.scoring.report import read_report
from tests import made_hub
from tests.made_benchmarks import rows_of
from tests.made_hub import HUB_MAKERS, make

ANY = Options(check_counts=False)
IN_FILES = [name for name in HUB_MAKERS if name != "mmbench"]
REWRITTEN = ("annotations.json", "shots.json")


def benchmark_of(name):
    return BY_NAME[name.removesuffix("_refs")]


def questions_in(benchmark, out):
    return rows_of(out / benchmark.questions)


@pytest.mark.parametrize("name", IN_FILES)
def test_the_same_questions_images_and_score(name, tmp_path):
    benchmark = benchmark_of(name)
    perfect, raw, hub = make(name, tmp_path)
    official, out = tmp_path / "official", tmp_path / "out"
    assert benchmark.prepare(raw, official, ANY) == benchmark.prepare(hub, out, ANY)
    theirs, ours = questions_in(benchmark, official), questions_in(benchmark, out)
    if name == "refcocog":
        # This copy does not have the numbers of the expressions.
        assert [row.pop("question_id") for row in ours[:3]] == ["700_0", "700_1", "701_0"]
        ours = [row | {"question_id": old["question_id"]} for row, old in zip(ours, theirs, strict=True)]
    assert ours == theirs
    folder = benchmark.images.format(data="").strip("/")
    for row in ours:
        if row.get("image"):
            assert (out / folder / row["image"]).read_bytes() == (official / folder / row["image"]).read_bytes()
    # Right replies to these questions are right by the annotations that were made.
    right = dict(zip((row.get("question_id", row.get("id")) for row in theirs), perfect.values(), strict=True))
    asked = questions_in(benchmark, out)
    lines = [
        {"question_id": row.get("question_id", row.get("id")), "prompt": row.get("text", "<image>"), "text": text}
        for row, text in zip(asked, perfect.values() if name == "textvqa" else right.values(), strict=True)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    places = benchmark.places("", {"DATA": str(out), "RESULT": str(tmp_path / "r.json")})
    flags = [flag for flag in benchmark.flags_to_score(places, {}) if flag]
    benchmark.score_main(["--result-file", str(tmp_path / "a.jsonl"), "--report-file", places["report"], *flags])
    assert read_report(tmp_path / "r.json").headline.value == pytest.approx(1)
    # Again, from the Hub's files and from the folder itself: nothing changes.
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in REWRITTEN]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
    for source in (hub, out):
        benchmark.prepare(source, out, ANY)
        assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


@pytest.mark.parametrize("name", HUB_MAKERS)
def test_counts_are_checked_before_anything_is_written(name, tmp_path):
    _, _, hub = make(name, tmp_path)
    with pytest.raises(PrepareError, match=r"published are [\d,]+.*--any-count"):
        benchmark_of(name).prepare(hub, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_mmbench(tmp_path):
    _, raw, hub = make("mmbench", tmp_path)
    mmbench, out = BY_NAME["mmbench"], tmp_path / "out"
    assert mmbench.prepare(hub, out, ANY) == 9
    assert read_tsv(out / FILE) == read_tsv(raw / FILE)
    assert mmbench.prepare(hub, out, ANY) == mmbench.prepare(out, out, ANY) == 9


def test_bunnys_mmbench(tmp_path, capsys):
    _, raw, _ = make("mmbench", tmp_path)
    (raw / FILE).rename(raw / LEGACY)
    assert BY_NAME["mmbench"].prepare(raw, tmp_path / "out", ANY) == 9
    assert "QUESTIONS=MMBench_DEV_EN_legacy bash scripts/eval/mmbench.sh" in capsys.readouterr().out
    assert (tmp_path / "out" / LEGACY).is_file()


def test_interrupted_it_goes_on(tmp_path, monkeypatch):
    _, _, hub = make("docvqa", tmp_path)
    replace, calls = os.replace, []

    def stops(aside, path):
        calls.append(path)
        if len(calls) > 3:
            raise KeyboardInterrupt
        replace(aside, path)

    monkeypatch.setattr(parquet.os, "replace", stops)
    docvqa, out = BY_NAME["docvqa"], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        docvqa.prepare(hub, out, ANY)
    made = {path: path.stat().st_mtime_ns for path in (out / "documents").glob("[!.]*")}
    assert len(made) == 3
    # One was cut off by the machine.
    broken = sorted(made)[0]
    broken.write_bytes(b"x")
    monkeypatch.setattr(parquet.os, "replace", replace)
    docvqa.prepare(hub, out, ANY)
    assert broken.stat().st_size > 1
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if path != broken)
    assert len(list((out / "documents").iterdir())) == 5


def test_what_is_wrong_with_the_files_is_said(tmp_path):
    docvqa, hub = BY_NAME["docvqa"], tmp_path / "DocVQA"

    def refused(words):
        with pytest.raises(PrepareError, match=words):
            docvqa.prepare(tmp_path, tmp_path / "out", ANY)

    made_hub.parquet(hub, "validation", [{"question": "a"}, {"question": "b"}])
    refused(r"validation-00000-of-00002.parquet has no column questionId, .*; it has question: is it another data set")
    second = hub / "validation-00001-of-00002.parquet"
    second.unlink()
    refused(r"DocVQA: the files of the split validation are not all there.*: validation-00000-of-00002.parquet")
    second.write_bytes((hub / "validation-00000-of-00002.parquet").read_bytes()[:-40])
    refused(r"validation-00001-of-00002.parquet is not a whole parquet file")
    made_hub.parquet(hub, "validation", [{"question": "a"}], shards=1)
    refused(r"not all there, or of several downloads")


def test_nothing_of_another_download_is_replaced(tmp_path):
    _, raw, hub = make("docvqa", tmp_path)
    docvqa, out = BY_NAME["docvqa"], tmp_path / "out"
    docvqa.prepare(raw, out, ANY)
    before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    with pytest.raises(PrepareError, match=r"documents is a link to another download; remove the link"):
        docvqa.prepare(hub, out, ANY)
    (out / "documents").unlink()
    with pytest.raises(PrepareError, match=r"val_v1.0_withQT.json exists and is of another download; --overwrite"):
        docvqa.prepare(hub, out, ANY)
    docvqa.prepare(hub, out, Options(check_counts=False, overwrite=True))
    assert {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()} == before
    assert not (out / "val_v1.0_withQT.json").is_symlink()


def test_an_image_stays_in_its_folder(tmp_path):
    image = {"bytes": b"x", "path": None}
    made_hub.parquet(tmp_path / "hub", "test", [{"name": "../../evil", "image": image}], shards=1)
    with pytest.raises(PrepareError, match=r"row 0: the image name '../../evil' leaves"):
        parquet.unpack(find_split(tmp_path / "hub", "test"), ["name"], tmp_path / "a/b", lambda _, row: row["name"])
    assert not (tmp_path / "evil").exists()
    made_hub.parquet(tmp_path / "bare", "test", [{"name": "a", "image": image | {"bytes": None}}], shards=1)
    with pytest.raises(PrepareError, match="bare, row 0: there is no image in the column image"):
        parquet.unpack(find_split(tmp_path / "bare", "test"), ["name"], tmp_path / "c", lambda _, row: row["name"])
