"""BIG-bench-hard: zero-shot, strict and flexible, per task and over all. The forms of answers: scoring/bbh_forms.py."""

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import LIMIT_PER_TASK, Benchmark, Published, Setting
from llava.eval.benchmarks.preparing import Options, PrepareError, set_up
from llava.eval.scoring.bbh_forms import TASKS, flexible_match, strict_match
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, pair, read_json
from llava.eval.scoring.report import Measure, Report, by_group, group, mean_of_group_means

ANNOTATIONS = "annotations.json"
PUBLISHED = Published(6511, "questions")
_TRUTH = itemgetter("task", "input", "target")


def prompt(question: str) -> str:
    """The paper's zero-shot prompt; the paper does not say in which place its instruction is."""
    return f"{question}\nPlease answer this question in a word or phrase."


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl (`question_id` "TASK/NUMBER", `text`, `category`) and annotations.json.

    `raw` is the folder of the task files, or the repository that holds it as `bbh/`.
    """
    folder = raw / "bbh" if (raw / "bbh").is_dir() else raw
    problems, rows, annotations = [], [], {}
    for task, (published, _) in TASKS.items():
        try:
            examples = read_task(folder / f"{task}.json")
        except ScoringError as error:
            problems.append(str(error))
            continue
        if options.check_counts and len(examples) != published:
            problems.append(f"{task}.json holds {len(examples)} questions; published are {published}")
        for i, example in enumerate(examples):
            name = f"{task}/{i}"
            rows.append({"question_id": name, "text": prompt(example["input"]), "category": task})
            annotations[name] = {"task": task, "input": example["input"], "target": example["target"]}
    if problems:
        raise PrepareError(f"BIG-bench-hard in {folder}: {'; '.join(problems)}")
    return set_up(out, {}, "questions.jsonl", rows, options, others={ANNOTATIONS: annotations})


def read_task(path: Path) -> list[dict[str, str]]:
    """The examples of a task file, each with `input` and `target`."""
    if not path.is_file():
        raise PrepareError(f"{path.name} is missing")
    with expecting(f"{path.name} is not a task file with examples of input and target"):
        examples = read_json(path)["examples"]
        if not examples or not all(isinstance(e["input"], str) and isinstance(e["target"], str) for e in examples):
            raise ValueError("an example without input or target")
    return examples


def score(answers: Answers, annotations: Mapping[str, Mapping[str, str]], last: bool = False, **pairing: Any) -> Report:
    """Accuracy of both rules: each question weighs the same, as published, or each task ("task_mean").

    Args:
        annotations: question id -> `task`, `input`, `target`, as `llava.eval.prepare` writes them.
        last: the last answer in a reply counts; the published rule takes the first.
    """
    with expecting("not the annotations.json that `python -m llava.eval.prepare bbh` writes"):
        unknown = sorted({task for task, _, _ in map(_TRUTH, annotations.values())} - set(TASKS))
    if unknown:
        raise ScoringError(f"unknown BIG-bench-hard tasks in the annotations: {', '.join(unknown)}")
    paired = pair(answers, annotations, **pairing)
    tasks, strict, flexible, failures = [], [], [], 0
    for reply in paired.replies:
        (task, question, target), text = _TRUTH(reply.truth), reply.text or ""
        right, parsed = flexible_match(task, question, text, target, last)
        tasks.append(task)
        strict.append(float(strict_match(text, target)))
        flexible.append(float(right))
        failures += not parsed
    rules = {"flexible": flexible, "strict": strict}
    metrics = {rule: Measure.of(scores) for rule, scores in rules.items()}
    metrics |= {f"{rule}_task_mean": mean_of_group_means(by_group(tasks, scores)) for rule, scores in rules.items()}
    report = Report.of("bbh", paired, flexible, metrics, answers=len(paired.replies), parse_failures=failures)
    report.groups = {f"{rule}, task": group(tasks, scores) for rule, scores in rules.items()}
    report.details = {"shots": 0, "flexible": f"the {'last' if last else 'first'} answer found in the reply"}
    if absent := sorted(set(TASKS) - set(tasks)):
        here = len(TASKS) - len(absent)
        report.warnings.append(f"{len(tasks)} questions of {here} of the 27 tasks; without {', '.join(absent)}")
    return report


BBH = Benchmark(
    name="bbh",
    column="BIG-bench-hard",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    visual=False,
    text=True,
    answer_flags=("--max_new_tokens", "128"),
    answers="answers/{stem}/{name}.jsonl",
    settings=(
        LIMIT_PER_TASK,
        Setting("LAST_MATCH", "the last answer in a reply counts, not the first", "", "--last-match", switch=True),
    ),
    published=PUBLISHED,
    annotation_help="annotations.json, as llava.eval.prepare writes it",
    add_score_flags=lambda parser: parser.add_argument(
        "--last-match", action="store_true", help="the last answer in a reply counts, not the first"
    ),
    options=lambda args: {"last": args.last_match},
)
