"""Checks of output files and folders before any work, so that no file of the user is lost."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.files import remove_abandoned

_ROOM = 1 << 24
_PNG = b"\x89PNG\r\n\x1a\n"
_SUFFIXES = (".json", ".png", ".md")


class OutputError(ValueError):
    """A file or folder that must not or cannot be written."""


@dataclass(frozen=True)
class FileKind:
    """A kind of result file: its name in messages, its suffix, and the keys of its JSON object."""

    title: str
    suffix: str = ".json"
    keys: frozenset[str] = frozenset()

    def recognises(self, path: Path) -> bool:
        """Whether the file is of this kind, or empty."""
        content = path.read_bytes()
        if not content or self.suffix == ".png":
            return content.startswith(_PNG) or not content
        if self.suffix == ".md":
            return content.startswith(b"|")
        try:
            value = json.loads(content)
        except ValueError:
            return False
        return isinstance(value, dict) and self.keys <= value.keys()


PICTURE = FileKind("a picture", ".png")
TABLE = FileKind("a table", ".md")


def check_output(
    output: str | Path,
    sources: Iterable[str | Path | None],
    nbytes: int = 0,
    overwrite: bool = False,
    flag: str = "--output",
) -> Path:
    """The output folder; raises `OutputError` if it is not free, or has no room for `nbytes`.

    The output must not be one of `sources` (folders that are read, other outputs), nor above or below one. `overwrite`
    allows a checkpoint to be replaced.
    """
    output = Path(output)
    check_apart(output, sources, flag)
    place = check_folder(output, flag)
    if output.is_dir() and any(output.iterdir()):
        if not (output / "config.json").is_file():
            raise OutputError(f"{flag} {output} is not empty and not a checkpoint; give another folder")
        if not overwrite:
            raise OutputError(f"{flag} {output} holds a checkpoint already; --overwrite replaces it")
    # Partial output of a killed run may take as much space.
    remove_abandoned(output.resolve())
    free = shutil.disk_usage(place).free
    if free < nbytes + _ROOM:
        raise OutputError(
            f"{flag} {output} needs {nbytes / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free; "
            "give a folder on another disk"
        )
    return output


def check_apart(output: str | Path, others: Iterable[str | Path | None], flag: str = "--output") -> None:
    """Raises `OutputError` if the output is one of the other folders, or above or below one."""
    target = Path(output).resolve()
    for other in filter(None, others):
        read = Path(other).resolve()
        if target == read or target in read.parents or read in target.parents:
            raise OutputError(f"{flag} {output} and {other} overlap; give another folder")


def check_folder(path: str | Path, flag: str) -> Path:
    """The nearest existing folder at or above `path`; raises `OutputError` if `path` cannot become a folder."""
    if Path(path).exists() and not Path(path).is_dir():
        raise OutputError(f"{flag} {path} is a file; give a folder")
    return _place(flag, path, Path(path))


def check_cache(path: str | Path | None) -> None:
    """Raises `OutputError` if --vision-feature-cache cannot be a folder."""
    if path:
        check_folder(path, "--vision-feature-cache")


def _place(flag: str, path: str | Path, folder: Path) -> Path:
    """The nearest existing folder at or above `folder`, which must be writable."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"{flag} {path}: {place} is a file, and nothing can be written below it")
    try:
        # Tried, because the rights of a folder in /proc or on a read-only disk do not tell. Nothing is left behind.
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise OutputError(f"{flag} {path}: {place} is not writable ({error.strerror}); give another place") from error
    return place


def check_files(
    outputs: Mapping[str, tuple[str | Path | None, FileKind]], inputs: Sequence[str | Path | None] = ()
) -> None:
    """Raises `OutputError` if an output (path and kind by flag) cannot be written or would replace another file."""
    written: dict[str, Path] = {}
    for flag, (given, kind) in outputs.items():
        if not given:
            continue
        path = Path(given)
        _check_file(flag, path, kind)
        if any(_same(path, Path(other)) for other in inputs if other):
            raise OutputError(f"{flag} {path} is one of the files that are read; give another file")
        twin = next((other for other in written if _same(path, written[other])), None)
        if twin:
            raise OutputError(f"{twin} and {flag} are the same file {path}; give each its own")
        if path.exists() and not kind.recognises(path):
            raise OutputError(f"{flag} {path} exists and is not {kind.title}; delete it, or give another file")
        written[flag] = path


def _check_file(flag: str, path: Path, kind: FileKind) -> None:
    if path.is_dir():
        raise OutputError(f"{flag} {path} is a folder; give a file, such as {path / f'result{kind.suffix}'}")
    if path.exists() and not path.is_file():
        raise OutputError(f"{flag} {path} is not an ordinary file; give another")
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES and suffix != kind.suffix:
        raise OutputError(f"{flag} {path}: the file becomes {kind.title}; give a name that ends in {kind.suffix}")
    _place(flag, path, path.parent)


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of the same file, also through links."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
