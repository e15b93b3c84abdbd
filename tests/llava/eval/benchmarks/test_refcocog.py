import json
import pickle
import random

import pytest

from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.benchmarks.refcocog import REFCOCOG, load_plain_pickle, prepare, score
from llava.eval.scoring.boxes import parse_box, to_pixels
from llava.eval.scoring.pairing import ScoringError
from tests.made_benchmarks import MAKERS, rows_of


def to_shares(box, width, height, frame):
    """The inverse of `to_pixels` for boxes inside the image: what a perfect model would write."""
    side = max(width, height)
    left, top, wide, high = 0, 0, width, height
    if frame == "padded":
        left, top, wide, high = (side - width) // 2, (side - height) // 2, side, side
    return (box[0] + left) / wide, (box[1] + top) / high, (box[2] + left) / wide, (box[3] + top) / high


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("It is at [0,0,1,1.0].", (0, 0, 1, 1)),
        ("[ .5 , 0.5 ,1. , 1e0 ]", (0.5, 0.5, 1, 1)),
        # The first box counts.
        ("[0.1, 0.1, 0.2, 0.2] or [0.3, 0.3, 0.4, 0.4]", (0.1, 0.1, 0.2, 0.2)),
        ("[1, 2, 3]", None),
        ("[1, 2, 3, 4, 5]", None),
        ("(0.1, 0.2, 0.3, 0.4)", None),
        ("0.1, 0.2, 0.3, 0.4", None),
        ("[a, b, c, d]", None),
        ("", None),
    ],
)
def test_parsing(text, box):
    assert parse_box(text) == box


@pytest.mark.parametrize(
    ("box", "size", "frame", "pixels"),
    [
        # A wide image: 100 x 50 in a square of 100, 25 rows above it.
        ((0.1, 0.25, 0.5, 0.75), (100, 50), "padded", (10, 0, 50, 50)),
        ((0.1, 0.25, 0.5, 0.75), (100, 50), "original", (10, 12.5, 50, 37.5)),
        # A tall one, with an odd margin: (60 - 35) // 2 = 12 columns on the left.
        ((0.5, 0.5, 1.0, 1.0), (35, 60), "padded", (18, 30, 35, 60)),
        # Corners are put in order, what reaches beyond is clipped.
        ((0.9, 0.8, 0.1, -0.2), (10, 10), "padded", (1, 0, 9, 8)),
        ((0, 0, 9e999, 7), (10, 20), "original", (0, 0, 10, 20)),
    ],
)
def test_frames_by_hand(box, size, frame, pixels):
    assert to_pixels(box, *size, frame) == pytest.approx(pixels)


def test_padding_is_llavas():
    """Seen on an image: expand2square puts a marked rectangle where the padded frame says."""
    from PIL import Image

    from llava.mm_utils import expand2square

    for size in ((31, 50), (50, 31), (40, 40)):
        image = Image.new("RGB", size, "black")
        image.paste("white", (5, 7, 20, 24))
        square = expand2square(image, (0, 0, 0))
        x1, y1, x2, y2 = square.convert("L").point(lambda p: 255 * (p > 128)).getbbox()
        side = square.width
        assert to_pixels((x1 / side, y1 / side, x2 / side, y2 / side), *size, "padded") == pytest.approx((5, 7, 20, 24))


def test_shares_are_the_inverse():
    draw = random.Random(0)
    for _ in range(300):
        width, height = draw.randrange(1, 700), draw.randrange(1, 700)
        xs = sorted(draw.uniform(0, width) for _ in range(2))
        ys = sorted(draw.uniform(0, height) for _ in range(2))
        box = (xs[0], ys[0], xs[1], ys[1])
        for frame in ("padded", "original"):
            assert to_pixels(to_shares(box, width, height, frame), width, height, frame) == pytest.approx(box)


def entry(number, bbox, size=(100, 50)):
    return {"question_id": number, "bbox": list(bbox), "width": size[0], "height": size[1], "image": "x.jpg"}


ANNOTATIONS = {
    "split": "test",
    "split_by": "umd",
    # xywh in pixels.
    "data": [
        entry(1, (10, 0, 40, 50)),
        entry(2, (0, 0, 100, 50)),
        entry(3, (20, 10, 10, 10)),
        entry(4, (0, 0, 50, 50)),
    ],
}
ANSWERS = [
    {"question_id": 1, "text": "[0.10, 0.25, 0.50, 0.75]"},
    {"question_id": 2, "text": "[0.00, 0.25, 0.50, 0.75]"},
    {"question_id": 3, "text": "on the left"},
    {"question_id": 4, "text": "[0, 0, 10, 10]"},
]


def test_by_hand():
    report = score(ANSWERS, ANNOTATIONS)
    # Equal; exactly one half, which is a hit; no box; clipped to the whole image, again one half.
    assert report.per_question == pytest.approx({"1": 1, "2": 0.5, "3": 0, "4": 0.5})
    assert report.metrics["mean_iou"].value == pytest.approx(0.5)
    assert report.metrics["accuracy_at_0.5"].value == pytest.approx(0.75)
    original = score(ANSWERS, ANNOTATIONS, "original")
    for name in ("mean_iou", "accuracy_at_0.5"):
        assert report.metrics[f"{name} (original frame)"] == original.metrics[name]
        assert original.metrics[f"{name} (padded frame)"] == report.metrics[name]
    assert report.parse_failures == 1
    assert "1 boxes reach beyond 0..1" in report.warnings[0]
    assert report.details == {
        "frame": {"boxes_are_shares_of": "padded"},
        "boxes_beyond_the_image": 1,
        "split": "test",
        "split_by": "umd",
    }
    assert score(ANSWERS, ANNOTATIONS, "original").per_question["1"] == pytest.approx(0.5)
    assert score(ANSWERS[::-1], ANNOTATIONS, "padded") == report


