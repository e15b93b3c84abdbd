import json
import sys

import pytest

from llava.eval.benchmarks.preparing import Options
from llava.eval.benchmarks.textvqa import TEXTVQA, prepare, prompt_processor, score
from llava.eval.scoring.pairing import ScoringError
from tests.made_benchmarks import SAMPLES, rows_of

SHORT = "Answer the question using a single word or phrase."


def prompt(question, tokens="A, B"):
    middle = f"Reference OCR token: {tokens}\n" if tokens is not None else ""
    return f"{question}\n{middle}{SHORT}"


def entry(number, image, question, answers):
    return {"question_id": number, "image_id": image, "question": question, "answers": answers}


ANNOTATIONS = [
    entry(1, "img1", "What Brand?", ["nokia"] * 10),
    entry(2, "img1", "How many?", ["two"] * 2 + ["3"] * 8),
    entry(3, "img2", "What brand?", ["dakota"] * 3 + ["digital"] * 7),
]


def said(image, question, text, **more):
    return {"question_id": image, "prompt": prompt(question), "text": text} | more


ANSWERS = [
    said("img2", "What brand?", "Dakota."),
    said("img1", "How many?", "2"),
    said("img1", "What Brand?", "a Nokia"),
]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (prompt("What Is it?"), "what is it?"),
        (prompt("What is it?", None), "what is it?"),
        (f"Reference OCR token: A, B\nWhat is it?\n{SHORT}", "what is it?"),
        ("OCR tokens: A, B. Question: What is it? Short answer:", "what is it?"),
        ("<image>\n" + prompt("What is it?"), "what is it?"),
        # A token with a line separator that is no newline.
        (prompt("What is it?", "A\u2028B"), "what is it?"),
    ],
)
def test_prompts(text, question):
    assert prompt_processor(text) == question


@pytest.mark.parametrize("text", ["What is it?", "a\nb\nc", "a\nReference OCR token: b\nc\nd", "OCR tokens: A"])
def test_a_prompt_without_its_question(text):
    with pytest.raises(ScoringError, match="no question is found"):
        prompt_processor(text)


def test_by_hand():
    report = score(ANSWERS, ANNOTATIONS)
    assert report.per_question == pytest.approx({"1": 1.0, "2": 0.6, "3": 0.9})
    assert report.headline.value == pytest.approx(2.5 / 3)
    assert (report.headline.samples, report.parse_failures) == (3, 0)
    assert report.headline.low <= report.headline.value <= report.headline.high
    assert report.details["prompts"] == "with OCR tokens"


def test_order_of_answers_does_not_matter():
    assert score(ANSWERS[::-1], ANNOTATIONS) == score(ANSWERS, ANNOTATIONS)


def test_equal_questions_about_one_image_are_two():
    twice = [*ANNOTATIONS, entry(4, "img1", "how many?", ["7"] * 10)]
    report = score([*ANSWERS, said("img1", "How many?", "7")], twice)
    assert report.per_question["4"] == 1
    with pytest.raises(ScoringError, match="not among the annotations: img1"):
        score([*ANSWERS, said("img1", "How many?", "7")], ANNOTATIONS)


def test_subset():
    questions = [{"question_id": "img2", "text": prompt("What brand?")}]
    report = score(ANSWERS[:1], ANNOTATIONS, questions)
    assert report.headline.value == pytest.approx(0.9)
    assert report.warnings == ["a subset: 1 of the 3 annotated questions was asked"]


@pytest.mark.parametrize(
    ("answers", "annotations", "words"),
    [
        (ANSWERS[:2], ANNOTATIONS, "1 question id is not answered: 1"),
        ([*ANSWERS, said("img9", "Who?", "x")], ANNOTATIONS, "not among the annotations: img9"),
        (ANSWERS, [ANNOTATIONS[0] | {"answers": ["x"] * 9}, *ANNOTATIONS[1:]], "annotation 1: .* exactly 10"),
        (ANSWERS, [{k: v for k, v in a.items() if k != "answers"} for a in ANNOTATIONS], "test split holds none"),
        (ANSWERS, [{"id": 1}], "without image_id and question"),
        ([{"question_id": "img1", "text": "x"}], ANNOTATIONS, "has no prompt"),
    ],
)
def test_bad_input(answers, annotations, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, annotations)


def test_two_ways_of_asking_are_two_scores():
    bare = [line | {"prompt": prompt(line["prompt"].split("\n")[0], None)} for line in ANSWERS]
    assert score(bare, ANNOTATIONS).details["prompts"] == "without OCR tokens"
    with pytest.raises(ScoringError, match="2 of 3 prompts hold OCR tokens"):
        score([bare[0], *ANSWERS[1:]], ANNOTATIONS)


def test_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "val.json").write_text(json.dumps({"data": ANNOTATIONS}))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    flags = ["--annotation-file", str(tmp_path / "val.json")]
    monkeypatch.setattr(sys, "argv", ["eval_textvqa", *flags, "--result-file", str(tmp_path / "a.jsonl")])
    TEXTVQA.score_main()
    assert "Samples: 3\nAccuracy: 83.33%" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.score.json").read_text())["value"] == pytest.approx(2.5 / 3)
    monkeypatch.setattr(sys, "argv", ["eval_textvqa", *flags, "--result-dir", str(tmp_path)])
    TEXTVQA.score_main()
    assert "Accuracy: 83.33%" in capsys.readouterr().out
    (tmp_path / "val.json").write_text("[]")
    with pytest.raises(ScoringError, match=r"expected TextVQA_0\.5\.1_val\.json"):
        TEXTVQA.score_main()


def test_textvqas_real_questions_become_llavas_line_for_line(tmp_path):
    """From LLaVA's 40 lines back to the official files, and forth again."""
    raw, theirs = tmp_path / "raw", rows_of(SAMPLES / "textvqa_val_v051_ocr.head.jsonl")
    (raw / "train_images").mkdir(parents=True)
    entries, tokens = [], {}
    for number, row in enumerate(theirs):
        question, line, _ = row["text"].split("\n")
        entries.append({"question_id": number, "image_id": row["question_id"], "question": question, "answers": []})
        tokens[row["question_id"]] = line.removeprefix("Reference OCR token: ").split(", ")
        (raw / "train_images" / row["image"]).touch()
    (raw / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": entries}))
    ocr = [{"image_id": k, "ocr_tokens": v} for k, v in tokens.items()]
    (raw / "TextVQA_Rosetta_OCR_v0.2_val.json").write_text(json.dumps({"data": ocr}))
    assert prepare(raw, tmp_path / "out", Options(check_counts=False)) == 40
    assert rows_of(tmp_path / "out/llava_textvqa_val_v051_ocr.jsonl") == theirs
    options = Options(check_counts=False, ocr=False)
    assert prepare(raw, tmp_path / "out", options) == 40
    bare = rows_of(tmp_path / "out/llava_textvqa_val_v051.jsonl")
    assert bare[0]["text"].count("\n") == 1
