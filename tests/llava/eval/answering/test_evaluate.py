"""The model_vqa programs from flags to answers file."""

import base64
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import TemplateError
from llava.eval.answering import arguments, program, runner
from llava.eval.answering.answerer import Generation
from llava.eval.answering.answers_file import AnswersFile, record_path
from llava.eval.answering.arguments import open_model
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import check_flags, question_parser
from llava.eval.answering.launch import launch
from llava.eval.answering.questions import read_questions
from llava.eval.answering.runner import evaluate
from llava.eval.answering.shards import part_path
from llava.eval.benchmarks.mmbench import read_mmbench_questions
from llava.eval.benchmarks.scienceqa import read_science_questions
from llava.journal import JournalError, journal_path
from llava.model.builder import load_checkpoint
from llava.model.multimodal_encoder.base import VisionTower
from tests.llava.eval.answering.test_loglikelihood import generate_texts


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flags(tiny, tiny_llava, tmp_path):
    def make(questions, *more, answers="a.jsonl"):
        return [
            *("--model-path", str(tiny_llava), "--image-folder", str(tiny.images), "--question-file", str(questions)),
            *("--answers-file", str(tmp_path / answers), "--conv-mode", "v1", "--temperature", "0"),
            *("--max_new_tokens", "6", "--device", "cpu", *more),
        ]

    return make


@pytest.fixture
def questions(tmp_path):
    def make(count=20, images=8, name="q.jsonl"):
        rows = [{"question_id": i, "text": f"Where is line {i}?"} for i in range(count)]
        for i, row in enumerate(rows):
            if images:
                row["image"] = f"{i % images}.png"
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return make


def parse(flags, *names):
    parser = question_parser("test", 128)
    for name in names:
        parser.add_argument(name, action="store_true")
    return parser.parse_args(flags)


def answer(flags):
    args = parse(flags)
    evaluate(args, open_model(args), read_questions(args.question_file))
    with open(args.answers_file) as file:
        return [json.loads(line) for line in file]


def test_a_finished_run_is_not_made_again(flags, questions, monkeypatch, capsys):
    first = answer(flags(questions()))
    monkeypatch.setattr(runner, "make_answerer", lambda *arguments: pytest.fail("the model was loaded again"))
    assert answer(flags(questions())) == first
    assert "answers these questions already, with the same settings" in capsys.readouterr().out


def test_other_settings_replace_a_finished_run(flags, questions):
    first = answer(flags(questions()))
    assert answer(flags(questions(), "--max_new_tokens", "2")) != first
    assert answer(flags(questions())) == first


def test_another_config_makes_answers_anew_and_takes_up_no_journal(flags, questions, tiny_llava, tmp_path, monkeypatch):
    """Weights as before, but another image_aspect_ratio in config.json."""
    model = shutil.copytree(tiny_llava, tmp_path / "model")
    mine = flags(questions())
    mine[1] = str(model)
    first = answer(mine)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"image_aspect_ratio": "square"}))
    assert answer(mine) != first
    with monkeypatch.context() as patch:
        patch.setattr(AnswersFile, "finish", lambda *arguments: None)
        args = parse([*mine, "--seed", "1"])
        evaluate(args, open_model(args), read_questions(args.question_file))
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(JournalError, match=r"begun with another model.* \(files: model/config\.json was "):
        answer([*mine, "--seed", "1"])


def test_missing_images_are_refused_or_left_out_and_recorded(flags, questions, tmp_path, monkeypatch, capsys):
    everything = answer(flags(questions(20, 8), answers="all.jsonl"))
    path = questions(20, 10)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "make_answerer", lambda *arguments: pytest.fail("weights were loaded first"))
        with pytest.raises(EvaluationError, match=r"2 images are missing .*8\.png, 9\.png \(4 of 20 questions need"):
            answer(flags(path))
    lines = answer(flags(path, "--skip-missing-images"))
    assert [line["question_id"] for line in lines] == [i for i in range(20) if i % 10 < 8]
    assert lines[:8] == everything[:8]
    assert "2 images are missing" in (out := capsys.readouterr().out)
    assert "16 answers are in" in out
    assert "4 questions were left out" in out
    record = json.loads(record_path(tmp_path / "a.jsonl").read_text())
    assert [(entry["index"], entry["image"]) for entry in record["skipped"]] == [
        (8, "8.png"),
        (9, "9.png"),
        (18, "8.png"),
        (19, "9.png"),
    ]
    args = parse(flags(path, "--skip-missing-images", "--image-folder", str(tmp_path)))
    with pytest.raises(EvaluationError, match="none of the 20 questions has its image"):
        evaluate(args, open_model(args), read_questions(path))


