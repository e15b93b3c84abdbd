import base64
import io
import json

import pytest
from PIL import Image

from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.questions import (
    Question,
    check_images,
    chunk,
    open_question_image,
    read_questions,
    unusable_images,
)
from llava.eval.benchmarks.mmbench import read_mmbench_questions
from llava.eval.benchmarks.scienceqa import read_science_questions
from llava.images import BrokenImageError

LETTER = "Answer with the option's letter from the given choices directly."


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_broken_lines_are_all_named_by_number(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question_id": 1, "text": "a", "image": "no.png"}\n\n{"question_id": 2}\n{"question_id": 3, "te\n[1]\n'
        '{"question_id": 4, "text": 5}\n'
    )
    with pytest.raises(EvaluationError, match=r"line 3 is not a question with question_id and text; 4 such lines") as e:
        read_questions(path)
    for line in (
        "line 3 (KeyError",
        "line 4 (not JSON: Unterminated string starting at at column 20",
        "line 5 (",
        "line 6 (TypeError",
    ):
        assert line in str(e.value)


def test_image_tokens_in_a_text(tmp_path):
    """As in LLaVA's training data: upstream's programs put <image> before the text, and fail on a second one."""
    rows = [{"question_id": i, "text": text, "image": "0.png"} for i, text in enumerate(("<image>\nWhere?", "Where?"))]
    first, second = read_questions(write_lines(tmp_path / "q.jsonl", *rows))
    assert (first.text, first.prompt, second.text) == ("Where?", "<image>\nWhere?", "Where?")
    path = write_lines(tmp_path / "q.jsonl", rows[1], {"question_id": 2, "text": "<image>\nWhere?"})
    with pytest.raises(EvaluationError, match=r"q\.jsonl: line 2 .*1 such line: .*has <image>, but it names no image"):
        read_questions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no questions"), (b"\n \n", "holds no questions"), (b"\xff\xfe{", "not UTF-8 text")],
)
def test_files_that_hold_no_questions(tmp_path, content, message):
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        read_questions(tmp_path / "q.jsonl")


def test_a_file_that_is_not_there(tmp_path):
    for read in (read_questions, read_science_questions, read_mmbench_questions):
        with pytest.raises(EvaluationError, match="does not exist"):
            read(tmp_path / "no.jsonl")


def test_line_separators_of_unicode_are_part_of_a_text(tmp_path):
    path = write_lines(
        tmp_path / "q.jsonl", {"question_id": 1, "text": "a\u2028b\x85c"}, {"question_id": 1, "text": "d"}
    )
    assert [q.text for q in read_questions(path)] == ["a\u2028b\x85c", "d"]


def test_missing_images_are_counted_and_named(tmp_path):
    rows = [{"question_id": i, "text": "a", "image": f"{i % 7}.png"} for i in range(14)]
    with pytest.raises(
        EvaluationError, match=r"7 images are missing under .*: 0\.png, .*, \.\.\. \(14 of 14 questions"
    ):
        check_images(read_questions(write_lines(tmp_path / "q.jsonl", *rows)), tmp_path)


def test_broken_images_are_counted_with_the_missing_ones(tmp_path, tiny):
    """Their headers are read, which is cheap; of inline images too."""
    whole = (tiny.images / "1.png").read_bytes()
    for name, content in (("0.png", b""), ("1.png", whole), ("2.png", b"<html>"), ("4.png", whole[:-30])):
        (tmp_path / name).write_bytes(content)
    questions = [Question(i, i, "a", f"{i % 5}.png") for i in range(10)] + [Question(10, 10, "a", None)]
    inline = Question(11, 11, "a", "index 11", image_data="AAAA")
    found = unusable_images([*questions, inline], tmp_path)
    assert list(found) == ["0.png", "2.png", "3.png", "index 11"]
    assert (found["0.png"], found["3.png"]) == ("0 bytes", "missing")
    with pytest.raises(
        EvaluationError,
        match=r"^1 image is missing under .*: 3\.png; 2 images cannot be opened: 0\.png \(0 bytes\), 2\.png \(cannot "
        r"identify .*\) \(6 of 11 questions need them\); --skip-missing-images goes on without these",
    ):
        check_images(questions, tmp_path)


@pytest.mark.parametrize("chunks", [1, 3, 8, 12])
def test_chunks_are_complete_and_exist(chunks):
    """Upstream's slices give fewer than asked (10 questions in 8 chunks make 5), and the last processes crash."""
    rows = [Question(i, i, "a", None) for i in range(10)]
    dealt = [chunk(rows, chunks, i) for i in range(chunks)]
    assert sorted(q.index for part in dealt for q in part) == list(range(10))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    with pytest.raises(EvaluationError, match="does not exist"):
        chunk(rows, chunks, chunks)


