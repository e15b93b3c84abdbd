"""Perplexity against a naive computation, window by window and sample by sample, in float64."""

import argparse
import json
import math
import shutil
import sys

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import get_template
from llava.data.preprocess import preprocess
from llava.data.records import open_records
from llava.eval import perplexity
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.nll import answer_pieces, encode_documents, first_tokens, text_pieces, windows_of
from llava.eval.answering.perplexity import Piece, check_flags, perplexities
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.perplexity import prepare, text_not_as_published, words_and_line_ends
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.report import read_report
from llava.flags import run_program
from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model

TEXT = "Where is the red line? It is at the top. Is there a circle? No, there is none, please look left. " * 3


@pytest.fixture(scope="module")
def loaded(tiny_llava):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    return tokenizer, model.double(), processor


@pytest.fixture
def run(monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["perplexity", *map(str, arguments)])
        run_program(perplexity.main)

    return call


def naive_text(model, ids, bos, context, stride):
    """One window at a time, whole logits, each token's log-probability looked up."""
    body, total, count, scored = context - len(bos), 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        window = bos + ids[begin : begin + body]
        with torch.no_grad():
            logp = torch.log_softmax(model(input_ids=torch.tensor([window])).logits[0].double(), dim=-1)
        for place in range(len(bos), len(window)):
            token = begin + place - len(bos)
            if token >= scored and place > 0:
                total -= logp[place - 1, window[place]].item()
                count += 1
        scored = min(begin + body, len(ids))
        if scored == len(ids):
            return total, count
    raise AssertionError


