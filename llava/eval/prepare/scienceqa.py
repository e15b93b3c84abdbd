"""ScienceQA: problems.json, pid_splits.json and the test images to upstream's question file (CQM-A)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmarks.published import SCIENCEQA_WITH_IMAGE
from llava.eval.eval_science_qa import OPTIONS, split_problems
from llava.eval.prepare.common import (
    Options,
    PrepareError,
    check_count,
    check_published,
    find,
    load,
    set_up,
    with_images,
)


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes llava_test_CQM-A.json: context, question and choices, answered by a letter."""
    problems_file = find(raw, "problems.json", "data/scienceqa/problems.json")
    splits_file = find(raw, "pid_splits.json", "data/scienceqa/pid_splits.json")
    images = find(raw, "images/test", "test")
    problems = split_problems(load(problems_file), load(splits_file), "test")
    try:
        rows = [row(pid, problem) for pid, problem in problems.items()]
    except (KeyError, TypeError, IndexError) as error:
        raise PrepareError(f"{problems_file} is not ScienceQA's file of problems ({error!r})") from error
    check_published("scienceqa", len(rows), options)
    check_count("questions with an image", sum("image" in r for r in rows), SCIENCEQA_WITH_IMAGE, options)
    rows = with_images(rows, images, options)
    set_up(
        out,
        {"problems.json": problems_file, "pid_splits.json": splits_file, "images/test": images},
        "llava_test_CQM-A.json",
        rows,
        options,
        key=lambda r: r["id"],
    )
    return len(rows)


def row(pid: str, problem: Mapping[str, Any]) -> dict[str, Any]:
    """One entry: `id`, `image` where there is one, `conversations`."""
    lines = [f"Context: {problem['hint']}"] if problem["hint"] else []
    lines.append(problem["question"])
    lines += [f"{letter}. {choice}" for letter, choice in zip(OPTIONS, problem["choices"], strict=False)]
    text = "\n".join(lines)
    image = {}
    if problem["image"]:
        image = {"image": f"{pid}/{problem['image']}"}
        text = f"{DEFAULT_IMAGE_TOKEN}\n{text}"
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": OPTIONS[problem["answer"]]}]
    return {"id": pid, **image, "conversations": turns}
