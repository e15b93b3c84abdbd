"""Writes MMBench answers as the sheet that its server takes: upstream's convert_mmbench_for_submission, same flags."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, WriteOnlyCell

from llava.eval.answering.errors import some
from llava.eval.benchmarks.mmbench import LETTERS, Row, is_none, read_tsv
from llava.eval.scoring.pairing import ScoringError, read_answers, run_scorer
from llava.files import written_whole

DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")
PREDICTION_COLUMN = 6
# The longest text that a cell takes.
_CELL = 32767


def sheet(rows: Sequence[Row], answers: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a submission: index, question, A to D, prediction, answer, and what else the file has.

    Raises:
        ScoringError: a row without an answer of the model, or an answer to no row.
    """
    # The server gets one reply a row: that to the options in the file's order.
    said = {str(line["question_id"]).strip(): line["text"] for line in answers if not int(line.get("round_id") or 0)}
    indexes = [row["index"].strip() for row in rows]
    absent, unknown = [i for i in indexes if i not in said], sorted(set(said) - set(indexes))
    if absent or unknown:
        raise ScoringError(
            f"{len(absent)} rows of the file have no answer: {some(absent) or 'none'}; "
            f"{len(unknown)} answers belong to no row: {some(unknown) or 'none'}"
        )
    leading = ["index", "question", *LETTERS]
    kept = [name for name in rows[0] if name not in DROPPED and name not in leading and name != "answer"]
    columns = [*leading, "prediction", "answer", *kept]
    filled = [
        {name: "" if is_none(row.get(name)) else row[name] for name in columns} | {"prediction": said[index]}
        for index, row in zip(indexes, rows, strict=True)
    ]
    return columns, [[row[name] for name in columns] for row in filled]


def write_sheet(path: str | Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """An .xlsx file with texts as texts: a reply that begins with "=" is no formula, and control marks are left out."""
    book = Workbook(write_only=True)
    page = book.create_sheet("Sheet1")
    page.append(list(columns))
    for row in rows:
        page.append([int(row[0]), *(_text_cell(page, text) for text in row[1:])])
    with written_whole(path) as aside:
        book.save(aside)


def _text_cell(page: Any, text: str) -> WriteOnlyCell:
    # Lone surrogates cannot be written in UTF-8.
    plain = re.sub(r"[\ud800-\udfff]", "\ufffd", ILLEGAL_CHARACTERS_RE.sub("", text))[:_CELL]
    cell = WriteOnlyCell(page, value=plain or None)
    if plain:
        cell.data_type = "s"
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description="Write MMBench answers as the sheet that its server takes")
    parser.add_argument("--annotation-file", required=True)
    parser.add_argument("--result-dir", required=True)
    parser.add_argument("--upload-dir", required=True)
    parser.add_argument("--experiment", required=True, help="answers are RESULT_DIR/EXPERIMENT.jsonl")
    args = parser.parse_args()
    answers = read_answers(Path(args.result_dir) / f"{args.experiment}.jsonl")
    path = Path(args.upload_dir) / f"{args.experiment}.xlsx"
    write_sheet(path, *sheet(read_tsv(args.annotation_file), answers))
    print(f"submission written to {path}")


if __name__ == "__main__":
    run_scorer(main)