@pytest.fixture
def damaged(tiny, tmp_path):
    """The images, of which one is empty, and one is cut off further down than its header."""
    folder = shutil.copytree(tiny.images, tmp_path / "images")
    (folder / "2.png").write_bytes(b"")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:-400])
    return folder


@pytest.mark.parametrize("cached", [False, True])
def test_broken_images_are_left_out_as_missing_ones(flags, questions, damaged, tmp_path, monkeypatch, capsys, cached):
    everything = answer(flags(questions(), answers="all.jsonl"))
    mine = flags(questions(), "--image-folder", str(damaged), "--batch-size", "4")
    if cached:
        mine += ["--vision-feature-cache", str(tmp_path / "cache")]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "make_answerer", lambda *arguments: pytest.fail("weights were loaded first"))
        with pytest.raises(EvaluationError, match=r"^1 image cannot be opened: 2\.png \(0 bytes\) \(3 of 20 questions"):
            answer(mine)
    skipping = [*mine, "--skip-missing-images"]
    lines = answer(skipping)
    kept = [i for i in range(20) if i % 8 not in (2, 5)]
    assert [line["question_id"] for line in lines] == kept
    assert lines == [line for line in everything if line["question_id"] in kept]
    said = capsys.readouterr().out
    assert "1 image cannot be opened: 5.png (" in said
    assert "15 answers are in" in said
    assert "5 questions were left out" in said
    skipped = json.loads(record_path(tmp_path / "a.jsonl").read_text())["skipped"]
    assert [entry["index"] for entry in skipped] == [2, 5, 10, 13, 18]
    assert skipped[0]["why"] == "0 bytes" != skipped[1]["why"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "make_answerer", lambda *arguments: pytest.fail("a finished run was made again"))
        assert answer(skipping) == lines
    # A mended image is asked for again.
    shutil.copy(damaged / "1.png", damaged / "5.png")
    assert len(answer(skipping)) == 17


