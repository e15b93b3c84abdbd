"""Perplexity of WikiText-2 and of Pile-10k. llava.eval.perplexity measures it and writes the score itself.

`perplexity` reads the validation text as one stream of tokens. `wikitext` and `pile_10k` are lm-eval's tasks of these
names (the paper's Figure 1): single documents, perplexity by word, by byte, and bits per byte (`--as-lm-eval`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.parquet import find_split, write_made
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, place
from llava.eval.scoring.pairing import expecting

SPLITS = {"valid": "validation", "test": "test"}
"""In the names of the old download's files, and of the Hub's."""
PUBLISHED = {
    "wikitext-2-valid": Published(217646, "words and line ends"),
    "wikitext-2-test": Published(245569, "words and line ends"),
    "wikitext-2-raw-test": Published(62, "documents"),
    "pile-10k": Published(10000, "documents"),
}
"""By the name of the prepared file."""
LINES = Published(4358, "lines")
"""Of WikiText-2's raw test text."""
_OPENINGS = {"= Homarus gammarus =": "wikitext-2-valid", "= Robert Boulter =": "wikitext-2-test"}
_DETOKENISED = (
    ("s '", "s'"),
    ("/' [0-9]/", "/'[0-9]/"),
    *((" @-@ ", "-"), (" @,@ ", ","), (r" @\.@ ", ".")),
    *((" : ", ": "), (" ; ", "; "), (r" \. ", ". "), (" ! ", "! "), (r" \? ", "? "), (" , ", ", ")),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    *(("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°")),
    *((" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")),
)
"""How lm-eval's `wikitext` undoes the tokenisation of the text: patterns and what replaces them, in this order."""
_FIRST_DOCUMENTS = "bash scripts/eval/benchmark.sh {} CHECKPOINT --samples N reads the first N documents"


def words_and_line_ends(text: str) -> int:
    """Tokens of a WikiText file as its authors count them."""
    return len(text.split()) + text.count("\n")


def text_not_as_published(path: str | Path, texts: Sequence[str]) -> list[str]:
    """Warnings about a prepared file of documents, or a text that begins as one of WikiText-2's, of another length."""
    name = Path(path).stem
    if Path(path).suffix == ".jsonl":
        return PUBLISHED[name].warning(len(texts)) if name in PUBLISHED else []
    name = _OPENINGS.get(texts[0].lstrip().partition("\n")[0].strip())
    if name is None or (found := words_and_line_ends(texts[0])) in PUBLISHED[name]:
        return []
    held = f"it begins as {name} and holds {found:,} {PUBLISHED[name].what}, published are {PUBLISHED[name]}"
    return [f"not the published text: {held}; it is cut off, or the raw variant"]


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Makes wikitext-2-valid.txt, and wikitext-2-test.txt if the download has it; returns the words of both.

    `raw` holds the Hub's `wikitext-2-v1`, or is the unpacked wikitext-2-v1.zip (`wiki.valid.tokens`), or a folder with
    `valid.txt`.
    """
    _refuse_sample(options, "MAX_TOKENS=N bash scripts/eval/perplexity.sh CHECKPOINT reads the first N tokens")
    words = 0
    for split, of_hub in SPLITS.items():
        target, source = out / f"wikitext-2-{split}.txt", raw
        names = [folder + name for folder in ("", "wikitext-2/") for name in (f"wiki.{split}.tokens", f"{split}.txt")]
        text = lines_of_hub(raw, of_hub, "wikitext-2-v1")
        if text is None:
            if split != "valid" and not any((raw / name).is_file() for name in names):
                continue
            source = find(raw, *names)
        found = words_and_line_ends(_text_of(source) if text is None else text)
        published = PUBLISHED[target.stem]
        check_count(Published(published.count, f"{published.what} in {source.name}"), found, options)
        if not found:
            raise PrepareError(f"{source} is empty")
        words += found
        if text is None:
            place(source, target)
        else:
            write_made(target, text, options)
        print(f"{target}: {found} words and line ends")
    return words


def lines_of_hub(raw: Path, split: str, folder: str) -> str | None:
    """A text of the Hub's WikiText, which has a row for each line, empty for a line that holds a blank alone."""
    found = find_split(raw, split, folder)
    return None if found is None else "".join(row["text"] or " \n" for row in found.rows("text"))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PrepareError(f"{path} is not UTF-8 text (byte {error.start})") from error


