"""What all preparers share: finding and placing files of a download, checking counts and images, writing questions."""

import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.eval.answering.errors import some
from llava.eval.benchmarks.published import TABLE
from llava.eval.scoring.pairing import ScoringError, read_json, read_jsonl
from llava.files import write_json, written_whole

SHORT = "Answer the question using a single word or phrase."
Rows = list[dict[str, Any]]


class PrepareError(ValueError):
    """A download that is not whole, or not the benchmark's."""


@dataclass(frozen=True)
class Options:
    """How a benchmark is prepared.

    Attributes:
        check_counts: whether the counts must be the published ones.
        skip_missing_images: leave out questions whose image is not there, instead of stopping.
        overwrite: replace question files that are there and differ.
        sample: ask only so many questions, drawn at random with `seed`.
        ocr: whether TextVQA's prompts hold the OCR tokens, as LLaVA's do.
        template: RefCOCOg's prompt, with {} for the expression.
    """

    check_counts: bool = True
    skip_missing_images: bool = False
    overwrite: bool = False
    sample: int | None = None
    seed: int = 0
    ocr: bool = True
    template: str | None = None


def find(raw: Path, *candidates: str) -> Path:
    """The first of several places in a download that is there.

    Raises:
        PrepareError: none is; names them, and archives that were not unpacked.
    """
    for name in candidates:
        if (raw / name).exists():
            return raw / name
    archives = sorted(file.name for file in raw.glob("*") if file.name.endswith((".zip", ".tar", ".tar.gz", ".tgz")))
    packed = f"; unpack {', '.join(archives)} first" if archives else ""
    raise PrepareError(
        f"{raw} has no {' nor '.join(candidates)}{packed}; playground/data/eval/README.md says what to download"
    )


def check_place(source: Path, target: Path) -> None:
    """Raises `PrepareError` where something that is no link has the name `target` and is not `source`."""
    if target.exists() and not target.is_symlink() and not target.samefile(source):
        raise PrepareError(f"{target} is there and is not {source}; move it away, or give its folder as --raw")


def place(source: Path, target: Path) -> None:
    """Makes a file or folder of the download known under the name that the scripts use: a link, if it lies elsewhere.

    Raises:
        PrepareError: something else has that name.
    """
    check_place(source, target)
    if target.exists() and target.samefile(source):
        return
    if target.is_symlink():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve(), target_is_directory=source.is_dir())


def load(path: Path) -> Any:
    """A JSON file of a download."""
    try:
        return read_json(path)
    except ScoringError as error:
        raise PrepareError(str(error)) from error


def check_count(what: str, found: int, published: int, options: Options) -> None:
    """Raises `PrepareError` where a count is not the published one (unless counts are not to be checked)."""
    if options.check_counts and found != published:
        raise PrepareError(
            f"{found} {what}; published are {published}. Is the download complete, and of this version? "
            "--any-count goes on with what is there"
        )


def check_published(name: str, found: int, options: Options) -> None:
    """`check_count` by the table of published counts."""
    check_count(TABLE[name].what, found, TABLE[name].count, options)


def with_images(rows: Rows, folder: Path, options: Options) -> Rows:
    """The rows whose image is in the folder.

    Raises:
        PrepareError: images are missing; counts and names them (unless they are to be skipped, which is said aloud).
    """
    names = {row["image"] for row in rows if row.get("image")}
    missing = {name for name in names if not os.path.isfile(folder / name)}
    if not missing:
        return rows
    kept = [row for row in rows if row.get("image") not in missing]
    text = f"{len(missing)} of {len(names)} images are missing under {folder}: {some(sorted(missing))}"
    if not options.skip_missing_images:
        raise PrepareError(f"{text}; --skip-missing-images leaves out the {len(rows) - len(kept)} questions about them")
    if not kept:
        raise PrepareError(f"{text}; no question is left")
    print(f"{text}; {len(rows) - len(kept)} of {len(rows)} questions are left out")
    return kept


def sampled(rows: Rows, options: Options) -> Rows:
    """All rows, or as many as asked for, in their order."""
    if options.sample is None:
        return rows
    if not 0 < options.sample <= len(rows):
        raise PrepareError(f"--sample {options.sample}; there are {len(rows)} questions")
    chosen = sorted(random.Random(options.seed).sample(range(len(rows)), options.sample))
    return [rows[i] for i in chosen]


def sample_path(path: Path, options: Options) -> Path:
    """Where a sample goes: beside the whole file, as NAME.sample-N.jsonl."""
    return path if options.sample is None else path.with_name(f"{path.stem}.sample-{options.sample}{path.suffix}")


def set_up(
    out: Path,
    places: Mapping[str, Path],
    questions: str,
    rows: Rows,
    options: Options,
    key: Callable[[Mapping[str, Any]], Any] = lambda row: row["question_id"],
) -> None:
    """Places a download under `out` and writes its questions; what refuses does so before anything is changed.

    Args:
        places: files and folders of the download by the name that they get.
        questions: name of the question file.
        key: what tells a question in a row.

    Raises:
        PrepareError: a name is taken by something else, or a question file is there that asks other questions.
    """
    path = sample_path(out / questions, options)
    rows = sampled(rows, options)
    kept = _kept(path, rows, options, key)
    for name, source in places.items():
        check_place(source, out / name)
    for name, source in places.items():
        place(source, out / name)
    if not kept:
        write_questions(path, rows)


def write_questions(path: Path, rows: Rows) -> None:
    """Writes rows as JSON lines (or as one list, where the name ends in .json), and says so."""
    if path.suffix == ".json":
        write_json(path, rows)
    else:
        with written_whole(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(f"{len(rows)} questions written to {path}")


def _kept(path: Path, rows: Rows, options: Options, key: Callable[[Mapping[str, Any]], Any]) -> bool:
    """Whether a file stays that is there, say upstream's own: it asks the same questions, maybe in other words."""
    if not path.exists() or options.overwrite:
        return False
    there = _read(path)
    if there == rows:
        print(f"{path} is there, with these {len(rows)} questions")
        return True
    if _keys(there, key) != _keys(rows, key):
        raise PrepareError(
            f"{path} is there and asks {len(there)} questions, which are not the {len(rows)} of this download; "
            "--overwrite replaces it"
        )
    print(f"{path} is there and asks these {len(rows)} questions in its own words; kept")
    return True


def _keys(rows: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> list[str] | None:
    try:
        return sorted(str(key(row)) for row in rows)
    except (KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return read_json(path) if path.suffix == ".json" else read_jsonl(path)
    except ScoringError as error:
        raise PrepareError(f"{error}; --overwrite replaces it") from error


def unique(ids: Iterable[Any], what: str) -> None:
    """Raises `PrepareError` where an id comes twice."""
    seen: set[str] = set()
    for item in map(str, ids):
        if item in seen:
            raise PrepareError(f"{what} {item} comes twice")
        seen.add(item)
