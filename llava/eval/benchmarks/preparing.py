"""What all preparers share: they find and place files of a download, check counts and images, and write questions."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Options, Published
from llava.eval.scoring.pairing import ScoringError, read_json, read_jsonl
from llava.files import write_json, written_whole
from llava.images import missing_images
from llava.names import agree, count, some
from llava.outputs import FileKind, check_files

SHORT = "Answer the question using a single word or phrase."
Row = dict[str, Any]
Rows = list[Row]


class PrepareError(ScoringError):
    """A download that is not whole, or not the benchmark's."""


def find(raw: Path, *candidates: str) -> Path:
    """The first of several places in a download that exists."""
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
    """Links a file or folder of the download under the name that the scripts use, if it has another."""
    check_place(source, target)
    if target.exists() and target.samefile(source):
        return
    if target.is_symlink():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve(), target_is_directory=source.is_dir())


def check_count(published: Published, found: int, options: Options) -> None:
    """Raises `PrepareError` if a count is not the published one and counts are checked."""
    if options.check_counts and found not in published:
        counts = f"{found:,} {published.what}; published are {published}"
        raise PrepareError(f"{counts}. Is the download complete, and of this version? --any-count accepts what it has")


def question(question_id: Any, image: str, text: str, category: str = "default") -> Row:
    """A line of upstream's question files."""
    return {"question_id": question_id, "image": image, "text": text, "category": category}


def with_images(rows: Rows, folder: Path, options: Options) -> Rows:
    """The rows whose image is in the folder; missing images are an error, or printed if they are to be skipped."""
    names = {row["image"] for row in rows if row.get("image")}
    missing = set(missing_images(names, folder))
    if not missing:
        return rows
    kept = [row for row in rows if row.get("image") not in missing]
    of = f"{len(missing)} of {count(len(names), 'image')} {agree(len(missing), 'is', 'are')}"
    text, left_out = f"{of} missing under {folder}: {some(sorted(missing))}", len(rows) - len(kept)
    if not options.skip_missing_images:
        raise PrepareError(f"{text}; --skip-missing-images leaves out {count(left_out, 'question')} about them")
    if not kept:
        raise PrepareError(f"{text}; no question is left")
    print(f"{text}; {left_out} of {count(len(rows), 'question')} {agree(left_out, 'is', 'are')} left out")
    return kept


def set_up(
    out: Path,
    places: Mapping[str, Path],
    questions: str,
    rows: Rows,
    options: Options,
    images: Path | None = None,
    key: Callable[[Mapping[str, Any]], Any] = lambda row: row["question_id"],
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Links a download's files under `out` and writes its questions; an error comes before any change.

    Args:
        others: further JSON objects to write, by the name of their file.
        places: files and folders of the download by the name that they get.
        key: what identifies the question in a row.

    Returns:
        How many questions the download has; a sample has fewer.
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
    others = others or {}
    # An earlier file begins with the same key.
    kinds = {name: FileKind(f"the {name} of this benchmark", keys=frozenset(list(others[name])[:1])) for name in others}
    check_files({f"--out: {name}": (out / name, kind) for name, kind in kinds.items()})
    for step in (check_place, place):
        for name, source in places.items():
            step(source, out / name)
    for name, content in others.items():
        write_json(out / name, content)
    if kept:
        return asked
    if path.suffix == ".json":
        write_json(path, rows)
    else:
        with written_whole(path) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{count(len(rows), 'question')} written to {path}")
    return asked


def _kept(path: Path, rows: Rows, options: Options, key: Callable[[Mapping[str, Any]], Any]) -> bool:
    """Whether an existing file stays, such as upstream's own: it asks the same questions, maybe in other words."""
    if not path.exists():
        return False
    try:
        found = read_json(path) if path.suffix == ".json" else read_jsonl(path)
    except ScoringError as error:
        if options.overwrite:
            return False
        raise PrepareError(f"{error}; --overwrite replaces it") from error
    if found and _keys(found, key) is None:
        raise PrepareError(f"{path} exists and is not a question file of this benchmark; move it away")
    if options.overwrite:
        return False
    if found == rows:
        print(f"{path} exists, with {count(len(rows), 'question')}, the same ones")
        return True
    if _keys(found, key) != _keys(rows, key):
        others = f"{len(found)} questions, which are not the {len(rows)} of this download"
        raise PrepareError(f"{path} exists and asks {others}; --overwrite replaces it")
    print(f"{path} exists and asks these {len(rows)} questions in its own words; kept")
    return True


def _keys(rows: Rows, key: Callable[[Mapping[str, Any]], Any]) -> list[str] | None:
    try:
        return sorted(str(key(row)) for row in rows)
    except (KeyError, TypeError, ValueError):
        return None
