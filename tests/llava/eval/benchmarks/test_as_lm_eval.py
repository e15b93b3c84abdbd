"""Perplexity as lm-eval's tasks `wikitext` and `pile_10k` compute it.

`REFERENCE` was printed by lm-eval 0.4.13 (`HFLM`, fp32 on a CPU, its two tasks with parquet files of the texts below)
with the model and the tokenizer of `reference_model`; "none" with `add_bos_token=False`, its default before 0.4.9.2.
"""

import json
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from llava.eval import perplexity
from llava.eval.answering.perplexity import perplexities
from llava.eval.answering.rolling import encode_after_prefix, rolling_pieces, rolling_windows
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.perplexity import detokenised, pages_of
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.report import read_report
from llava.flags import run_program
from llava.model.builder import load_pretrained_model

ANY = Options(check_counts=False)
RAW = (
    " \n = First page = \n \n"
    ' The cat \'s mat ( a red one ) is @-@ like 1 @,@ 000 others , 3 @.@ 5 of " them " . Is it ? Yes ! \n'
    " = = A section = = \n \n"
    " It was 21 ° C ; the players ' shoes [ two ] { three } were N times ' here ' : gone . \n \n"
    " = = = Deep = = = \n More . \n \n = Second page = \n \n"
    + " A short text follows , which is long enough for windows ." * 4
    + " \n \n = Third = \n \n x \n"
)
PILE = ["Plain text, with two\n\nparagraphs. " * 5, "<s>It begins with the prefix", "x", " blanks at both ends \n"]
REFERENCE = {
    # Task, --bos, context: word perplexity, byte perplexity, bits per byte.
    ("wikitext", "auto", 2048): (85908799480.0318, 631.5845367725066, 9.302832039575293),
    ("wikitext", "auto", 40): (102362311047.2455, 660.5761410825563, 9.367581052580896),
    ("wikitext", "none", 2048): (66729670527.06015, 592.0116934792856, 9.209481862179565),
    ("wikitext", "none", 40): (76735198583.14763, 613.5791057838198, 9.261105545341602),
    ("pile_10k", "auto", 2048): (5.232822327734701e19, 2457.8302754684805, 11.263169579056907),
    ("pile_10k", "auto", 40): (2.241164895910584e19, 2124.3730882123564, 11.052821443104683),
    ("pile_10k", "none", 2048): (2.28517732940034e19, 2131.4888291745415, 11.057645779027167),
    ("pile_10k", "none", 40): (1.1040996968944935e19, 1880.890082386784, 10.877199826118106),
}


def wikitext():
    return {str(i): (detokenised(page), page) for i, page in enumerate(pages_of(RAW))}


def pile():
    return {str(i): (text, text) for i, text in enumerate(PILE)}


def reference_model(parity):
    """A random Llama with 600 tokens; a tokenizer of bytes that adds a bos."""
    alphabet = {"<unk>": 0, "<s>": 1, "</s>": 2}
    alphabet |= {byte: 3 + i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(alphabet, [], unk_token="<unk>"))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, bos_token="<s>", eos_token="</s>")
    return LlamaForCausalLM.from_pretrained(parity / "tiny-vicuna", dtype=torch.float32).eval(), tokenizer


@pytest.fixture(scope="module")
def loaded(parity):
    return reference_model(parity)


@pytest.mark.parametrize(("task", "bos", "context"), REFERENCE)
def test_the_numbers_of_lm_eval(loaded, task, bos, context):
    model, tokenizer = loaded
    texts = wikitext() if task == "wikitext" else pile()
    documents = encode_after_prefix(tokenizer, texts, bos == "auto")
    found = perplexities(rolling_pieces(WithModel(model), documents, context, batch_size=3))
    words, by_bytes, bits = REFERENCE[task, bos, context]
    assert found["perplexity (word)"].value == pytest.approx(words, rel=1e-4)
    assert found["perplexity (byte)"].value == pytest.approx(by_bytes, rel=1e-4)
    assert found["bits per byte"].value == pytest.approx(bits, rel=1e-6)


