"""The mixture of tasks, with fewer pictures than the real one."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from llava.data.check import cheap_problems
from llava.data.records import open_records
from llava.eval.benchmarks.mixture import score
from llava.eval.scoring.report import read_report
from playground.embedded.mixture import scenes, write
from playground.embedded.mixture.pictures import Picture, content_hash, encode, parts
from tests.made_benchmarks import rows_of

SIZES = dict(zip(write.SIZES, [(30, 20, 12), (40, 30, 30), (40, 30, 30), (60, 40, 40)], strict=True))
TASKS = {"easy", "digit", "count", "place", "read"}


@pytest.fixture(scope="module")
def made(made_once):
    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write, "SIZES", SIZES)
            write.prepare_training(folder / "data", seed=0)
            write.prepare_evaluation(folder / "eval", seed=0)

    return made_once("mixture", make)


def pixels(path):
    return content_hash(path.read_bytes())


def test_training_and_test_share_no_picture(made):
    train, test = ([pixels(file) for file in (made / "data/images" / part).iterdir()] for part in ("train", "test"))
    assert len(train) == sum(size[0] for size in SIZES.values())
    assert len(test) == sum(size[2] for size in SIZES.values())
    assert len({*train, *test}) == len(train) + len(test)


def test_a_copy_under_another_name_is_left_out():
    colours = ["red", "blue", "red", "teal"]
    drawn = [Picture("x", encode(Image.new("RGB", (8, 8), colour)), colour, ()) for colour in colours]
    again = Picture("x", drawn[0].png + b"more", "red", ())
    found = parts([again, *drawn], drawn[1:2], (9, 9))
    assert [p.caption for p in found.test.values()] == ["blue"]
    assert [p.caption for p in found.train.values()] == ["red", "teal"]


def test_training_data_is_llava_json(made):
    for name, number in (("pretrain.json", 170), ("train.json", 120 + write.TEXTS)):
        records = open_records(made / "data" / name)
        assert len(records) == number
        assert not cheap_problems(records, made / "data/images").by_kind
    rows = json.loads((made / "data/train.json").read_text())
    with_picture, text = rows[:120], rows[120:]
    assert all("image" in row and row["conversations"][0]["value"].startswith("<image>\n") for row in with_picture)
    assert not any("image" in row or "<image>" in json.dumps(row) for row in text)
    captions = {row["image"] for row in json.loads((made / "data/pretrain.json").read_text())}
    assert {row["image"] for row in with_picture} <= captions
    assert (made / "data/README.md").is_file()


def test_the_right_answers_score_one_and_blind_ones_little(made):
    questions, truths = rows_of(made / "eval/questions.jsonl"), json.loads((made / "eval/annotations.json").read_text())
    assert [row["question_id"] for row in questions] == list(truths)
    assert Counter(row["category"] for row in questions).keys() == TASKS
    assert all((made / "data/images" / row["image"]).is_file() for row in questions)
    report = score([{"question_id": key, "text": t["answer"]} for key, t in truths.items()], truths)
    assert report.headline.value == pytest.approx(1)
    blind = read_report(made / "eval/blind.json")
    assert blind.parts == report.parts
    assert blind.headline.value < 0.6


def test_wrong_images_have_another_answer(made):
    right, wrong = (rows_of(made / f"eval/{name}.jsonl") for name in ("questions", "questions_wrong_image"))
    assert len(right) == len(wrong)
    truths = json.loads((made / "eval/annotations.json").read_text())
    digit_of = {row["image"]: truths[row["question_id"]]["answer"] for row in right if row["category"] == "digit"}
    for a, b in zip(right, wrong, strict=True):
        assert {key: a[key] for key in ("question_id", "text", "category")} == {
            key: b[key] for key in ("question_id", "text", "category")
        }
        assert a["image"] != b["image"]
        assert a["image"].split("-")[0] == b["image"].split("-")[0]
        if a["category"] == "digit":
            assert digit_of[a["image"]] != digit_of[b["image"]]


def test_the_same_seed_gives_the_same_files(made, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SIZES", SIZES)
    write.prepare_evaluation(tmp_path / "again", seed=0)
    write.prepare_evaluation(tmp_path / "other", seed=1)
    files = ("questions.jsonl", "questions_wrong_image.jsonl", "annotations.json", "blind.json")
    first, again, other = (
        [(folder / name).read_text() for name in files]
        for folder in (made / "eval", tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_scenes_say_what_they_show():
    rng = random.Random(3)
    for _ in range(20):
        shapes = scenes.draw_shapes(rng)
        image = scenes.paint(shapes, (255, 255, 255))
        assert len({shape.colour for shape in shapes}) == len(shapes) in (2, 3, 4)
        for shape in shapes:
            left, top, right, bottom = (round(128 * x / scenes.GRID) for x in shape.corners)
            inside = image.crop((left, top, right, bottom))
            # The shape reaches every side of its box, and its colour is in the middle.
            assert inside.getpixel((inside.width // 2, inside.height // 2)) == Image.new(
                "RGB", (1, 1), shape.colour
            ).getpixel((0, 0))
        everything = Image.new("RGB", image.size, (255, 255, 255))
        assert image.size == everything.size == (128, 128)


def test_questions_about_a_scene():
    rng = random.Random(3)
    for train in (True, False):
        found = scenes.picture(rng, train)
        shapes = [part.split(" ", 2) for part in found.caption.split(", ")]
        shown = {f"{row} {column}": shape for row, column, shape in shapes}
        asked = {a.question: a.answer for a in found.asked}
        assert asked.pop("How many shapes are there?") == str(len(shown))
        assert len(asked) == (2 if train else 1)
        assert asked.items() <= {f"What is at the {place}?": shape for place, shape in shown.items()}.items()


def test_words_are_inside_their_pictures():
    from playground.embedded.mixture import words

    rng = random.Random(0)
    for word in words.WORDS:
        image = words.paint(word, rng).convert("L")
        ink = image.point(lambda value: 255 * (value < 150))
        left, top, right, bottom = ink.getbbox()
        assert right - left > 40
        assert top > 0
        assert bottom < 128
        assert len(word) == 3


def test_a_missing_wheel_is_said_before_anything_is_written(tmp_path, monkeypatch):
    from playground.embedded import wheels
    from playground.embedded.prepare import prepare

    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"the package sklearn is missing: pip install --no-deps -r"):
        prepare(tmp_path / "new", seed=0, mixture=True)
    assert not (tmp_path / "new").exists()