@pytest.mark.parametrize("bos", [[], [1]])
@pytest.mark.parametrize(("context", "stride"), [(512, 500), (40, 39), (40, 13)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_text_equals_the_naive_sum(loaded, bos, context, stride, batch_size):
    tokenizer, model, _ = loaded
    documents = encode_documents(tokenizer, {"a": TEXT, "b": TEXT[:70], "empty": ""})
    pieces = text_pieces(model, documents, bos, context, stride, batch_size)
    assert [piece.key for piece in pieces] == ["a", "b"]
    for piece, document in zip(pieces, documents, strict=True):
        nll, count = naive_text(model, document.ids, bos, context, stride)
        assert piece.nll == pytest.approx(nll, rel=1e-9)
        assert piece.tokens == count == len(document.ids) - (not bos)
        assert piece.bytes == len(document.text.encode())
        assert piece.words == len(document.text.split())


def test_windows_of_a_stream_add_up(loaded):
    tokenizer, model, _ = loaded
    documents = encode_documents(tokenizer, {"a": TEXT})
    pieces = text_pieces(model, documents, [1], 40, 20)
    assert len(pieces) == 5
    assert sum(piece.tokens for piece in pieces) == len(documents[0].ids)
    assert sum(piece.bytes for piece in pieces) == len(TEXT.encode())
    assert abs(sum(piece.words for piece in pieces) - len(TEXT.split())) <= 1
    assert sum(p.nll for p in pieces) == pytest.approx(naive_text(model, documents[0].ids, [1], 40, 20)[0])


@pytest.mark.parametrize(("length", "context", "stride"), [(1, 4, 4), (10, 4, 4), (10, 4, 2), (9, 4, 3), (3, 8, 1)])
def test_every_token_is_scored_once(length, context, stride):
    scored = []
    for window in windows_of(0, length, context, stride):
        assert window.begin <= window.first < window.end <= window.begin + context
        scored += range(window.first, window.end)
    assert scored == list(range(length))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_answers_equal_the_naive_sum(loaded, tiny, batch_size):
    tokenizer, model, processor = loaded
    records, template = open_records(tiny.data), get_template("v1")
    indices = tuple(range(10))
    pieces = answer_pieces(model, tokenizer, processor, template, records, indices, tiny.images, batch_size)
    assert [piece.key for piece in pieces] == [f"s{i}" for i in indices]
    from llava.images import open_image

    for i, piece in zip(indices, pieces, strict=True):
        record = records[i]
        ids, labels = preprocess(record.turns, tokenizer, template, len(record.images))
        images = None
        if record.images:
            images = process_image(open_image(tiny.images / record.images[0], "x"), processor, "pad").double()[None]
        _, _, _, _, embeds, spliced = model.prepare_inputs_labels_for_multimodal(
            ids[None], None, None, None, labels[None], images
        )
        with torch.no_grad():
            output = model(input_ids=ids[None], images=images)
        wanted = (labels[None] if embeds is None else spliced)[0]
        logp = torch.log_softmax(output.logits[0], dim=-1)
        chosen = [place for place in range(1, len(wanted)) if wanted[place] != -100]
        assert piece.nll == pytest.approx(-sum(logp[p - 1, wanted[p]].item() for p in chosen), rel=1e-6)
        assert piece.tokens == len(chosen)
        assert piece.words == sum(len(answer.split()) for answer in record.turns[1::2])


def test_units_are_of_one_sum_and_lie_in_their_intervals():
    pieces = [Piece(str(i), 10.0 + i, 5 + i % 3, 20 + i, 4) for i in range(20)]
    found = perplexities(pieces)
    nll = sum(piece.nll for piece in pieces)
    for unit in ("token", "byte", "word"):
        measure = found[f"perplexity ({unit})"]
        count = sum(getattr(piece, f"{unit}s") for piece in pieces)
        assert measure.value == pytest.approx(math.exp(nll / count))
        assert measure.low < measure.value < measure.high
    assert found["bits per byte"].value == pytest.approx(math.log2(found["perplexity (byte)"].value))
    one = perplexities(pieces[:1])["perplexity (token)"]
    assert one.low == pytest.approx(one.value) == one.high


def test_text_does_not_touch_the_tower(tiny_llava, run, tmp_path, monkeypatch, capsys):
    from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

    def fail(*args, **kwargs):
        raise AssertionError("the tower was loaded for text")

    monkeypatch.setattr(CLIPVisionTower, "load_network", fail)
    text, report = tmp_path / "text.txt", tmp_path / "report.json"
    text.write_text(TEXT)
    run("--model-path", tiny_llava, "--text-file", text, "--context", 50, "--stride", 25, "--report-file", report)
    printed = capsys.readouterr().out
    assert "context 50, stride 25, bos ['<s>'], unit token" in printed
    data = read_report(report)
    assert data.details["pieces_are"] == "windows"
    assert data.headline.low < data.headline.value < data.headline.high
    assert not (tmp_path / "report.json.journal").exists()


def test_what_was_left_out_is_said(tiny, tiny_llava, run, tmp_path):
    text, lines, report = tmp_path / "text.txt", tmp_path / "pile.jsonl", tmp_path / "report.json"
    text.write_text(" = Homarus gammarus = \n" + TEXT * 8)
    lines.write_text("\n".join(json.dumps({"text": TEXT[i : i + 90]}) for i in range(4)))
    flags = ("--model-path", tiny_llava, "--report-file", report, "--context", 50)
    run(*flags, "--text-file", text)
    (cut,) = read_report(report).warnings
    assert cut.startswith("not the published text: it begins as wikitext-2-valid and holds ")
    whole = read_report(report).details["of"]["tokens"][1]
    run(*flags, "--text-file", text, "--max-tokens", 120)
    first = read_report(report)
    assert first.warnings == [f"a subset: the first 120 of {whole:,} tokens", cut]
    assert first.details["scored"]["tokens"] == 120
    run(*flags, "--text-file", lines, "--samples", 3, "--max-tokens", 1000)
    assert read_report(report).warnings == ["a subset: the first 3 of 4 documents"]
    run("--model-path", tiny_llava, "--report-file", report, "--data-path", tiny.data, "--image-folder", tiny.images,
        "--samples", 2, "--conv-mode", "v1")  # fmt: skip
    assert read_report(report).warnings[0].startswith("a subset: the first 2 of ")
    with pytest.raises(SystemExit, match=r"text\.txt: nothing can be scored of 1 tokens"):
        run(*flags, "--text-file", text, "--max-tokens", 1, "--bos", "none")


def test_no_false_alarm_over_a_text_longer_than_the_window(loaded, monkeypatch):
    tokenizer = loaded[0]
    monkeypatch.setattr(tokenizer, "model_max_length", 10)
    monkeypatch.setattr(tokenizer, "deprecation_warnings", {})
    assert len(encode_documents(tokenizer, {"a": TEXT})[0].ids) > 10
    assert not tokenizer.deprecation_warnings
    # What transformers does by itself.
    tokenizer(TEXT)
    assert tokenizer.deprecation_warnings


@pytest.mark.parametrize("count", [None, 1, 5, 30, 31, 10_000])
def test_first_tokens(loaded, count):
    documents = encode_documents(loaded[0], {"a": TEXT[:60], "empty": "", "b": TEXT[60:200]})
    ids = [token for document in documents for token in document.ids]
    kept = first_tokens(documents, count)
    assert [token for document in kept for token in document.ids] == ids[:count]
    for document in kept:
        assert len(document.text) == document.ends[-1]
        assert len(document.ends) == len(document.ids)


def test_documents_and_answers_from_the_command_line(tiny, tiny_llava, run, tmp_path):
    lines, report = tmp_path / "pile.jsonl", tmp_path / "report.json"
    lines.write_text("\n".join(json.dumps({"text": TEXT[i : i + 90]}) for i in range(4)))
    flags = ("--model-path", tiny_llava, "--report-file", report)
    run(*flags, "--text-file", lines, "--samples", 3, "--unit", "byte", "--bos", "none")
    data = read_report(report)
    assert (data.metric, data.headline.samples) == ("perplexity (byte)", 3)
    assert data.details["bos"] == "none"
    run(*flags, "--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 6, "--conv-mode", "v1")
    data = read_report(report)
    assert data.headline.samples == 6
    assert data.details["template"] == "v1"


def test_answers_that_are_cut_off_are_counted(tiny_llava, loaded, run, tmp_path):
    """Their bytes and words are not those of the tokens that are scored."""
    tokenizer, template = loaded[0], get_template("v1")
    long = "at the top, " * 9 + "there"
    turns = {"whole": ("Where?", "top"), "cut": ("Where?", long), "gone": (long, "top")}
    samples = [
        {"id": name, "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]}
        for name, (asked, answer) in turns.items()
    ]
    data, report, model = tmp_path / "data.json", tmp_path / "report.json", tmp_path / "model"
    data.write_text(json.dumps(samples))
    limit = len(preprocess(turns["whole"], tokenizer, template, 0)[0]) + 3
    shutil.copytree(tiny_llava, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tokenizer_model_max_length": limit}))

    flags = ("--model-path", model, "--data-path", data, "--conv-mode", "v1", "--report-file", report)
    run(*flags)
    found = read_report(report)
    left = preprocess(turns["cut"], tokenizer, template, 0)[1][:limit]
    pieces = {key: tokens for key, _, tokens, *_ in found.details["pieces"]}
    assert list(pieces) == ["whole", "cut"]
    assert pieces["cut"] == int((left != -100).sum()) > 0
    assert found.warnings == [
        f"1 sample was cut off at tokenizer_model_max_length ({limit}): what is left of the answers is scored, per "
        "token only",
        f"1 sample was left out: no token of the answers is within tokenizer_model_max_length ({limit})",
    ]
    assert [*found.metrics] == ["perplexity (token)"]
    assert found.details["scored"].keys() == {"nll", "tokens"}
    with pytest.raises(SystemExit, match=r"--unit word: 1 sample was cut off at .* give --unit token"):
        run(*flags, "--unit", "word")
    # Without the sample that was cut there is one.
    run(*flags, "--samples", 1, "--unit", "word", "--report-file", tmp_path / "one.json")
    assert read_report(tmp_path / "one.json").details["scored"]["words"] == 1


def test_killed_and_started_again(tiny_llava, loaded, run, tmp_path, monkeypatch):
    text, report, straight = tmp_path / "text.txt", tmp_path / "report.json", tmp_path / "straight.json"
    text.write_text(TEXT)
    flags = ("--model-path", tiny_llava, "--text-file", text, "--context", 20, "--stride", 10, "--batch-size", 2)
    run(*flags, "--report-file", straight)
    from llava.eval.answering import nll

    original, calls = nll.window_nll, []

    def dies(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(nll, "window_nll", dies)
    with pytest.raises(SystemExit, match="130"):
        run(*flags, "--report-file", report)
    assert not report.exists()
    monkeypatch.setattr(nll, "window_nll", original)
    # A default dtype that differs, such as that of a GPU, is another one; earlier versions recorded the flag.
    with monkeypatch.context() as patch:
        patch.setattr("llava.eval.answering.arguments.dtype_name", lambda _: "fp16")
        with pytest.raises(SystemExit, match="dtype was 'fp32', now 'fp16'"):
            run(*flags, "--report-file", report)
    journal = tmp_path / "report.json.journal"
    assert '"dtype": "fp32"' in journal.read_text()
    journal.write_text(journal.read_text().replace('"dtype": "fp32"', '"dtype": null'))
    run(*flags, "--report-file", report)
    assert report.read_text() == straight.read_text()


def test_bad_input_before_the_model(tiny, tiny_llava, run, tmp_path, monkeypatch):
    monkeypatch.setattr("llava.eval.answering.arguments.load", None)
    text, broken = tmp_path / "text.txt", tmp_path / "broken.jsonl"
    text.write_text(TEXT)
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    broken.write_text('{"text": "a"}\n{"words": 1}\n')
    flags = ("--model-path", tiny_llava, "--report-file", tmp_path / "report.json")
    answers = ("--data-path", tiny.data, "--image-folder", tiny.images)
    cases = [
        ((), "give either --text-file or --data-path"),
        (("--text-file", text, "--context", 5000), "--context 5000 is beyond the 512 positions"),
        (("--text-file", text, "--context", 50, "--stride", 60), "--stride 60 is larger"),
        (("--text-file", text, "--context", 1), "--context 1 is too small: a window holds a bos and two tokens"),
        (("--text-file", text, "--context", 1, "--bos", "none"), "--context 1 is too small: a window holds two tokens"),
        (("--text-file", empty), r"empty\.txt holds no text"),
        (("--text-file", tmp_path / "no.txt", "--samples", 0), "does not exist"),
        (("--text-file", broken), "line 2 has no 'text'"),
        (("--data-path", tiny.data, "--image-folder", tmp_path), "images are missing under"),
        (("--data-path", tiny.data, "--stride", 4), "are of --text-file"),
        ((*answers, "--conv-mode", "chatml"), "--conv-mode chatml does not fit the tokenizer"),
        ((*answers, "--conv-mode", "chatlm"), "unknown conversation template 'chatlm'"),
        (
            (*answers, "--model-path", tiny.llm),
            "the samples have images, but .*llm has no vision tower; give a vision-",
        ),
    ]
    for extra, words in cases:
        with pytest.raises(SystemExit, match=words):
            run(*flags, *extra)
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(EvaluationError, match="nothing was scored"):
        perplexities([])
    with pytest.raises(EvaluationError, match="--samples 0"):
        check_flags(
            argparse.Namespace(
                text_file=str(text), data_path=None, samples=0, max_tokens=None, context=None, stride=None,
                batch_size=1, bos="auto", as_lm_eval=False,
            ),
            open_checkpoint(tiny_llava),
        )  # fmt: skip


def test_wikitext(tmp_path):
    raw, out = tmp_path / "raw/wikitext-2", tmp_path / "out"
    raw.mkdir(parents=True)
    with pytest.raises(PrepareError, match=r"has no wiki\.valid\.tokens nor valid\.txt"):
        prepare(tmp_path / "raw", out, Options(check_counts=False))
    (raw / "wiki.valid.tokens").write_text(" = Title = \n some words \n")
    with pytest.raises(PrepareError, match=r"7 words and line ends in wiki\.valid\.tokens; published are 217,646"):
        prepare(tmp_path / "raw", out, Options())
    assert prepare(tmp_path / "raw", out, Options(check_counts=False)) == 7
    assert (out / "wikitext-2-valid.txt").read_text() == " = Title = \n some words \n"
    (raw / "test.txt").write_text("")
    with pytest.raises(PrepareError, match=r"test\.txt is empty"):
        prepare(tmp_path / "raw", out, Options(check_counts=False))
    (raw / "wiki.valid.tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(PrepareError, match="is not UTF-8 text"):
        prepare(raw, out, Options(check_counts=False))


@pytest.mark.parametrize(
    ("name", "instead"),
    [("perplexity", "MAX_TOKENS=N "), ("wikitext", ".*--samples N "), ("pile_10k", ".*--samples N ")],
)
def test_a_text_has_no_random_sample(name, instead, tmp_path):
    with pytest.raises(PrepareError, match=f"--sample cannot cut a text; {instead}"):
        BY_NAME[name].prepare(tmp_path, tmp_path / "out", Options(check_counts=False, sample=3))
    assert not (tmp_path / "out").exists()


def test_a_text_cut_short_is_recognised_by_its_first_heading():
    text = " \n = Homarus gammarus = \n \n Homarus gammarus , known as the lobster . \n"
    assert words_and_line_ends(text) == 16
    (warning,) = text_not_as_published("a.txt", [text])
    assert "begins as wikitext-2-valid and holds 16 words and line ends, published are 217,646" in warning
    whole = text + "x " * (217646 - 16)
    assert not text_not_as_published("a.txt", [whole])
    assert not text_not_as_published("a.txt", ["Any other text.\n"])
    assert not text_not_as_published("a.txt", [""])