class WithModel:
    """The interface of our models."""

    def __init__(self, model):
        self.model, self.device, self.config = model, model.device, model.config
        self.get_output_embeddings = model.get_output_embeddings

    def get_model(self):
        return self.model.model


def by_hand(model, tokenizer, text, bos, context):
    """Each token's log-probability after the tokens that it may see, one forward pass per token."""
    prefix = tokenizer.bos_token_id
    own = bos and not text.startswith(tokenizer.bos_token)
    ids = [prefix, *tokenizer(text, add_special_tokens=own).input_ids]
    scored, total = 0, 0.0
    while scored < len(ids) - 1:
        end = min(scored + context, len(ids) - 1)
        # A window feeds `context` tokens; the last of them is the one before the last token that is scored.
        begin = max(0, end - context)
        for place in range(scored + 1, end + 1):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids[begin:place]])).logits[0, -1].double()
            total -= torch.log_softmax(logits, -1)[ids[place]].item()
        scored = end
    return total, len(ids) - 1


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("context", [7, 40])
def test_token_by_token(loaded, bos, context):
    model, tokenizer = loaded
    texts = pile() | {"empty": ("", "")} | {f"page {key}": value for key, value in list(wikitext().items())[2:]}
    documents = encode_after_prefix(tokenizer, texts, bos)
    for piece, (key, (text, original)) in zip(
        rolling_pieces(WithModel(model), documents, context), texts.items(), strict=True
    ):
        nll, tokens = by_hand(model, tokenizer, text, bos, context)
        assert (piece.key, piece.tokens) == (key, tokens)
        assert piece.nll == pytest.approx(nll, rel=1e-5)
        assert (piece.words, piece.bytes) == (len(re.split(r"\s+", original)), len(original.encode()))


@pytest.mark.parametrize(("length", "context"), [(0, 3), (1, 3), (3, 3), (4, 3), (10, 3), (9, 1)])
def test_every_token_is_scored_once_and_fits(length, context):
    scored = []
    for window in rolling_windows(0, length, context):
        # All but the last token are fed.
        assert 0 <= window.begin < window.first < window.end <= window.begin + context + 1
        scored += range(window.first, window.end)
    assert scored == list(range(1, length + 1))


def test_a_page_without_its_tokenisation():
    first, second, third = pages_of(RAW)
    assert first.startswith(" = First page = ")
    assert detokenised(first) == (
        ' = First page =\n\nThe cat\'s mat (a red one) is-like 1,000 others, 3.5 of "them". Is it? Yes!\n'
        "== A section ==\n\nIt was 21°C; the players' shoes [two] {three} were 1 times'here': gone.\n\n"
        "=== Deep ===\nMore.\n"
    )
    assert second.startswith(" = Second page = \n \n A short")
    assert third == " = Third = \n \n x \n"


def test_wikitext_in_its_three_forms(tmp_path):
    """By lines and by documents as on the Hub, and the old text file."""
    lines, documents, plain = (tmp_path / name for name in ("lines/wikitext-2-raw-v1", "documents", "plain"))
    for folder in (lines, documents, plain):
        folder.mkdir(parents=True)
    rows = [line + "\n" if line.strip() else "" for line in RAW.split("\n")[:-1]]
    pq.write_table(pa.table({"text": rows}), lines / "test-00000-of-00001.parquet")
    pq.write_table(pa.table({"page": pages_of(RAW)}), documents / "wikitext-2-raw-v1-test.parquet")
    (plain / "wiki.test.raw").write_text(RAW)
    made = []
    for raw in (lines.parent, lines, documents, plain):
        out = tmp_path / f"out{len(made)}"
        assert BY_NAME["wikitext"].prepare(raw, out, ANY) == 3
        made.append((out / "wikitext-2-raw-test.jsonl").read_text())
    assert len(set(made)) == 1
    entries = [json.loads(line) for line in made[0].splitlines()]
    assert [(e["text"], e["original"]) for e in entries] == list(wikitext().values())
    for raw, words in ((plain, "18 lines; published are 4,358"), (documents, "3 documents; published are 62")):
        with pytest.raises(PrepareError, match=words):
            BY_NAME["wikitext"].prepare(raw, tmp_path / "none", Options())
    assert not (tmp_path / "none").exists()


