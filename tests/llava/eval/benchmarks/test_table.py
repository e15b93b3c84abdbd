"""What holds for every benchmark of the table: files, sizes, scripts, scorers."""

import json
import runpy
import subprocess
import sys

import pytest

from llava.eval.benchmarks import BENCHMARKS, BY_NAME, VISUAL
from llava.eval.benchmarks.perplexity import PUBLISHED as TEXTS
from llava.eval.benchmarks.preparing import Options
from llava.eval.scoring.bbh_forms import TASKS
from llava.eval.scoring.report import read_report
from llava.flags import run_program
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS, TEXT_MAKERS, rows_of

ANY = Options(check_counts=False)
ALL_MAKERS = MAKERS | TEXT_MAKERS
SCORED = [benchmark.name for benchmark in BENCHMARKS if benchmark.score]
TABLE = {benchmark.name: benchmark.published for benchmark in BENCHMARKS if benchmark.published} | TEXTS


def test_the_papers_columns():
    assert [benchmark.column for benchmark in BENCHMARKS if benchmark.paper] == [
        *("OCRVQA", "DocVQA", "RefCOCOg", "TDIUC", "MMBench", "GQA", "ScienceQA", "TextVQA"),
        *("MMLU", "BIG-bench-hard", "perplexity"),
    ]
    assert len(VISUAL) == 8
    assert set(VISUAL) == set(MAKERS)


def test_no_benchmark_loads_torch():
    code = "import sys, llava.eval.benchmarks; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_declaration_names_is_there(name):
    benchmark = BY_NAME[name]
    # Another benchmark runs as `bash scripts/eval/benchmark.sh NAME CHECKPOINT`.
    assert (REPOSITORY / f"scripts/eval/{name}.sh").is_file() or not benchmark.paper
    assert (REPOSITORY / f"llava/eval/{benchmark.program}.py").is_file()
    if benchmark.convert:
        assert (REPOSITORY / f"{benchmark.convert[0].replace('.', '/')}.py").is_file()
    readme = (REPOSITORY / "playground/data/eval/README.md").read_text()
    assert f"\n| {name} | " in readme
    if benchmark.published:
        assert f"\n| {name} | {benchmark.published.count:,}" in readme


