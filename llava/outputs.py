"""Where results may be written: nothing that is read, and nothing of another kind, is replaced.

Every program calls these checks before its work: `check_files` for files, `check_output` for a checkpoint folder that
is written at once, `check_run_folder` for the folder of a training.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.families import STOCK_CLASSES
from llava.files import remove_abandoned

_ROOM = 1 << 24
_PNG = b"\x89PNG\r\n\x1a\n"
_DRAWN_BY = b"Matplotlib"
"""What the pictures of this project have in their first bytes, and photos do not."""
_SUFFIXES = (".json", ".png", ".md")
_OURS = ("mm_vision_tower", "visual_region", "averaged_from")
"""Keys of a config.json that neither a plain language model nor a tower has."""
GGUF_MODEL, GGUF_PROJECTOR = "model.gguf", "mmproj.gguf"
"""The files of an export to GGUF."""
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors", "pytorch_model*.bin")

Paths = Iterable[str | Path | None]


class OutputError(ValueError):
    """A file or folder that must not or cannot be written."""


@dataclass(frozen=True)
class FileKind:
    """A kind of result file.

    Attributes:
        title: its name in messages.
        keys: those of its JSON object, of the first object of its list, or of its first line (.jsonl).
        lacks: keys that a file of another kind has besides.
        begins: the first bytes of a file that is not JSON.
    """

    title: str
    suffix: str = ".json"
    keys: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    begins: bytes = b""

    def recognises(self, path: Path) -> bool:
        """Whether the file is of this kind, or empty."""
        with open(path, "rb") as file:
            content = file.readline() if self.suffix == ".jsonl" else file.read()
        if not content.strip():
            return True
        if self.begins:
            return content.startswith(self.begins)
        try:
            value = json.loads(content)
        except ValueError:
            return False
        if isinstance(value, list) and self.suffix == ".json":
            value = value[0] if value else {}
        return isinstance(value, dict) and self.keys <= value.keys() and not self.lacks & value.keys()


@dataclass(frozen=True)
class _Picture(FileKind):
    def recognises(self, path: Path) -> bool:
        with open(path, "rb") as file:
            content = file.read(1024)
        return not content or (content.startswith(_PNG) and _DRAWN_BY in content)


PICTURE = _Picture("a picture of this project", ".png")
TABLE = FileKind("a table", ".md", begins=b"|")
QUESTIONS = FileKind("a question file", ".jsonl", frozenset({"question_id", "text"}), frozenset({"answer_id"}))
REPORT = FileKind("a score", keys=frozenset({"benchmark", "metric", "metrics"}))


def check_files(outputs: Mapping[str, tuple[str | Path | None, FileKind]], inputs: Paths = ()) -> None:
    """Raises `OutputError` if an output (path and kind by flag) cannot be written or would replace another file."""
    written: dict[str, Path] = {}
    read = [Path(path) for path in inputs if path]
    for flag, (given, kind) in outputs.items():
        if not given:
            continue
        path = Path(given)
        _check_file(flag, path, kind)
        if any(_same(path, other) for other in read):
            raise OutputError(f"{flag} {path} is one of the files that are read; give another file")
        twin = next((other for other in written if _same(path, written[other])), None)
        if twin:
            raise OutputError(f"{twin} and {flag} are the same file {path}; give each its own")
        if path.exists() and not kind.recognises(path):
            raise OutputError(f"{flag} {path} exists and is not {kind.title}; delete it, or give another file")
        written[flag] = path


def check_output(
    output: str | Path,
    sources: Paths,
    nbytes: int = 0,
    overwrite: bool = False,
    flag: str = "--output",
    inputs: Paths = (),
    stock: bool = False,
    gguf: bool = False,
) -> Path:
    """The output folder of a checkpoint; raises `OutputError` if it is not free, or has no room for `nbytes`.

    Args:
        sources: folders of models that are read, and other outputs (`check_apart`).
        overwrite: allows a checkpoint of the same kind to be replaced.
        inputs: files and folders of data that are read; the output must not contain them.
        stock, gguf: a LLaVA in the format of transformers, or GGUF files, are written; otherwise a checkpoint of ours.
    """
    output = Path(output)
    check_apart(output, sources, flag, inputs)
    place = check_folder(output, flag)
    if output.is_dir():
        # It is written next to the folder, and takes its place.
        place = _place(flag, output, output.resolve().parent)
        if output.resolve().is_mount():
            raise OutputError(f"{flag} {output} is a mount point and cannot be replaced; give a folder in it")
    if output.is_dir() and any(output.iterdir()):
        if gguf:
            held = {file.name for file in output.iterdir()}
            if GGUF_MODEL not in held or held - {GGUF_MODEL, GGUF_PROJECTOR, "README.md"}:
                raise OutputError(f"{flag} {output} is not empty and not an export to GGUF; give another folder")
        else:
            _check_held(output, flag, stock)
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


def check_run_folder(
    output: str | Path, models: Mapping[str, str | Path | None], data: Mapping[str, str | Path | None]
) -> None:
    """Raises `OutputError` if a training must not write to `output`; a folder of an earlier training is accepted.

    Args:
        models, data: what is read, by flag; of a file its folder counts.
    """
    flag = "--output_dir"
    check_folder(output, flag)
    folder = Path(output)
    if not folder.is_dir():
        return
    config = _config_of(folder)
    trained = any(folder.glob("trainer_state.json")) or any(folder.glob("checkpoint-*/trainer_state.json"))
    earlier = trained and (config is None or _is_ours(config))
    for what, path in (models if earlier else {**models, **data}).items():
        if path and Path(path).exists() and folder.samefile(path if Path(path).is_dir() else Path(path).parent):
            raise OutputError(f"{flag} {output} is the folder of {what}, which is read; give a folder of its own")
    if not earlier and any(any(folder.glob(pattern)) for pattern in _MODEL_FILES):
        held = "a model" if config is None else _named(config)
        raise OutputError(f"{flag} {output} holds {held}, which no training of this kind wrote; give another folder")


def check_apart(output: str | Path, folders: Paths, flag: str = "--output", inputs: Paths = ()) -> None:
    """Raises `OutputError` if the output is one of the folders, or above or below one, or contains an input."""
    target = Path(output).resolve()
    for others, below in ((folders, True), (inputs, False)):
        for other in filter(None, others):
            read = Path(other).resolve()
            if target == read or target in read.parents or (below and read in target.parents):
                raise OutputError(f"{flag} {output} and {other} overlap; give another folder")


def check_folder(path: str | Path, flag: str) -> Path:
    """The nearest existing folder at or above `path`; raises `OutputError` if `path` cannot become a folder."""
    if not str(path):
        raise OutputError(f"{flag} is empty; give a folder")
    if Path(path).exists() and not Path(path).is_dir():
        raise OutputError(f"{flag} {path} is a file; give a folder")
    return _place(flag, path, Path(path))


def check_cache(path: str | Path | None, models: Paths = (), flag: str = "--vision-feature-cache") -> None:
    """Raises `OutputError` if the feature cache cannot be a folder, or lies in the folder of a model."""
    if path:
        check_folder(path, flag)
        target = Path(path).resolve()
        for model in filter(None, models):
            if Path(model).resolve() in (target, *target.parents):
                raise OutputError(f"{flag} {path} is inside {model}, which is read; give a folder of its own")


def _check_held(output: Path, flag: str, stock: bool) -> None:
    """Raises `OutputError` if a folder that is not empty holds something else than a checkpoint of the wanted kind."""
    config = _config_of(output)
    if config is None:
        raise OutputError(f"{flag} {output} is not empty and not a checkpoint; give another folder")
    if not (_is_stock(config) if stock else _is_ours(config)):
        wanted = "a LLaVA of transformers" if stock else "a checkpoint of this project"
        raise OutputError(f"{flag} {output} holds {_named(config)}, not {wanted}; give another folder")


def _config_of(folder: Path) -> dict[str, Any] | None:
    """The config.json of a folder; None without one, empty if it cannot be read."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _is_stock(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in STOCK_CLASSES and "text_config" in config


def _is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is a LLaVA, or a model that this project changed."""
    return any(config.get(key) for key in _OURS) and not _is_stock(config)


def _named(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    return f"a model of type {kind!r}" if kind else "a config.json of something else"


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


def _check_file(flag: str, path: Path, kind: FileKind) -> None:
    if path.is_dir():
        raise OutputError(f"{flag} {path} is a folder; give a file, such as {path / f'result{kind.suffix}'}")
    if path.exists() and not path.is_file():
        raise OutputError(f"{flag} {path} is not an ordinary file; give another")
    suffix = path.suffix.lower()
    # Answers are JSON too.
    if suffix in _SUFFIXES and kind.suffix not in (suffix, f"{suffix}l"):
        raise OutputError(f"{flag} {path}: the file becomes {kind.title}; give a name that ends in {kind.suffix}")
    _place(flag, path, path.parent)


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of the same file, also through links."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
