"""How many questions the benchmarks have as published: what preparers insist on, and what scorers measure against.

Sources: TextVQA 0.5.1, ScienceQA, GQA 1.2, OCR-VQA, DocVQA, RefCOCOg (UMD), TDIUC, MMLU, BIG-Bench-Hard and WikiText-2
as their authors offer them; playground/data/eval/README.md has the addresses.
"""

from dataclasses import dataclass

from llava.eval.benchmarks import bbh, mmlu


@dataclass(frozen=True)
class Published:
    """A number that belongs to a benchmark.

    Attributes:
        what: what is counted.
        least: versions differ, and the number is that of the smallest.
    """

    count: int
    what: str
    least: bool = False

    def matches(self, found: int) -> bool:
        return found >= self.count if self.least else found == self.count


TABLE: dict[str, Published] = {
    "bbh": Published(bbh.QUESTIONS, "questions"),
    "docvqa": Published(5349, "questions"),
    "gqa": Published(12578, "questions"),
    # The English dev sets have 4,329 and more rows, rotations included.
    "mmbench": Published(4329, "rows", least=True),
    "mmlu": Published(mmlu.QUESTIONS, "test questions"),
    # Covers, in all three splits together.
    "ocrvqa": Published(207572, "books in all splits"),
    "refcocog": Published(9602, "expressions"),
    "scienceqa": Published(4241, "questions"),
    "tdiuc": Published(538868, "questions"),
    "textvqa": Published(5000, "questions"),
    "wikitext-2-valid": Published(217646, "words and line ends"),
    "wikitext-2-test": Published(245569, "words and line ends"),
}
SCIENCEQA_WITH_IMAGE = 2017
_OPENINGS = {"= Homarus gammarus =": "wikitext-2-valid", "= Robert Boulter =": "wikitext-2-test"}


def not_as_published(name: str, found: int) -> list[str]:
    """A warning for the reader of a score, where what it was scored against is not the whole benchmark; else nothing.

    Args:
        name: a benchmark of `TABLE`.
        found: how many the annotations hold, whether they were asked or not.
    """
    published = TABLE[name]
    if published.matches(found):
        return []
    least = "at least " if published.least else ""
    return [
        f"not the published benchmark: the annotations hold {found:,} {published.what}, published are "
        f"{least}{published.count:,}"
    ]


def words_and_line_ends(text: str) -> int:
    """Tokens of a WikiText file as its authors count them."""
    return len(text.split()) + text.count("\n")


def text_not_as_published(text: str) -> list[str]:
    """A warning where a text begins as one of WikiText-2's and is not of its length: cut off, or the raw variant."""
    name = _OPENINGS.get(text.lstrip().partition("\n")[0].strip())
    if name is None or TABLE[name].matches(found := words_and_line_ends(text)):
        return []
    return [
        f"not the published text: it begins as {name} and holds {found:,} {TABLE[name].what}, published are "
        f"{TABLE[name].count:,}; it is cut off, or the raw variant"
    ]