def test_science_questions_as_upstream_asks_them(tmp_path):
    human = "<image>\nContext: c\nWhich?\nA. x\nB. y"
    rows = [
        {"id": "5", "image": "5/image.png", "conversations": [{"from": "human", "value": human}]},
        {"id": "7", "conversations": [{"from": "human", "value": "Which?\nA. x\nB. y "}]},
    ]
    path = tmp_path / "q.json"
    path.write_text(json.dumps(rows))
    seen, text = read_science_questions(path, single_pred_prompt=True)
    assert (seen.question_id, seen.image) == ("5", "5/image.png")
    assert seen.text == f"Context: c\nWhich?\nA. x\nB. y\n{LETTER}"
    assert seen.prompt == f"<image>\nContext: c\nWhich?\nA. x\nB. y\n{LETTER}"
    assert (text.image, text.prompt) == (None, f"Which?\nA. x\nB. y\n{LETTER}")
    assert read_science_questions(path)[1].prompt == "Which?\nA. x\nB. y"
    path.write_text(json.dumps([*rows, {"id": "9"}]))
    with pytest.raises(EvaluationError, match=r"1 entry is not a question.*entry 3"):
        read_science_questions(path)
    path.write_text(json.dumps(rows)[:-9])
    with pytest.raises(EvaluationError, match=r"not valid JSON.*is it whole"):
        read_science_questions(path)


def picture(kind, colour=(200, 10, 10)):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


COLUMNS = "index\tquestion\thint\tA\tB\tC\tD\tanswer\timage\n"


def test_mmbench_questions_as_upstream_asks_them(tmp_path):
    path, image = tmp_path / "m.tsv", picture("JPEG")
    path.write_text(
        COLUMNS
        + f'3\t"Which ""one""?"\tnan\tred\tblue\tgreen\t\tA\t{image}\n'
        + "1000003\tWhich?\tLook.\tblue\tred\tnan\tnone\tB\t3\n"
    )
    first, second = read_mmbench_questions(path, single_pred_prompt=True)
    assert (first.question_id, first.extra) == (
        3,
        {"round_id": 0, "options": ["red", "blue", "green"], "option_char": ["A", "B", "C"]},
    )
    assert first.text == f'Which "one"?\nA. red\nB. blue\nC. green\n{LETTER}'
    assert first.prompt == 'Which "one"?\nA. red\nB. blue\nC. green'
    assert second.prompt == "Look.\nWhich?\nA. blue\nB. red"
    assert second.image_data == image, "a short cell is the index of the row that has the image"
    assert open_question_image(first, tmp_path).size == (40, 30)
    assert read_mmbench_questions(path, True, lang="cn")[0].text.endswith("\n请直接回答选项字母。")
    rounds = read_mmbench_questions(path, all_rounds=True)
    assert [q.index for q in rounds] == list(range(5))
    assert [q.extra["round_id"] for q in rounds] == [0, 1, 2, 0, 1]
    assert rounds[2].extra == {"round_id": 2, "options": ["green", "red", "blue"], "option_char": ["C", "A", "B"]}
    assert rounds[2].text == 'Which "one"?\nA. green\nB. red\nC. blue'


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [30, 0.5, 0.9])
def test_a_cut_image_cell_is_named_by_line(tmp_path, kind, kept):
    path, image = tmp_path / "m.tsv", picture(kind)
    cut = image[: int(len(image) * kept) if kept < 1 else kept]
    path.write_text(COLUMNS + f"1\ta\t\tx\ty\t\t\tA\t{image}\n2\tb\t\tx\ty\t\t\tA\t{cut}\n")
    with pytest.raises(EvaluationError, match=r"1 image cells hold no whole image.*line 3 \(index 2"):
        read_mmbench_questions(path)


def test_a_cut_or_foreign_tsv(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_text(COLUMNS + f"1\ta\t\tx\ty\t\t\tA\t{picture('PNG')}\n2\tb\t\tx")
    with pytest.raises(EvaluationError, match=r"1 rows have not one cell for each column: line 3 \(4 of 9 cells\)"):
        read_mmbench_questions(path)
    path.write_text("index\tquestion\n1\ta\n")
    with pytest.raises(
        EvaluationError, match=r"has no column A, B, image; is it an MMBench TSV\? It has index, question"
    ):
        read_mmbench_questions(path)


def test_an_image_that_cannot_be_read_names_its_question(tmp_path):
    with pytest.raises(BrokenImageError, match="image of question 9"):
        open_question_image(Question(0, 9, "a", "x", image_data="AAAA"), tmp_path)
