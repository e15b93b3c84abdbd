import json
import sys

import openpyxl
import pytest

from llava.eval.benchmarks import mmbench
from llava.eval.benchmarks.base import Published
from llava.eval.benchmarks.mmbench import MMBENCH, convert_main, prepare, read_mmbench_questions, score, sheet
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.mmbench_tsv import options_of, read_tsv
from llava.eval.scoring.pairing import ScoringError
from llava.images import BrokenImageError, decoded, open_image
from tests.made_benchmarks import MAKERS
from tests.made_mmbench import picture, rotations, row, write_tsv

ROWS = [*rotations(241, "B"), *rotations(242, "A", ("yes", "no")), *rotations(243, "C", ("1", "2", "3"))]


def said(rows, text=None):
    return [{"question_id": int(r["index"]), "round_id": 0, "text": text or r["answer"]} for r in rows]


def test_all_right():
    report = score(said(ROWS), ROWS)
    assert {name: (m.value, m.samples) for name, m in report.metrics.items()} == {
        "circular": (1, 3),
        "vanilla": (1, 3),
        "all_rows": (1, 9),
    }
    assert report.metric == "circular"
    assert report.details == {"rule": "letters-3", "questions": 3, "rows": 9}


def test_by_hand():
    answers = said(ROWS)
    # 241: one rotation wrong. 242: the reply of the first order cannot be read. 243: right throughout.
    answers[2]["text"] = "A"
    answers[4]["text"] = "B or A"
    report = score(answers, ROWS)
    assert ROWS[2]["answer"] != "A"
    assert report.metrics["circular"].value == pytest.approx(1 / 3)
    assert report.metrics["vanilla"].value == pytest.approx(2 / 3)
    assert report.metrics["all_rows"].value == pytest.approx(7 / 9)
    assert report.per_question == {"241": 0, "242": 0, "243": 1}
    assert (report.parse_failures, report.answers) == (1, 9)
    assert report.groups["category"]["object_localization"].samples == 3
    assert score(answers[::-1], ROWS) == report


def test_always_the_same_letter_is_seen_through():
    """The reason for circular evaluation: a constant answer is right once in each circle."""
    report = score(said(ROWS, "A"), ROWS)
    assert report.metrics["circular"].value == 0
    assert report.metrics["all_rows"].value == pytest.approx(3 / 9)


def test_texts_of_options_count():
    answers = said(ROWS[:4])
    for answer, line in zip(answers, ROWS[:4], strict=True):
        answer["text"] = f"It is {line[line['answer']]}."
    assert score(answers, ROWS[:4]).headline.value == 1


def test_rounds_of_the_runner():
    """--all-rounds: options are shown turned, letters stay A, B, ..; option_char says which letter each had."""
    line = row(7, "B", ("red", "green", "blue"))
    answers = []
    for number in range(3):
        order = [(number + i) % 3 for i in range(3)]
        shown, chars = [("red", "green", "blue")[i] for i in order], ["ABC"[i] for i in order]
        answers.append(
            {
                "question_id": 7,
                "round_id": number,
                "options": shown,
                "option_char": chars,
                "text": "ABC"[order.index(1)],
            }
        )
    report = score(answers, [line])
    assert (report.metric, report.headline.value, report.metrics["vanilla"].samples) == ("circular", 1, 1)
    answers[1]["text"] = answers[0]["text"]
    assert score(answers, [line]).headline.value == 0
    with pytest.raises(ScoringError, match="not answered: 7/2"):
        score(answers[:2], [line])


def test_one_order_is_no_circle():
    report = score(said(ROWS[:1]), ROWS[:1])
    assert report.metric == "vanilla"
    assert "not comparable with circular" in report.warnings[0]


def test_a_circle_with_a_gap_is_left_out_and_said():
    report = score(said(ROWS[1:]), ROWS, missing="skip")
    assert report.metrics["circular"].samples == 2
    assert "1 of 9 questions has no answer" in report.warnings[0]
    assert "1 questions lack the answer to an order" in report.warnings[1]
    assert "1 questions lack the first order" in report.warnings[2]
    assert report.metrics["vanilla"].samples == 2


def test_a_question_without_all_its_rotations_is_not_in_circular():
    """A file cut off between two rows: of 243 one row is left, of 241 two; answered right, they are no circles."""
    rows = [*ROWS[:2], *ROWS[4:7]]
    report = score(said(rows), rows)
    assert report.metrics["circular"].samples == 1
    assert report.per_question == {"242": 1}
    assert report.metrics["vanilla"].samples == 3
    (warning,) = report.warnings
    assert warning.startswith("the file lacks rotations of 2 of 3 questions, which are not in circular: 241, 243")


