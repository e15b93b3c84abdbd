"""Turns GQA answers into the official script's predictions: upstream's convert_gqa_for_eval, with its flags."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.eval_gqa import normalise
from llava.eval.scoring.pairing import read_answers, run_scorer
from llava.files import write_json


def convert(answers: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"questionId": str(line["question_id"]), "prediction": normalise(line["text"])} for line in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn GQA answers into predictions for the official script")
    parser.add_argument("--src", required=True, help="answers in JSON lines")
    parser.add_argument("--dst", required=True, help="list of questionId and prediction")
    args = parser.parse_args()
    write_json(args.dst, convert(read_answers(args.src)))


if __name__ == "__main__":
    run_scorer(main)
