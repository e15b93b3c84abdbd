"""Writing files whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from llava.names import size_text

LOCK = ".lock"
"""The file that `locked` locks."""
_PARTIAL, _OLD = ".partial", ".old"
_RANDOM = "?" * 8
"""A pattern for the random letters in tempfile's names."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "enforce fail at inline_container.cc")
"""What libraries without an errno say of a full disk: safetensors, tokenizers and torch.save."""


class DiskFullError(OSError):
    """A file or folder for which the disk has no room."""


@contextlib.contextmanager
def written_whole(path: str | Path, nbytes: int = 0) -> Iterator[Path]:
    """Yields a file next to `path` to write; it becomes `path` when the block ends without an error.

    Args:
        nbytes: its least size, if it is known, for the message of a full disk.

    Raises:
        DiskFullError: there is no room; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    with _held_aside(path, folder=False) as aside:
        try:
            with full_disk_explained(path, aside, nbytes):
                yield aside
                with open(aside, "rb") as file:
                    os.fsync(file.fileno())
            give_usual_modes(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: str | Path, nbytes: int = 0) -> Iterator[Path]:
    """Yields a folder next to `path` to fill; it replaces `path` when the block ends without an error.

    Links are followed. `nbytes` and `DiskFullError`: as for `written_whole`.

    Raises:
        NotADirectoryError: `path` is a file.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file and cannot become a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    with _held_aside(path, folder=True) as aside:
        try:
            with full_disk_explained(path, aside, nbytes):
                yield aside
            give_usual_modes(aside)
            old = aside.with_suffix(_OLD)
            if path.exists():
                path.rename(old)
            try:
                aside.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def full_disk_explained(path: Path, aside: Path | None, nbytes: int = 0) -> Iterator[None]:
    """Turns any library's error about a full disk into a `DiskFullError`, after it removed `aside`.

    The outermost block names what the user asked for.

    Args:
        path: what is being written.
        aside: the unfinished file or folder; None if what is written so far stays, to go on from it.
        nbytes: what the whole needs at least, if it is known.
    """
    try:
        yield
    except Exception as error:
        if not _says_full(error):
            raise
        need = max(nbytes, sum(file.stat().st_size for file in _files(aside or path)))
        if aside is not None:
            for file in _files(aside):
                # A removed file takes room as long as it is open somewhere.
                os.truncate(file, 0)
            _remove(aside)
        place = next(folder for folder in path.resolve().parents if folder.exists())
        free = shutil.disk_usage(place).free
        missing = f", {size_text(need - free)} too little" if need > free else ""
        left = "what was finished is kept" if aside is None else "nothing of it was left"
        raise DiskFullError(
            f"the disk is full: {path} needs more than {size_text(need)}, and {place} has {size_text(free)} "
            f"free{missing}; {left}. Make room and run the same command again, or write to another disk"
        ) from error


def _says_full(error: BaseException | None) -> bool:
    if error is None:
        return False
    own = getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS)
    return own or _says_full(error.__cause__ or error.__context__)


def _files(path: Path) -> list[Path]:
    """A file itself, or all files of a folder."""
    return [file for file in (path, *path.rglob("*")) if file.is_file() and not file.is_symlink()]


def give_usual_modes(path: Path) -> None:
    """Gives a file, or a folder and all below it, the umask's modes: tempfile and safetensors write for the owner only.

    Links are left alone.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in (path, *path.rglob("*")):
        if not entry.is_symlink():
            entry.chmod((0o777 if entry.is_dir() else 0o666) & ~umask)


def remove_abandoned(path: str | Path) -> None:
    """Removes the partial output of killed runs next to `path`; a running writer holds a lock on its own.

    A previous `path` that was moved aside is removed only if `path` exists again.
    """
    path = Path(path)
    name = glob.escape(path.name)
    for left in path.parent.glob(f".{name}.{_RANDOM}{_PARTIAL}"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                # Fails while the writer runs, and on file systems without locks.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(left)
            finally:
                os.close(handle)
    if path.exists():
        for left in path.parent.glob(f".{name}.{_RANDOM}{_OLD}"):
            _remove(left)


def open_locked(path: str | Path) -> FileIO:
    """A file, open at its end and locked until it is closed, also in children that inherit it.

    Only the process that holds the lock removes the file. It may do so between our `open` and our lock; the path then
    names another file, or none, and both are tried again. A file system without locks gives the file without one.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = FileIO(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise BlockingIOError(f"another process is writing {path}") from error
        except OSError:
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[FileIO | None]:
    """The lock of a folder; None if another process holds it. A child that inherits it holds it too."""
    file = None
    with contextlib.suppress(BlockingIOError):
        file = open_locked(Path(folder) / LOCK)
    try:
        yield file
    finally:
        if file:
            (Path(folder) / LOCK).unlink(missing_ok=True)
            file.close()


@contextlib.contextmanager
def _held_aside(path: Path, folder: bool) -> Iterator[Path]:
    """A new file or folder next to `path`, locked so that `remove_abandoned` of other processes keeps it."""
    place = {"prefix": f".{path.name}.", "suffix": _PARTIAL, "dir": path.parent}
    if folder:
        aside = tempfile.mkdtemp(**place)
        handle = os.open(aside, os.O_RDONLY)
    else:
        handle, aside = tempfile.mkstemp(**place)
    # On a file system without locks no other process can lock it either, so none removes it.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield Path(aside)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    # Half of a surrogate pair, which UTF-8 cannot encode, becomes JSON's escape.
    text = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
    with written_whole(path, len(text)) as aside:
        aside.write_bytes(text)


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_root() -> Path:
    """The folder of derived files: $LLAVA_CACHE, else ~/.cache/llava-visual-region."""
    return Path(os.environ.get("LLAVA_CACHE") or Path.home() / ".cache" / "llava-visual-region")