def test_without_one_whole_circle_there_is_no_circular():
    rows = [*ROWS[:2], *ROWS[6:8]]
    report = score(said(rows), rows)
    assert report.metric == "vanilla"
    assert "lacks rotations of 2 of 2" in report.warnings[0]
    assert "no question was asked in every order" in report.warnings[1]


def test_all_rounds_make_the_rotations_that_a_file_lacks():
    answers = [{"question_id": 242, "round_id": 0, "text": "A"}]
    answers.append(
        {"question_id": 242, "round_id": 1, "options": ["no", "yes"], "option_char": ["B", "A"], "text": "B"}
    )
    report = score(answers, [ROWS[4]])
    assert (report.metric, report.headline.value, report.warnings) == ("circular", 1, [])


@pytest.mark.parametrize(
    ("answers", "rows", "words"),
    [
        (said(ROWS[:-1]), ROWS, r"not answered: 2000243/0"),
        (said(ROWS), [*ROWS[:-1], ROWS[-1] | {"answer": ""}], "1 row has no answer letter .* the server"),
        (said([row(999, "A")]), ROWS[:1], "not among the annotations: 999/0"),
        ([{"question_id": 241, "text": "A", "options": ["x", "y"]}], ROWS[:1], "was given to the options"),
    ],
)
def test_what_does_not_belong_together(answers, rows, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, rows)


def test_reading(tmp_path):
    odd = row(1, "A", ("a\ttab", 'a "quote"', "two\nlines", "nan"), hint="nan", question="Wo?\r\nDa!")
    rows = read_tsv(write_tsv(tmp_path / "a.tsv", [odd, *ROWS]))
    assert rows[0] == odd
    assert options_of(rows[0]) == ["a\ttab", 'a "quote"', "two\nlines"]
    assert open_image(decoded(rows[1]["image"])).size == (12, 9)
    # VLMEvalKit's files refer to the image of another row.
    same = [ROWS[0], ROWS[1] | {"image": "241"}]
    assert read_tsv(write_tsv(tmp_path / "b.tsv", same))[1]["image"] == ROWS[0]["image"]


def test_the_runner_and_the_scorer_see_the_same_options(tmp_path):
    words = ["N/A", "none", "NaN", "", "nothing", "NULL", "-", "Na", "None"]
    rows = [row(i, "A", ("x", "y", word, "z"), hint=word) for i, word in enumerate(words)]
    path = write_tsv(tmp_path / "a.tsv", rows)
    asked = read_mmbench_questions(path)
    assert [q.extra["options"] for q in asked] == [options_of(line) for line in read_tsv(path)]
    assert [len(q.extra["options"]) for q in asked] == [2, 2, 2, 2, 4, 2, 4, 4, 2]


def test_a_quote_that_is_not_doubled_is_read_as_pandas_reads_it(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [row(1, "A", question="PLACE")])
    path.write_text(path.read_text().replace("PLACE", '"Yes" is said, 5" long'))
    assert read_tsv(path)[0]["question"] == 'Yes is said, 5" long'


def test_a_file_cut_off_anywhere_is_an_error(tmp_path):
    """Of every 37 bytes one place: a whole file less its end never passes for a whole one, unless a row ends there."""
    whole = write_tsv(tmp_path / "whole.tsv", ROWS[:3]).read_bytes()
    for size in range(10, len(whole), 37):
        (tmp_path / "cut.tsv").write_bytes(whole[:size])
        try:
            rows = read_tsv(tmp_path / "cut.tsv")
        except ScoringError:
            continue
        # What is left is whole rows, at most the last cell of the last one shortened.
        assert [r["image"] for r in rows] == [r["image"] for r in ROWS[: len(rows)]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(1, "A", image=picture(1)[:81])], r"1 image cells hold no whole image: line 2 \(index 1"),
        ([row(1, "A") | {"index": "one"}], "'one' is not a number"),
        ([row(1, "A"), row(1, "B")], "1 indexes twice"),
        ([row(1, "A", ("only",))], "fewer than two options"),
        ([], "no questions"),
    ],
)
def test_bad_rows(tmp_path, rows, words):
    with pytest.raises(ScoringError, match=words):
        read_tsv(write_tsv(tmp_path / "a.tsv", rows))


