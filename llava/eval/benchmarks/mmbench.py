"""MMBench, dev: vanilla and circular accuracy on this machine, letters read by one frozen rule; the server's sheet.

Circular: a question is right if it is right in every rotation of its options: rows of the dev files, or rounds of
`--all-rounds`. A question that was not asked in all of them is left out, with a warning. Vanilla: the first order only.
The server reads letters by other means, so its figures differ a little.
"""

import base64
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.answering.questions import Question
from llava.eval.benchmarks.base import Benchmark, Published
from llava.eval.benchmarks.parquet import Split, find_split, write_made
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, place
from llava.eval.scoring.letters import LETTER_SUFFIX, VERSION, read_letter
from llava.eval.scoring.mmbench_tsv import LETTERS, Row, is_none, options_of, question_of, read_tsv
from llava.eval.scoring.pairing import Answers, ScoringError, pair, read_answers
from llava.eval.scoring.report import Measure, Report, group
from llava.flags import Parser
from llava.images import decoded, open_image
from llava.names import count, some
from llava.outputs import check_files

FILE, LEGACY = "mmbench_dev_20230712.tsv", "MMBench_DEV_EN_legacy.tsv"
# Of FILE, and of LEGACY, which Bunny asks; each question has a row for each rotation of its options.
PUBLISHED = Published(4377, "rows", also=(4329,))
QUESTIONS = Published(1164, "questions")
COLUMNS = ("index", "question", "hint", *LETTERS, "answer", "category", "source", "l2-category", "comment", "split")
SUFFIXES = {"en": LETTER_SUFFIX, "cn": "请直接回答选项字母。"}
NOT_IN_SHEET = ("hint", "category", "source", "image", "comment", "l2-category")


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Checks mmbench_dev_20230712.tsv or Bunny's MMBench_DEV_EN_legacy.tsv; returns the number of rows.

    The first one is also made of the Hub's lmms-lab/MMBench_EN.
    """
    if options.sample is not None:
        raise PrepareError("mmbench is one file that upstream's scripts read as it is; --sample cannot cut it")
    if hub := find_split(raw, "dev"):
        check_count(PUBLISHED, len(hub), options)
        write_made(out / FILE, tsv_of(hub), options)
        raw = out
    source = find(raw, FILE, LEGACY)
    rows = read_tsv(source)
    check_count(PUBLISHED, len(rows), options)
    questions = {question_of(row["index"]) for row in rows}
    check_count(QUESTIONS, len(questions), options)
    for row in rows:
        open_image(decoded(row["image"]), f"question {row['index']}")
    target = out / source.name
    place(source, target)
    print(f"{target}: {len(questions)} questions in {len(rows)} rows, every image whole")
    if target.name != FILE:
        print(f"QUESTIONS={target.stem} bash scripts/eval/mmbench.sh CHECKPOINT asks them")
    return len(rows)


def tsv_of(split: Split) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, "image"], dialect="excel-tab")
    writer.writeheader()
    for row in split.rows(*COLUMNS, "image"):
        writer.writerow(row | {"image": base64.b64encode(row["image"]["bytes"]).decode()})
    return text.getvalue()


def read_mmbench_questions(
    path: str | Path, single_pred_prompt: bool = False, all_rounds: bool = False, lang: str = "en"
) -> list[Question]:
    """The questions of a MMBench TSV (upstream: llava/eval/model_vqa_mmbench.py).

    The saved prompt lacks `<image>` and the suffix.

    Args:
        single_pred_prompt: ask for the letter alone, in the language `lang`.
        all_rounds: ask each question once per rotation of its options (circular evaluation).
    """
    questions: list[Question] = []
    for row in read_tsv(path):
        index, options = row["index"], options_of(row)
        letters = list(LETTERS[: len(options)])
        stem = row["question"] if is_none(row.get("hint")) else f"{row['hint']}\n{row['question']}"
        for number in range(len(options) if all_rounds else 1):
            turned = options[number:] + options[:number]
            prompt = "\n".join([stem, *(f"{letter}. {text}" for letter, text in zip(letters, turned, strict=True))])
            extra = {"round_id": number, "options": turned, "option_char": letters[number:] + letters[:number]}
            text = f"{prompt}\n{SUFFIXES[lang]}" if single_pred_prompt else prompt
            image = f"index {index}"
            questions.append(Question(len(questions), int(index), text, image, prompt, extra, row["image"]))
    return questions


def score(answers: Answers, rows: Sequence[Row], asked: None = None, missing: str = "error") -> Report:
    """Vanilla and circular accuracy; the headline is circular if questions were asked in several orders.

    Args:
        answers: `question_id` is the row's index; `round_id`, `options` and `option_char` say how the options were
            rotated for the question.
        asked: not used; a part of the file is a file too.
    """
    by_index = {row["index"].strip(): row for row in rows}
    unlabelled = [index for index, row in by_index.items() if row.get("answer", "").strip() not in LETTERS]
    if unlabelled:
        unscored = "NO_SCORE=1 before mmbench.sh leaves it at the answers and the sheet for the server"
        without = count(len(unlabelled), "row has", "rows have")
        bare = f"{without} no answer letter (a test split has none): {some(unlabelled)}"
        raise ScoringError(f"{bare}; {unscored}")
    rounds = 1 + max((int(line.get("round_id") or 0) for line in answers), default=0)
    passes: dict[str, Row] = {
        f"{index}/{number}": row
        for index, row in by_index.items()
        for number in range(1 if rounds == 1 else len(options_of(row)))
    }
    paired = pair(answers, passes, pass_of, missing=missing)
    letters = [None if reply.text is None else letter_of(reply.line or {}, reply.truth) for reply in paired.replies]
    hits = [float(said == reply.truth["answer"].strip()) for said, reply in zip(letters, paired.replies, strict=True)]

    circles: dict[int, list[float]] = defaultdict(list)
    first, of_question = {}, {}
    for reply, hit in zip(paired.replies, hits, strict=True):
        question = question_of(reply.truth["index"])
        circles[question].append(hit)
        of_question.setdefault(question, reply.truth)
        if int(reply.truth["index"]) == question and reply.key.endswith("/0"):
            first[question] = hit
    passed = Counter(question_of(row["index"]) for row in passes.values())
    several = max(passed.values()) > 1
    # A question is whole with an answer to every order of its options, all of which the file (or --all-rounds) has.
    needed = {question: max(passed[question], len(options_of(row))) for question, row in of_question.items()}
    whole = {question: found for question, found in circles.items() if len(found) == needed[question]}
    by_metric = {"circular": {question: float(all(found)) for question, found in whole.items()} if several else {}}
    by_metric |= {"vanilla": first, "all_rows": {r.key: hit for r, hit in zip(paired.replies, hits, strict=True)}}
    metrics = {name: Measure.of(list(scores.values())) for name, scores in by_metric.items() if scores}
    per_question = {str(question): hit for question, hit in by_metric[next(iter(metrics))].items()}
    report = Report.of("mmbench", paired, hits, metrics, per_question=per_question)
    report.parse_failures = sum(said is None for said, r in zip(letters, paired.replies, strict=True) if r.line)
    report.groups = _categories(of_question, per_question)
    report.details = {"rule": VERSION, "questions": len(circles), "rows": len(hits)}
    if several:
        report.warnings += _gaps(circles, whole, passed, of_question)
    else:
        one_order = "each question was asked in one order only"
        report.warnings.append(f"{one_order}: vanilla accuracy, not comparable with circular")
    if len(first) < len(circles):
        lacking = len(circles) - len(first)
        report.warnings.append(f"{lacking} questions lack the first order of their options: not in vanilla")
    return report


def _gaps(
    circles: Mapping[int, Sequence[float]], whole: Collection[int], passed: Mapping[int, int], rows: Mapping[int, Row]
) -> list[str]:
    """Warnings about the questions that are not in circular."""
    lost = [question for question in circles if question not in whole]
    unasked = [question for question in lost if passed[question] < len(options_of(rows[question]))]
    warnings = []
    if unasked:
        lacking = f"{len(unasked)} of {len(circles)} questions, which are not in circular: {some(unasked)}"
        warnings.append(f"the file lacks rotations of {lacking}; is it whole?")
    if unanswered := len(lost) - len(unasked):
        warnings.append(f"{unanswered} questions lack the answer to an order of their options and are not in circular")
    if not whole:
        warnings.append("no question was asked in every order: vanilla accuracy, not comparable with circular")
    return warnings


def pass_of(line: Mapping[str, Any]) -> str:
    return f"{str(line['question_id']).strip()}/{int(line.get('round_id') or 0)}"


def letter_of(line: Mapping[str, Any], row: Row) -> str | None:
    """The letter, in the row's own order of options, that a reply chooses."""
    own = options_of(row)
    shown = line.get("options") or own
    chars = line.get("option_char") or LETTERS[: len(own)]
    if sorted(map(str, shown)) != sorted(own) or sorted(chars) != list(LETTERS[: len(own)]):
        raise ScoringError(
            f"the answer to {row['index']} was given to the options {shown}, the file has {own}; "
            "delete the answers to ask again"
        )
    letter = read_letter(line["text"], [str(option) for option in shown])
    return None if letter is None else chars[ord(letter) - ord("A")]