def test_an_image_that_turns_out_broken_ends_in_one_line(flags, questions, damaged, tiny):
    shutil.copy(tiny.images / "2.png", damaged / "2.png")
    command = [sys.executable, "-m", "llava.eval.model_vqa_loader", *flags(questions(), "--batch-size", "4")]
    result = subprocess.run([*command, "--image-folder", str(damaged)], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the image 5.png cannot be opened (")
    assert last.endswith("to leave its questions out; either way the same command goes on from here")
    assert "llava.data.check" not in result.stderr
    for image in damaged.iterdir():
        image.write_bytes((damaged / "5.png").read_bytes())
    with pytest.raises(EvaluationError, match=r"none of the questions has an image under .* that can be opened"):
        answer(flags(questions(), "--image-folder", str(damaged), "--skip-missing-images"))


def test_questions_of_text_leave_the_tower_unloaded(flags, questions, monkeypatch):
    monkeypatch.setattr(VisionTower, "load_model", lambda *a, **k: pytest.fail("the tower was loaded"))
    lines = answer(flags(questions(images=0)))
    assert len({line["text"] for line in lines}) > 3


def test_raw_prompts_and_stops(flags, questions, tiny_llava):
    path = questions(images=0)
    raw = [flag for flag in flags(path, "--raw-prompt") if flag not in ("--conv-mode", "v1")]
    lines = answer(raw)
    tokenizer, model, _, _ = load_checkpoint(open_checkpoint(tiny_llava), device="cpu", text_only=True)
    prompts = [line["prompt"] for line in lines]
    assert [line["text"] for line in lines] == generate_texts(model, tokenizer, prompts, Generation(6))
    stop = next(line["text"][2] for line in lines if len(line["text"]) > 4)
    raw[raw.index("--answers-file") + 1] += ".stop.jsonl"
    cut = answer([*raw, "--stop", stop])
    assert [line["text"] for line in cut] == [line["text"].split(stop)[0].strip() for line in lines]


def test_images_for_a_model_without_a_tower(tiny, flags, questions):
    blind = flags(questions())
    blind[1] = str(tiny.llm)
    with pytest.raises(EvaluationError, match="has no vision tower"):
        answer(blind)


def test_impossible_flags_are_all_named(flags, questions):
    args = parse(flags(questions(), "--top_p", "2", "--num_beams", "0", "--raw-prompt"))
    with pytest.raises(EvaluationError, match=r"--top_p 2\.0: .*; --num_beams 0: .*; --conv-mode v1: not together"):
        check_flags(args)
    with pytest.raises(SystemExit):
        parse(flags(questions(), "--batch-size", "0"))


def test_science_answers(flags, tmp_path):
    rows = [
        {"id": str(i), "conversations": [{"from": "human", "value": "<image>\nWhich?\nA. x" if i % 2 else "Which?"}]}
        | ({"image": f"{i}.png"} if i % 2 else {})
        for i in range(6)
    ]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    args = parse(flags(tmp_path / "s.json", "--single-pred-prompt"), "--single-pred-prompt")
    evaluate(args, open_model(args), read_science_questions(args.question_file, True))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert [line["question_id"] for line in lines] == list("012345")
    assert [line["prompt"].startswith("<image>\n") for line in lines] == [False, True] * 3


def test_mmbench_answers_with_all_rounds(flags, tiny, tmp_path):
    cells = [base64.b64encode((tiny.images / f"{i}.png").read_bytes()).decode() for i in range(3)]
    rows = [f"{i}\tWhich {i}?\t\tred\tblue\tgreen\t\tA\t{cell}" for i, cell in enumerate(cells)]
    path = tmp_path / "m.tsv"
    path.write_text("index\tquestion\thint\tA\tB\tC\tD\tanswer\timage\n" + "\n".join(rows) + "\n")
    args = parse(flags(path))
    evaluate(args, open_model(args), read_mmbench_questions(path, all_rounds=True))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert list(lines[0]) == [
        *("question_id", "round_id", "prompt", "text", "options", "option_char", "answer_id", "model_id", "metadata")
    ]
    assert [(line["question_id"], line["round_id"]) for line in lines] == [(i, j) for i in range(3) for j in range(3)]
    # The same picture from a file gives the same answer as from the TSV.
    (tmp_path / "q.jsonl").write_text(
        "".join(
            json.dumps({"question_id": i, "text": line["prompt"], "image": f"{line['question_id']}.png"}) + "\n"
            for i, line in enumerate(lines)
        )
    )
    same = answer(flags(tmp_path / "q.jsonl", answers="b.jsonl"))
    assert [line["text"] for line in same] == [line["text"] for line in lines]


def test_two_processes_give_the_answers_of_one(flags, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = answer(flags(questions(), answers="whole.jsonl"))
    launch("llava.eval.model_vqa_loader", flags(questions(), "--batch-size", "4"), 2)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == whole
    assert "20 answers of 2 processes are in" in capsys.readouterr().out


def test_a_dead_process_fails_the_run(tmp_path, monkeypatch):
    """A program that dies in its second process only: the run says so and writes nothing."""
    (tmp_path / "half.py").write_text(
        "import sys\nprint('last words', flush=True)\nsys.exit(3 * int(sys.argv[sys.argv.index('--chunk-idx') + 1]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(
        EvaluationError, match=r"1 of 2 processes failed.*\nprocess 1 ended with exit status 3"
    ) as error:
        launch("half", ["--answers-file", str(tmp_path / "a.jsonl")], 2)
    assert "last words" in str(error.value)
    assert not (tmp_path / "a.jsonl").exists()
    with pytest.raises(EvaluationError, match="given by the launcher"):
        launch("half", ["--answers-file", "a", "--num-chunks", "2"], 2)


def test_a_single_process_speaks_for_itself(tmp_path, monkeypatch, capfd):
    """What is wrong is said once: the launcher adds no second error to that of its only process."""
    (tmp_path / "wrong.py").write_text("import sys\nsys.exit('error: this is wrong')\n")
    (tmp_path / "killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        launch("wrong", ["--answers-file", str(tmp_path / "a.jsonl")], 1)
    assert stopped.value.code == 1
    assert capfd.readouterr().err == "error: this is wrong\n"
    with pytest.raises(EvaluationError, match="killed was killed by signal 9; the same command goes on"):
        launch("killed", ["--answers-file", str(tmp_path / "a.jsonl")], 1)


def test_answers_of_another_number_of_processes_are_named(tmp_path, monkeypatch, capsys):
    """They are made again, which may take days, so this is said first."""
    (tmp_path / "nothing.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answers = tmp_path / "a.jsonl"
    part = journal_path(part_path(answers, 4, 1))
    part.parent.mkdir()
    part.touch()
    way = "which are not used; to continue from them, set GPUS={0} before the script, or give this program --gpus {0}\n"
    parts = f"a.chunks holds answers of a run in 4 processes, {way.format('N')}"
    whole = f"a.jsonl.journal holds answers of a run in one process, {way.format(1)}"
    launch("nothing", ["--answers-file", str(answers)], 1)
    said = capsys.readouterr().out
    assert parts in said
    assert whole not in said
    journal_path(answers).touch()
    with pytest.raises(EvaluationError, match=r"2_0\.jsonl does not exist"):
        launch("nothing", ["--answers-file", str(answers)], 2)
    said = capsys.readouterr().out
    assert parts in said
    assert whole in said
    record_path(answers).write_text('{"settings": {}}')
    launch("nothing", ["--answers-file", str(answers)], 1)
    assert not capsys.readouterr().out


def test_a_part_that_was_cut_is_mended_by_the_same_command(flags, questions, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["model_vqa_loader", *flags(questions())])

    def run(rank):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        program.main(question_parser("test", 128), "model_vqa_loader")

    run("0")
    run("1")
    whole = (tmp_path / "a.jsonl").read_bytes()
    part = tmp_path / "a.chunks/2_1.jsonl"
    part.write_bytes(part.read_bytes()[:-25])
    with pytest.raises(SystemExit, match="has 9 whole lines where its record says 10; start its process again"):
        run("0")
    run("1")
    assert (tmp_path / "a.jsonl").read_bytes() == whole


def test_under_torchrun_each_process_takes_its_chunk_and_the_last_joins(flags, questions, tmp_path, monkeypatch):
    whole = answer(flags(questions(), answers="whole.jsonl"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "10":
        assert not (tmp_path / "a.jsonl").exists()
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setattr(sys, "argv", ["model_vqa_loader", *flags(questions())])
        program.main(question_parser("test", 128), "model_vqa_loader")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == whole


def test_errors_are_one_line(flags, questions):
    path = questions()
    path.write_text("{}\n")
    command = [sys.executable, "-m", "llava.eval.model_vqa", *flags(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {path}: line 1 is not a question")
    assert "Traceback" not in result.stderr


def test_a_template_that_training_refuses_is_refused(flags, questions, monkeypatch, capsys):
    monkeypatch.setattr(arguments, "load", lambda *more: pytest.fail("weights were loaded first"))
    with pytest.raises(TemplateError, match=r"^--conv-mode chatml does not fit .* '<\|im_end\|>' is .*Templates .* v1"):
        answer(flags(questions(), "--conv-mode", "chatml"))


def test_the_template_of_captions_is_warned_of(flags, questions, capsys):
    answer(flags(questions(2)))
    assert not capsys.readouterr().err.count("warning")
    answer(flags(questions(2), "--conv-mode", "plain"))
    assert "warning: plain is the template of captions" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that this machine has")
def test_a_device_that_does_not_exist_is_told_first(flags, questions, capsys):
    with pytest.raises(ValueError, match="--device cuda:3 does not exist: this machine has no GPU"):
        answer(flags(questions(), "--device", "cuda:3"))
    with pytest.raises(SystemExit, match="2"):
        parse(flags(questions(), "--device", "banana"))
    assert "argument --device: 'banana' is not a device; cuda" in capsys.readouterr().err


def test_a_question_with_an_image_token_is_asked_as_without(flags, questions, tmp_path):
    plain = answer(flags(questions(2)))
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    marked = [row | {"text": f"<image>\n{row['text']}"} for row in rows]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    assert [line["text"] for line in answer(flags(tmp_path / "q.jsonl"))] == [line["text"] for line in plain]
