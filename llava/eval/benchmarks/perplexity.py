"""Perplexity of WikiText-2's validation text. llava.eval.perplexity measures it and writes the score itself."""

from pathlib import Path

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, place

SPLITS = ("valid", "test")
PUBLISHED = {
    "wikitext-2-valid": Published(217646, "words and line ends"),
    "wikitext-2-test": Published(245569, "words and line ends"),
}
_OPENINGS = {"= Homarus gammarus =": "wikitext-2-valid", "= Robert Boulter =": "wikitext-2-test"}


def words_and_line_ends(text: str) -> int:
    """Tokens of a WikiText file as its authors count them."""
    return len(text.split()) + text.count("\n")


def text_not_as_published(text: str) -> list[str]:
    """A warning if a text begins as one of WikiText-2's and has another length: it is cut off, or the raw variant."""
    name = _OPENINGS.get(text.lstrip().partition("\n")[0].strip())
    if name is None or (found := words_and_line_ends(text)) == PUBLISHED[name].count:
        return []
    held = f"it begins as {name} and holds {found:,} {PUBLISHED[name].what}, published are {PUBLISHED[name].count:,}"
    return [f"not the published text: {held}; it is cut off, or the raw variant"]


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Links wikitext-2-valid.txt, and wikitext-2-test.txt if the download has it; returns the words of both.

    `raw` is the unpacked wikitext-2-v1.zip (`wiki.valid.tokens`), or a folder with `valid.txt`.
    """
    words = 0
    for split in SPLITS:
        names = [folder + name for folder in ("", "wikitext-2/") for name in (f"wiki.{split}.tokens", f"{split}.txt")]
        if split != "valid" and not any((raw / name).is_file() for name in names):
            continue
        source, target = find(raw, *names), out / f"wikitext-2-{split}.txt"
        try:
            found = words_and_line_ends(source.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise PrepareError(f"{source} is not UTF-8 text (byte {error.start})") from error
        published = PUBLISHED[target.stem]
        check_count(Published(published.count, f"{published.what} in {source.name}"), found, options)
        if not found:
            raise PrepareError(f"{source} is empty")
        words += found
        place(source, target)
        print(f"{target}: {found} words and line ends")
    return words


PERPLEXITY = Benchmark(
    name="perplexity",
    column="perplexity",
    questions="wikitext-2-valid.txt",
    prepare=prepare,
    visual=False,
    program="perplexity",
    answer_flags=("--text-file", "{questions}", "--batch-size", "1"),
    answers="answers/{stem}{MAX_TOKENS}/{name}.jsonl",
    settings=(
        Setting("MAX_TOKENS", "the first so many tokens only", "--max-tokens", path=".first-{}"),
        Setting("CONTEXT", "tokens of a window (default: 2048, or what fits)", "--context"),
        Setting("STRIDE", "tokens from window to window (default: the context, no overlap)", "--stride"),
    ),
)