@pytest.mark.parametrize("name", [name for name in SCORED if name != "mixture"])
def test_a_scorer_of_its_own_name(name, monkeypatch, capsys):
    """`llava.eval.eval_NAME`, which was there before `llava.eval.score NAME`, has the same flags."""
    face = "science_qa" if name == "scienceqa" else name
    told = []
    for words in ([f"llava.eval.eval_{face}", "--help"], ["llava.eval.score", name, "--help"]):
        monkeypatch.setattr(sys, "argv", ["score", *words[1:]])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module(words[0], run_name="__main__")
        assert stopped.value.code == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "--missing {error,wrong,skip}" in told[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every benchmark's folder after preparation, and question id -> right reply."""
    root, perfect = tmp_path_factory.mktemp("data"), {}
    for name, make in ALL_MAKERS.items():
        perfect[name] = make(root / "raw" / name)
        BY_NAME[name].prepare(root / "raw" / name, root / name, ANY)
    easy = root / "easy_vqa"
    easy.mkdir()
    perfect["easy_vqa"] = {"1": "circle", "2": "yes", "3": "teal"}
    (easy / "annotations.json").write_text(json.dumps(perfect["easy_vqa"]))
    rows = [{"question_id": key, "text": "What is it?"} for key in perfect["easy_vqa"]]
    (easy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixed = root / "mixture"
    mixed.mkdir()
    truths = {
        "a": {"task": "count", "answer": "2"},
        "b": {"task": "place", "answer": "red circle"},
    }
    perfect["mixture"] = {"a": "2", "b": "red circle"}
    (mixed / "annotations.json").write_text(json.dumps(truths))
    rows = [{"question_id": key, "text": "Where is it?"} for key in truths]
    (mixed / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root, perfect


def flags_of(benchmark, folder, tmp_path):
    """What the script gives to the scorer."""
    environment = {"DATA": str(folder), "NAME": "tiny", "RESULT": str(tmp_path / "score.json"), "FRAME": "padded"}
    places = benchmark.places("", environment)
    flags = [flag for flag in benchmark.flags_to_score(places, environment) if flag]
    if "--model-path" in flags:
        flags.remove("--model-path")
    return ["--result-file", str(tmp_path / "answers.jsonl"), "--report-file", places["report"], *flags]


@pytest.mark.parametrize("name", SCORED)
def test_right_answers_score_one(name, data, tmp_path, monkeypatch, capsys):
    root, perfect = data
    benchmark, right = BY_NAME[name], perfect[name]
    flags = flags_of(benchmark, root / name, tmp_path)
    # Before there are answers: everything else is checked, and nothing is written.
    monkeypatch.setattr(sys, "argv", ["score", *flags, "--check"])
    run_program(benchmark.score_main)
    assert not (tmp_path / "score.json").exists()
    lines = [{"question_id": key, "prompt": "<image>\nx", "text": text} for key, text in right.items()]
    if name == "textvqa":
        # Its ids are those of images, and the prompt holds the question.
        for line, row in zip(lines, rows_of(root / name / benchmark.questions), strict=True):
            line |= {"question_id": row["question_id"], "prompt": row["text"]}
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["score", *flags])
    run_program(benchmark.score_main)
    report = read_report(tmp_path / "score.json")
    assert report.headline.value == pytest.approx(1)
    assert (report.benchmark, report.answers, report.parse_failures) == (name, len(right), 0)
    assert f"* {report.metric}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].also])
def test_any_other_count_is_said(name):
    count = TABLE[name].count
    assert not TABLE[name].warning(count)
    for found in (6, count - 1, count + 1):
        (warning,) = TABLE[name].warning(found)
        assert f"hold {found:,} {TABLE[name].what}, published are {count:,}" in warning


def test_versions_of_mmbench_differ():
    assert not BY_NAME["mmbench"].published.warning(4329)
    assert not BY_NAME["mmbench"].published.warning(4377)
    assert "hold 4,330 rows, published are 4,377 or 4,329" in TABLE["mmbench"].warning(4330)[0]


def test_parts_add_up():
    assert sum(task.questions for task in TASKS.values()) == TABLE["bbh"].count == 6511
    assert TABLE["mmlu"].count == 14042


@pytest.mark.parametrize("scorer", SCORED)
def test_one_line_for_annotations_of_another_kind(scorer, data, tmp_path, monkeypatch):
    """One clear line for every other benchmark's annotations; never a traceback, never a score."""
    root, _ = data
    for name, content in (("list", [1]), ("object", {"1": {"x": 1}}), ("number", 3), ("data", {"data": [1]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    line = {"question_id": "1", "prompt": "Which?\nAnswer.", "text": "A"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    files = [root / BY_NAME[name].data[-1] for name in SCORED if name not in (scorer, "easy_vqa")]
    files += [tmp_path / f"{name}.json" for name in ("list", "object", "number", "data")]
    for file in files:
        flags = ["--annotation-file", file]
        if scorer == "scienceqa":
            flags = ["--base-dir", tmp_path]
            (tmp_path / "problems.json").unlink(missing_ok=True)
            (tmp_path / "problems.json").symlink_to(file)
            (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
        if scorer == "refcocog":
            flags += ["--frame", "padded"]
        words = ["x", *flags, "--result-file", tmp_path / "answers.jsonl", "--report-file", tmp_path / "score.json"]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as caught:
            run_program(BY_NAME[scorer].score_main)
        assert str(caught.value).startswith("error: "), (file, caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "score.json").exists()


def test_checkpoints_of_two_runs_have_answers_of_their_own():
    """The same name as `all.sh` gives to the results."""
    found = [BY_NAME["bbh"].places(f"{run}/checkpoint-500", {})["answers"] for run in ("runs/a", "runs/b/")]
    assert [path.rpartition("/")[2] for path in found] == ["a_checkpoint-500.jsonl", "b_checkpoint-500.jsonl"]


def test_the_name_of_the_machine_is_no_name_of_answers(monkeypatch):
    """WSL exports NAME: without this, all checkpoints would write the same answers."""
    monkeypatch.setattr("socket.gethostname", lambda: "desktop-1")
    wsl = {"WSL_DISTRO_NAME": "Ubuntu"}
    names = [BY_NAME["gqa"].places("a/model", env)["name"] for env in ({"NAME": "DESKTOP-1"} | wsl, {})]
    assert names == ["model", "model"]
    for environment in ({"NAME": "mine"} | wsl, {"NAME": "mine"}):
        assert BY_NAME["gqa"].places("a/model", environment)["name"] == "mine"
