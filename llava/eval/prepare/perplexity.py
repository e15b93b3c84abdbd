"""WikiText-2: its validation and test text, known under one name each."""

from pathlib import Path

from llava.eval.benchmarks.published import TABLE, words_and_line_ends
from llava.eval.prepare.common import Options, PrepareError, check_count, find, place

SPLITS = ("valid", "test")


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Links wikitext-2-valid.txt, and wikitext-2-test.txt where the download has it; returns the words of both.

    Args:
        raw: the unpacked wikitext-2-v1.zip (`wiki.valid.tokens`), or a folder with `valid.txt`.

    Raises:
        PrepareError: no validation text, or one of another length: the raw variant, say, which has other words.
    """
    words = 0
    for split in SPLITS:
        names = [
            f"{folder}{name}" for folder in ("", "wikitext-2/") for name in (f"wiki.{split}.tokens", f"{split}.txt")
        ]
        if split != "valid" and not any((raw / name).is_file() for name in names):
            continue
        source = find(raw, *names)
        try:
            text = source.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise PrepareError(f"{source} is not UTF-8 text (byte {error.start})") from error
        found = words_and_line_ends(text)
        published = TABLE[f"wikitext-2-{split}"]
        check_count(f"{published.what} in {source.name}", found, published.count, options)
        if not found:
            raise PrepareError(f"{source} is empty")
        words += found
        place(source, out / f"wikitext-2-{split}.txt")
        print(f"{out / f'wikitext-2-{split}.txt'}: {found} words and line ends")
    return words