@pytest.mark.parametrize("frame", ["padded", "original"])
def test_the_true_box_scores_one(frame):
    answers = []
    for e in ANNOTATIONS["data"]:
        x, y, w, h = e["bbox"]
        shares = to_shares((x, y, x + w, y + h), e["width"], e["height"], frame)
        answers.append({"question_id": e["question_id"], "text": str(list(shares))})
    report = score(answers, ANNOTATIONS, frame)
    assert report.metrics["mean_iou"].value == pytest.approx(1)
    assert report.metrics["accuracy_at_0.5"].value == 1


def perfect_in(frame, entries):
    """What a model writes that knows every box, two decimals as in LLaVA's training data."""
    lines = []
    for e in entries:
        x, y, w, h = e["bbox"]
        shares = to_shares((x, y, x + w, y + h), e["width"], e["height"], frame)
        lines.append({"question_id": e["question_id"], "text": str([round(share, 2) for share in shares])})
    return lines


@pytest.mark.parametrize(("wrote", "read"), [("padded", "original"), ("original", "padded")])
def test_a_perfect_model_read_in_the_wrong_frame_is_noticed(wrote, read):
    draw = random.Random(1)
    entries = [
        entry(i, (draw.randrange(100), draw.randrange(80), draw.randrange(90, 300), draw.randrange(90, 300)), size)
        for i, size in enumerate([(640, 480), (480, 640), (640, 427), (500, 375)] * 30)
    ]
    answers = perfect_in(wrote, entries)
    right, wrong = (score(answers, {"data": entries}, frame) for frame in (wrote, read))
    assert right.headline.value > 0.96
    assert not right.warnings
    assert wrong.headline.value < 0.85
    (warning,) = wrong.warnings
    gain = 100 * (right.headline.value - wrong.headline.value)
    assert warning.startswith(
        f"the mean IoU is {gain:.2f} points higher as shares of the {wrote} image; --frame {wrote}"
    )


def test_padded_is_the_frame():
    assert REFCOCOG.score_parser().parse_args(["--result-file", "a", "--annotation-file", "b"]).frame == "padded"


@pytest.mark.parametrize(
    ("answers", "annotations", "words"),
    [
        (ANSWERS[1:], ANNOTATIONS, "not answered: 1"),
        (ANSWERS, {"data": [{"question_id": 1, "bbox": [1, 2, 3]}]}, "prepare refcocog"),
        (ANSWERS, [], "prepare refcocog"),
    ],
)
def test_bad_input(answers, annotations, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, annotations, "padded")


def test_command_line(tmp_path, capsys):
    (tmp_path / "ann.json").write_text(json.dumps(ANNOTATIONS))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    flags = ["--annotation-file", f"{tmp_path}/ann.json", "--result-file", f"{tmp_path}/a.jsonl"]
    for more, frame, other in (([], "padded", "original"), (["--frame", "original"], "original", "padded")):
        REFCOCOG.score_main([*flags, *more])
        report = json.loads((tmp_path / "a.score.json").read_text())
        assert report["details"]["frame"] == {"boxes_are_shares_of": frame}
        assert f"mean_iou ({other} frame)" in report["metrics"]
    assert "* mean_iou" in capsys.readouterr().out


def test_refcocog_keeps_what_the_scorer_needs(tmp_path):
    MAKERS["refcocog"](tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
    data = json.loads((tmp_path / "out/annotations.json").read_text())
    assert (data["split"], data["split_by"], len(data["data"])) == ("test", "umd", 6)
    assert data["data"][2] == {
        "question_id": 10,
        "ref_id": 1,
        "sentence": "the red one 0",
        "image": "COCO_train2014_000000000001.jpg",
        "width": 40,
        "height": 20,
        "bbox": [2.0, 4.0, 10.0, 8.0],
    }
    asked = rows_of(tmp_path / "out/questions.jsonl")[2]
    assert asked["text"].endswith("this sentence describes: the red one 0.")
    options = Options(check_counts=False, template="Where is {}?", overwrite=True)
    prepare(tmp_path / "raw", tmp_path / "out", options)
    assert rows_of(tmp_path / "out/questions.jsonl")[2]["text"] == "Where is the red one 0?"
    with pytest.raises(PrepareError, match=r"no \{\} for the expression"):
        prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, template="Where?"))


def test_a_pickle_that_names_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "bad.p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(PrepareError, match=r"names builtins\.print, which is not plain data"):
        load_plain_pickle(tmp_path / "bad.p")
    # A text of Python 2, protocol 0, with a byte beyond ASCII in UTF-8.
    (tmp_path / "old.p").write_bytes(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.")
    assert load_plain_pickle(tmp_path / "old.p") == ["café"]
