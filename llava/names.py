"""Names in messages, tables and pictures."""

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Each path's last name, with as many of its folders as make it unique."""
    parts = {path: Path(path).parts for path in paths}
    result = {}
    for path, own in parts.items():
        others = [other for name, other in parts.items() if name != path]
        sizes = range(1, len(own) + 1)
        size = next((n for n in sizes if all(other[-n:] != own[-n:] for other in others)), len(own))
        result[path] = str(Path(*own[-size:]))
    return result


def model_name(path: str) -> str:
    """The name of a checkpoint in the names of answers and results: the last of its folder, or of its hub id.

    A trainer's `RUN/checkpoint-500` is RUN_checkpoint-500, so that those of two runs stay apart.
    """
    # Such as "." or, in a run's folder, "checkpoint-500"; a hub id is no folder.
    path = os.path.abspath(path) if os.path.isdir(path) else path
    parts = PurePath(path.strip("/")).parts
    return "_".join(parts[-2:] if parts and parts[-1].startswith("checkpoint-") else parts[-1:])


def spec_labels(specs: Sequence[str], drop_single: bool = False) -> list[str]:
    """Layer selections with short names of their score files; `drop_single`: without the name of a single file."""
    files = [part.rpartition("#")[0] for spec in specs for part in spec.split(",") if "#" in part]
    short = short_paths(files)
    bare = drop_single and len(short) == 1

    def label(part: str) -> str:
        path, found, query = part.rpartition("#")
        return part if not found else query if bare else f"{short[path]}#{query}"

    return [",".join(map(label, spec.split(","))) for spec in specs]


def numbered(titles: Sequence[str]) -> list[str]:
    """Titles; repeated ones get a number."""
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
    """A number with its noun: "1 image", "2 images"; `many`: an irregular plural."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def agree(number: int, one: str, many: str) -> str:
    """The verb that fits a number: "is" or "are"."""
    return one if number == 1 else many


def listed(noun: str, names: Iterable[object]) -> str:
    """A noun with its names: "layer 1", "layers 1, 2"."""
    names = list(map(str, names))
    return f"{noun}{agree(len(names), '', 's')} {', '.join(names)}"


def close(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that a misspelt word is most like; case, "_" and "-" make no difference."""
    by_form = {_form(name): name for name in known}
    return [by_form[form] for form in difflib.get_close_matches(_form(word), by_form, n=most)]


def did_you_mean(*suggestions: str) -> str:
    """The end of an error: "; did you mean 'x' or 'y'?"; nothing without suggestions. Flags have no quotes."""
    names = [name if name.startswith("-") else repr(name) for name in suggestions]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _form(word: str) -> str:
    return word.lower().replace("_", "-")


def size_text(nbytes: float) -> str:
    """Bytes as text, such as "1.2 GB"."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if abs(nbytes) >= u), (1e3, "kB"))
    return f"{nbytes / unit:.1f} {name}"
