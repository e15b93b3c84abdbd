"""Our checkpoints in lmms-eval: a local task of images, against the program that answers question files."""

import contextlib
import io
import json
import textwrap
from types import SimpleNamespace

import pytest
from PIL import Image

pytest.importorskip("lmms_eval", reason="needs lmms-eval: pip install -c constraints.txt -e '.[harness-images]'")

from llava.eval import harness
from llava.eval.answering.errors import EvaluationError
from llava.eval.harness.images import LlavaVR

UTILS = """
    from PIL import Image

    def visuals(doc):
        return [Image.open(path) for path in doc["images"]]

    def text(doc, settings=None):
        return doc["question"]

    def results(doc, found):
        return {"right": float(found[0] == doc["answer"])}
"""
TASK = {
    "task": "local_images",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_target": "answer",
    "generation_kwargs": {"max_new_tokens": 10, "temperature": 0, "top_p": None, "num_beams": 1, "do_sample": False},
    "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 0.0},
}


@pytest.fixture(scope="module")
def docs(tiny):
    """12 questions, most of them about one of 4 images, some without."""
    return [
        {
            "images": [str(tiny.images / f"{i % 4}.png")] if i % 5 else [],
            "question": f"Where is the red line?{' please' * (i % 3)}",
            "answer": "left",
        }
        for i in range(12)
    ]


@pytest.fixture
def replies(tiny_llava, docs, tmp_path, program):
    """The texts of `model_vqa_loader` for the same questions."""
    rows = [
        {"question_id": i, "text": doc["question"]} | ({"image": doc["images"][0]} if doc["images"] else {})
        for i, doc in enumerate(docs)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"model-path": tiny_llava, "question-file": tmp_path / "q.jsonl", "answers-file": tmp_path / "a.jsonl"}
    flags |= {"temperature": 0, "max_new_tokens": 10, "dtype": "fp32", "device": "cpu", "num-workers": 0}
    program("llava.eval.model_vqa_loader", *(word for name, value in flags.items() for word in (f"--{name}", value)))
    return [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_answers_of_a_local_task(batch_size, tiny_llava, docs, replies, tmp_path, monkeypatch):
    """lmms-eval's evaluator asks for a task file's questions, and gets the answers of our own program."""
    import datasets.config
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    docs = [doc | {"answer": reply} for doc, reply in zip(docs, replies, strict=True)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "utils.py").write_text(textwrap.dedent(UTILS))
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}}}
    functions = {"doc_to_text": "text", "doc_to_visual": "visuals", "process_results": "results"}
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in task.items())
    text += "".join(f"{name}: !function utils.{function}\n" for name, function in functions.items())
    (tmp_path / "local_images.yaml").write_text(text)
    model = LlavaVR(str(tiny_llava), device="cpu", dtype="float32", batch_size=batch_size)
    runs = []
    vision = type(model.model.get_model())
    monkeypatch.setattr(vision, "encode_images", counted(vision.encode_images, runs))
    with contextlib.redirect_stderr(io.StringIO()):
        found = simple_evaluate(
            model=model,
            tasks=["local_images"],
            task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
            cli_args=SimpleNamespace(process_with_media=True),
            bootstrap_iters=0,
        )
    samples = sorted(found["samples"]["local_images"], key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == replies
    assert found["results"]["local_images"]["right,none"] == 1
    if batch_size == "auto":
        assert sum(runs) == 4, "the tower reads each image once"


def counted(encode, runs):
    def encode_images(self, images):
        runs.append(len(images))
        return encode(self, images)

    return encode_images


def test_what_it_cannot_answer(tiny, tiny_llava, docs):
    model = LlavaVR(str(tiny_llava), device="cpu", dtype="float32")
    model.task_dict = {"task": {"test": [{"visuals": [1, 2]}]}}
    asked = SimpleNamespace(args=("Which?", {}, lambda doc: doc["visuals"], 0, "task", "test"))
    with pytest.raises(EvaluationError, match=r"task task, document 0 shows 2 visuals \(int, int\)"):
        model.generate_until([asked])
    with pytest.raises(EvaluationError, match="these are by log-likelihood"):
        model.loglikelihood([asked])
    with pytest.raises(EvaluationError, match=f"{tiny.llm} has no vision tower"):
        LlavaVR(str(tiny.llm), device="cpu")
    with pytest.raises(EvaluationError, match=r"max_length=40 is for lm-eval: .*leave it out"):
        LlavaVR(str(tiny_llava), device="cpu", max_length=40)


def test_images_that_differ_in_their_palette(tiny_llava):
    """Their bytes are the same. A grey image is shown as its RGB."""
    images = [Image.new("P", (28, 28)) for _ in range(2)]
    for image, colour in zip(images, ([255, 0, 0], [0, 0, 255]), strict=True):
        image.putpalette(colour * 256)
    images += [Image.new(mode, (28, 28), colour) for mode, colour in (("L", 9), ("RGB", (9, 9, 9)))]
    model = LlavaVR(str(tiny_llava), device="cpu", dtype="float32")
    model.task_dict = {"task": {"test": images}}
    questions = [model._question(i, "Which?", {}, lambda doc: [doc], i, "task", "test") for i in range(4)]
    assert [model.answerer.picture(question).getpixel((0, 0)) for question in questions] == [
        *((255, 0, 0), (0, 0, 255)),
        *((9, 9, 9), (9, 9, 9)),
    ]
    assert questions[2].image == questions[3].image
    assert set(model.answerer.picture_sizes(questions).values()) == {(28, 28)}


def test_lmms_eval_finds_it():
    """By its own registry, as it reads an installed package's entry point."""
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.register_manifest(harness.manifest())
    assert registry.get_model_class("llava_vr", force_simple=True) is LlavaVR