def prepare_wikitext(raw: Path, out: Path, options: Options) -> int:
    """Makes wikitext-2-raw-test.jsonl: for each document the `text` that is read, and the `original`.

    `raw` holds the Hub's `wikitext-2-raw-v1` by lines (Salesforce/wikitext) or by documents
    (EleutherAI/wikitext_document_level), or is the unpacked wikitext-2-raw-v1.zip (`wiki.test.raw`).
    """
    _refuse_sample(options, _FIRST_DOCUMENTS.format(WIKITEXT.name))
    split = find_split(raw, "test", "wikitext-2-raw-v1")
    if split is not None and "page" in split.columns:
        pages = [row["page"] for row in split.rows("page")]
    else:
        text = lines_of_hub(raw, "test", "wikitext-2-raw-v1")
        if text is None:
            text = _text_of(find(raw, "wiki.test.raw", "wikitext-2-raw/wiki.test.raw"))
        check_count(LINES, text.count("\n"), options)
        pages = pages_of(text)
    return _documents(out / WIKITEXT.questions, [{"text": detokenised(p), "original": p} for p in pages], options)


def pages_of(text: str) -> list[str]:
    """The documents of a WikiText file: each begins with a heading of the first level."""
    pages, lines = [], []
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    # Blank lines before the first heading are no document.
    return [*(page for page in pages if page.strip()), "\n".join(lines)]


def detokenised(page: str) -> str:
    for pattern, replacement in _DETOKENISED:
        page = re.sub(pattern, replacement, page)
    return page


def prepare_pile(raw: Path, out: Path, options: Options) -> int:
    """Makes pile-10k.jsonl from the Hub's NeelNanda/pile-10k, or from JSON lines with a `text` (train.jsonl)."""
    _refuse_sample(options, _FIRST_DOCUMENTS.format(PILE_10K.name))
    target = out / PILE_10K.questions
    if split := find_split(raw, "train"):
        texts = [row["text"] for row in split.rows("text")]
    else:
        source = find(raw, "train.jsonl", target.name)
        with expecting(f"{source} does not hold JSON lines with a text"):
            texts = [json.loads(line)["text"] for line in _text_of(source).split("\n") if line.strip()]
    return _documents(target, [{"text": text} for text in texts], options)


def _refuse_sample(options: Options, beginning: str) -> None:
    """Raises `PrepareError` if a random part is wanted; `beginning`: the command that reads the text's beginning."""
    if options.sample is not None:
        raise PrepareError(f"--sample cannot cut a text; {beginning}")


def _documents(target: Path, rows: Sequence[dict[str, str]], options: Options) -> int:
    check_count(PUBLISHED[target.stem], len(rows), options)
    write_made(target, "".join(json.dumps(row) + "\n" for row in rows), options)
    print(f"{target}: {len(rows)} documents")
    return len(rows)


PERPLEXITY = Benchmark(
    name="perplexity",
    column="perplexity",
    questions="wikitext-2-valid.txt",
    prepare=prepare,
    visual=False,
    text=True,
    program="perplexity",
    answer_flags=("--text-file", "{questions}", "--batch-size", "1"),
    answers="answers/{stem}{MAX_TOKENS}/{name}.jsonl",
    settings=(
        Setting("MAX_TOKENS", "only the first N tokens", "--max-tokens", path=".first-{}"),
        Setting("CONTEXT", "tokens of a window (default: 2048, or what fits)", "--context"),
        Setting("STRIDE", "tokens from window to window (default: the context, no overlap)", "--stride"),
    ),
)
_AS_LM_EVAL = ("--text-file", "{questions}", "--batch-size", "1", "--as-lm-eval", "--unit", "word")
_ROLLING_SETTINGS = (
    Setting("CONTEXT", "tokens of a window (default: all positions of the model)", "--context"),
    Setting("BOS", "none: documents without the tokenizer's own bos, as lm-eval before 0.4.9.2", "--bos"),
)
WIKITEXT = Benchmark(
    name="wikitext",
    column="WikiText",
    questions="wikitext-2-raw-test.jsonl",
    prepare=prepare_wikitext,
    visual=False,
    text=True,
    paper=False,
    program="perplexity",
    answer_flags=_AS_LM_EVAL,
    answers="answers/{stem}/{name}.jsonl",
    settings=_ROLLING_SETTINGS,
)
PILE_10K = replace(WIKITEXT, name="pile_10k", column="Pile-10k", questions="pile-10k.jsonl", prepare=prepare_pile)
