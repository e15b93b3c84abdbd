"""What all preparers share: they find and place files of a download, check counts and images, and write questions."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Options, Published
from llava.eval.scoring.pairing import ScoringError, read_json, read_jsonl
from llava.files import write_json, written_whole
from llava.images import missing_images
from llava.names import some

SHORT = "Answer the question using a single word or phrase."
Row = dict[str, Any]
Rows = list[Row]


class PrepareError(ScoringError):
    """A download that is not whole, or not the benchmark's."""


def find(raw: Path, *candidates: str) -> Path:
    """The first of several places in a download that exists.

    Raises:
        PrepareError: none exists; names them, and archives that were not unpacked.
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
    """Raises `PrepareError` if something that is not a link has the name `target` and is not `source`."""
    if target.exists() and not target.is_symlink() and not target.samefile(source):
        raise PrepareError(f"{target} exists and is not {source}; move it away, or give its folder as --raw")


def place(source: Path, target: Path) -> None:
    """Gives a file or folder of the download the name that the scripts use: a link, if it is elsewhere.

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


def check_count(published: Published, found: int, options: Options) -> None:
    """Raises `PrepareError` if a count is not the published one (unless counts are not to be checked)."""
    if options.check_counts and found != published.count:
        raise PrepareError(
            f"{found} {published.what}; published are {published.count}. Is the download complete, and of this "
            "version? --any-count accepts what it has"
        )


def question(question_id: Any, image: str, text: str, category: str = "default") -> Row:
    """A line of a question file, as upstream writes it."""
    return {"question_id": question_id, "image": image, "text": text, "category": category}


def with_images(rows: Rows, folder: Path, options: Options) -> Rows:
    """The rows whose image is in the folder.

    Raises:
        PrepareError: images are missing; counts and names them (unless they are to be skipped; then it prints them).
    """
    names = {row["image"] for row in rows if row.get("image")}
    missing = set(missing_images(names, folder))
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


def set_up(
    out: Path,
    places: Mapping[str, Path],
    questions: str,
    rows: Rows,
    options: Options,
    images: Path | None = None,
    key: Callable[[Mapping[str, Any]], Any] = lambda row: row["question_id"],
) -> int:
    """Links a download's files under `out` and writes its questions; whatever is refused, is before any change.

    Args:
        places: files and folders of the download by the name that they get.
        questions: name of the question file.
        images: folder of the images; rows without their image stop it, or are left out.
        key: what identifies the question in a row.

    Returns:
        How many questions the download has; a sample has fewer.

    Raises:
        PrepareError: a name is taken by something else, or a question file exists that asks other questions.
    """
    if images is not None:
        rows = with_images(rows, images, options)
    asked, path = len(rows), out / questions
    if options.sample is not None:
        if not 0 < options.sample <= len(rows):
            raise PrepareError(f"--sample {options.sample}; there are {len(rows)} questions")
        chosen = sorted(random.Random(options.seed).sample(range(len(rows)), options.sample))
        rows = [rows[i] for i in chosen]
        path = path.with_name(f"{path.stem}.sample-{options.sample}{path.suffix}")
    kept = _kept(path, rows, options, key)
    for name, source in places.items():
        check_place(source, out / name)
    for name, source in places.items():
        place(source, out / name)
    if not kept:
        _write(path, rows)
    return asked


def _write(path: Path, rows: Rows) -> None:
    """Writes rows as JSON lines, or as one list if the name ends in .json."""
    if path.suffix == ".json":
        write_json(path, rows)
    else:
        with written_whole(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(f"{len(rows)} questions written to {path}")


def _kept(path: Path, rows: Rows, options: Options, key: Callable[[Mapping[str, Any]], Any]) -> bool:
    """Whether an existing file stays, such as upstream's own: it asks the same questions, maybe in other words."""
    if not path.exists() or options.overwrite:
        return False
    try:
        found = read_json(path) if path.suffix == ".json" else read_jsonl(path)
    except ScoringError as error:
        raise PrepareError(f"{error}; --overwrite replaces it") from error
    if found == rows:
        print(f"{path} exists, with these {len(rows)} questions")
        return True
    if _keys(found, key) != _keys(rows, key):
        raise PrepareError(
            f"{path} exists and asks {len(found)} questions, which are not the {len(rows)} of this download; "
            "--overwrite replaces it"
        )
    print(f"{path} exists and asks these {len(rows)} questions in its own words; kept")
    return True


def _keys(rows: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> list[str] | None:
    try:
        return sorted(str(key(row)) for row in rows)
    except (KeyError, TypeError, ValueError):
        return None