def _categories(rows: Mapping[int, Row], scores: Mapping[str, float]) -> dict[str, dict[str, Measure]]:
    groups = {}
    for column in ("category", "l2-category"):
        named = {str(q): row[column] for q, row in rows.items() if not is_none(row.get(column)) and str(q) in scores}
        if len(named) == len(scores):
            groups[column] = group([named[q] for q in scores], list(scores.values()))
    return groups


def sheet(rows: Sequence[Row], answers: Answers) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a submission: index, question, A to D, prediction, answer, and what else the file has."""
    # The server gets one reply per row: that to the options in the file's order.
    said = {str(line["question_id"]).strip(): line["text"] for line in answers if not int(line.get("round_id") or 0)}
    indexes = [row["index"].strip() for row in rows]
    absent, unknown = [i for i in indexes if i not in said], sorted(set(said) - set(indexes))
    if absent or unknown:
        unanswered = count(len(absent), "row of the file has", "rows of the file have")
        strange = count(len(unknown), "answer belongs", "answers belong")
        raise ScoringError(
            f"{unanswered} no answer: {some(absent) or 'none'}; {strange} to no row: {some(unknown) or 'none'}"
        )
    leading = ["index", "question", *LETTERS]
    kept = [name for name in rows[0] if name not in NOT_IN_SHEET and name not in leading and name != "answer"]
    columns = [*leading, "prediction", "answer", *kept]
    filled = [
        {name: "" if is_none(row.get(name)) else row[name] for name in columns} | {"prediction": said[index]}
        for index, row in zip(indexes, rows, strict=True)
    ]
    return columns, [[row[name] for name in columns] for row in filled]


def convert_main() -> None:
    # The library takes a while to load, and only this program writes a sheet.
    from llava.eval.scoring.sheets import SHEET, write_sheet

    parser = Parser(description="Write MMBench answers as the sheet that its server takes")
    parser.add_argument("--annotation-file", required=True)
    parser.add_argument("--result-dir", required=True)
    parser.add_argument("--upload-dir", required=True)
    parser.add_argument("--experiment", required=True, help="answers are RESULT_DIR/EXPERIMENT.jsonl")
    args = parser.parse_args()
    answers = read_answers(Path(args.result_dir) / f"{args.experiment}.jsonl")
    path = Path(args.upload_dir) / f"{args.experiment}.xlsx"
    check_files({"--upload-dir": (path, SHEET)})
    write_sheet(path, *sheet(read_tsv(args.annotation_file), answers))
    print(f"submission written to {path}")


def refuse_questions(path: str | None) -> None:
    if path:
        given = "--question-file: MMBench's TSV holds questions and answers"
        raise ScoringError(f"{given}; give a part of it as --annotation-file")


MMBENCH = Benchmark(
    name="mmbench",
    column="MMBench",
    questions=FILE,
    prepare=prepare,
    score=score,
    rule=VERSION,
    program="model_vqa_mmbench",
    answer_flags=("--single-pred-prompt",),
    answers="answers/{stem}/{name}.jsonl",
    score_flags=("--annotation-file", "{questions}"),
    convert=(
        *("llava.eval.convert_mmbench", "--annotation-file", "{questions}", "--result-dir", "{answers_folder}"),
        *("--upload-dir", "{data}/answers_upload/{stem}", "--experiment", "{name}"),
    ),
    published=PUBLISHED,
    annotation_help="the MMBench TSV with answers",
    read_truths=lambda args: read_tsv(args.annotation_file),
    read_asked=refuse_questions,
)