def test_another_file(tmp_path):
    with pytest.raises(ScoringError, match=r"no column question, A, B, image; is it an MMBench TSV"):
        read_tsv(write_tsv(tmp_path / "a.tsv", ROWS, ["index", "answer"]))
    with pytest.raises(ScoringError, match="does not exist"):
        read_tsv(tmp_path / "no.tsv")
    (tmp_path / "a.json").write_text(json.dumps({"data": "x" * 5000}))
    with pytest.raises(ScoringError, match="no column index, question") as caught:
        read_tsv(tmp_path / "a.json")
    assert len(str(caught.value)) < 400


def test_an_image_that_is_none(tmp_path):
    import base64

    broken = row(5, "A", image=base64.b64encode(b"not an image" * 20).decode())
    with pytest.raises(BrokenImageError, match="image of question 5 cannot be opened"):
        open_image(decoded(broken["image"]), "question 5")


def test_submission(tmp_path, monkeypatch, capsys):
    rows = [ROWS[0], ROWS[4]]
    write_tsv(tmp_path / "dev.tsv", rows)
    (tmp_path / "answers").mkdir()
    lines = [{"question_id": 241, "round_id": 0, "text": "=1+1\x07 \ud800"}, {"question_id": 242, "text": "A"}]
    lines.append({"question_id": 242, "round_id": 1, "text": "B"})
    (tmp_path / "answers/run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = f"--annotation-file {tmp_path}/dev.tsv --result-dir {tmp_path}/answers --upload-dir {tmp_path}/up"
    monkeypatch.setattr(sys, "argv", ["x", *flags.split(), "--experiment", "run"])
    convert_main()
    cells = list(openpyxl.load_workbook(tmp_path / "up/run.xlsx").active.iter_rows())
    table = [[cell.value for cell in line] for line in cells]
    assert table[0] == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert table[1] == [
        241,
        "What is shown in 241?",
        "a car",
        "a bus",
        "a boat",
        "a bicycle",
        "=1+1 \ufffd",
        "B",
        "dev",
    ]
    assert cells[1][6].data_type == "s", "a reply is no formula"
    assert table[2] == [242, "What is shown in 242?", "yes", "no", None, None, "A", "A", "dev"]
    assert "run.xlsx" in capsys.readouterr().out


def test_a_test_split_gets_an_empty_answer_column(tmp_path):
    rows = [{k: v for k, v in ROWS[0].items() if k != "answer"}]
    columns, filled = sheet(rows, said([ROWS[0]], "B"))
    assert columns[6:8] == ["prediction", "answer"]
    assert filled[0][6:8] == ["B", ""]


def test_an_incomplete_submission_is_refused():
    with pytest.raises(ScoringError, match=r"1 row of the file has no answer: 1000241; 1 answer belongs to no row: 9"):
        sheet(ROWS[:2], [*said(ROWS[:1]), {"question_id": 9, "text": ""}])


def test_command_line(tmp_path, monkeypatch, capsys):
    write_tsv(tmp_path / "mmbench_dev_20230712.tsv", ROWS)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said(ROWS)))
    flags = f"--annotation-file {tmp_path}/mmbench_dev_20230712.tsv --result-file {tmp_path}/a.jsonl"
    monkeypatch.setattr(sys, "argv", ["x", *flags.split()])
    MMBENCH.score_main()
    assert "* circular" in capsys.readouterr().out
    data = json.loads((tmp_path / "a.score.json").read_text())
    assert (data["value"], data["details"]["file"]) == (1, "mmbench_dev_20230712.tsv")
    monkeypatch.setattr(sys, "argv", ["x", *flags.split(), "--question-file", "part.jsonl"])
    with pytest.raises(ScoringError, match="--question-file: MMBench's TSV holds"):
        MMBENCH.score_main()


def test_the_rows_and_questions_of_the_published_file(tmp_path, monkeypatch):
    MAKERS["mmbench"](tmp_path / "raw")
    file = tmp_path / "raw/mmbench_dev_20230712.tsv"
    monkeypatch.setattr(mmbench, "PUBLISHED", Published(9, "rows"))
    with pytest.raises(PrepareError, match="3 questions; published are 1,164"):
        prepare(tmp_path / "raw", tmp_path / "out", Options())
    monkeypatch.setattr(mmbench, "QUESTIONS", Published(3, "questions"))
    assert prepare(tmp_path / "raw", tmp_path / "out", Options()) == 9
    file.write_text("\n".join(file.read_text().split("\n")[:-2]) + "\n")
    with pytest.raises(PrepareError, match="8 rows; published are 9"):
        prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False)) == 8
