"""Names in messages, tables and pictures: the first few of many, and short ones that stay apart."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Each path's last name, with as many folders before it as set it apart from the others."""
    parts = {path: Path(path).parts for path in dict.fromkeys(paths)}

    def ending(path: str, count: int) -> tuple[str, ...]:
        return parts[path][-count:]

    result = {}
    for path in parts:
        count = 1
        while count < len(parts[path]) and any(p != path and ending(p, count) == ending(path, count) for p in parts):
            count += 1
        result[path] = str(Path(*ending(path, count)))
    return result


def spec_labels(specs: Sequence[str], drop_single: bool = False) -> list[str]:
    """Layer selections with the folders of their score files left out, as far as the files stay apart.

    Args:
        drop_single: where all are of one score file, its name is left out too.
    """
    files = [part.rpartition("#")[0] for spec in specs for part in spec.split(",") if "#" in part]
    short = short_paths(files)
    bare = drop_single and len(short) == 1

    def label(part: str) -> str:
        path, found, query = part.rpartition("#")
        return part if not found else query if bare else f"{short[path]}#{query}"

    return [",".join(map(label, spec.split(","))) for spec in specs]


def numbered(titles: Sequence[str]) -> list[str]:
    """Titles, those that several have with a number behind them."""
    counts, seen = Counter(titles), Counter[str]()
    result = []
    for title in titles:
        seen[title] += 1
        result.append(f"{title} ({seen[title]})" if counts[title] > 1 else title)
    return result


def some(names: Iterable[object], most: int = 5) -> str:
    """The first few names, followed by dots if there are more."""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 image", "2 images"; `many` is the plural where an s is not enough."""
    return f"{number} {one if number == 1 else many or one + 's'}"