def test_wikitexts_validation_text_from_the_hub(tmp_path):
    folder = tmp_path / "wikitext-2-v1"
    folder.mkdir()
    pq.write_table(
        pa.table({"text": ["", " = Title = \n", "", " words \n"]}), folder / "validation-00000-of-00001.parquet"
    )
    assert BY_NAME["perplexity"].prepare(tmp_path, tmp_path / "out", ANY) == 8
    assert (tmp_path / "out/wikitext-2-valid.txt").read_text() == " \n = Title = \n \n words \n"


def test_the_pile(tmp_path):
    (tmp_path / "hub/data").mkdir(parents=True)
    table = pa.table({"text": PILE, "meta": [{"pile_set_name": "x"}] * len(PILE)})
    pq.write_table(table, tmp_path / "hub/data/train-00000-of-00001-4746b8785c874cc7.parquet")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in PILE))
    made = []
    for raw in ("hub", "lines"):
        assert BY_NAME["pile_10k"].prepare(tmp_path / raw, tmp_path / f"out {raw}", ANY) == 4
        made.append((tmp_path / f"out {raw}/pile-10k.jsonl").read_text())
    assert made[0] == made[1]
    assert [json.loads(line)["text"] for line in made[0].splitlines()] == PILE
    with pytest.raises(PrepareError, match="4 documents; published are 10,000"):
        BY_NAME["pile_10k"].prepare(tmp_path / "hub", tmp_path / "none", Options())


def test_from_the_command_line(tiny_llava, tmp_path, monkeypatch, capsys):
    """Once as it is and once interrupted, the same file; what the score says of itself."""
    text, report = tmp_path / "wikitext-2-raw-test.jsonl", tmp_path / "report.json"
    entries = [{"text": text, "original": original} for text, original in wikitext().values()]
    text.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def run(*flags):
        argv = ["--model-path", tiny_llava, "--text-file", text, "--report-file", report, "--as-lm-eval", *flags]
        monkeypatch.setattr(sys, "argv", ["perplexity", *map(str, argv)])
        run_program(perplexity.main)
        return read_report(report)

    found = run("--unit", "word", "--context", 40)
    assert "reading each document as lm-eval's loglikelihood_rolling, context 40" in capsys.readouterr().out
    tokenizer, model, _, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    sums = [by_hand(model, tokenizer, entry["text"], True, 40)[0] for entry in entries]
    words = sum(len(re.split(r"\s+", entry["original"])) for entry in entries)
    assert found.metric == "perplexity (word)"
    assert found.details["scored"]["nll"] == pytest.approx(sum(sums), rel=1e-5)
    assert found.details["scored"]["words"] == words
    assert found.details["prefix"] == "<s>"
    assert found.details["bos"] == "as the tokenizer (lm-eval since 0.4.9.2)"
    assert found.warnings == ["not the published benchmark: the annotations hold 3 documents, published are 62"]
    # By default as many positions as the model has; other documents' tokens are not seen.
    whole = run("--samples", 1)
    assert whole.details["context"] == model.config.max_position_embeddings
    assert whole.warnings[0] == "a subset: the first 1 of 3 documents"
    for flags, words in (
        (("--stride", 3), "no --data-path, --stride or --max-tokens"),
        (("--max-tokens", 3), "no --data"),
    ):
        with pytest.raises(SystemExit, match=words):
            run(*flags)
