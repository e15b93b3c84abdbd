"""What a command must not write over, or cannot write, is told before its work; nothing is left behind."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava.outputs import PICTURE, TABLE, OutputError, check_files, check_output
from visual_region.importance.blocks import BLOCK_SCORES
from visual_region.scores import SCORES

SCORE_FILE = {
    "num_layers": 6,
    "region": [0, 3],
    "metrics": {"bi": {"values": [0.1, 0.5, 0.2, 0.3, 0.05, 0.6], "low": [0.0] * 6, "high": [1.0] * 6}},
}
PNG = b"\x89PNG\r\n\x1a\n"
DRAWN = PNG + b"tEXtSoftware\0Matplotlib version3"


@pytest.fixture
def place(tmp_path, tiny):
    """A folder of things that must not be touched."""
    (tmp_path / "scores.json").write_text(json.dumps(SCORE_FILE))
    (tmp_path / "data.json").write_bytes(tiny.data.read_bytes())
    (tmp_path / "text.txt").write_text("Where is the red line? It is at the top.")
    (tmp_path / "linked.json").symlink_to("scores.json")
    (tmp_path / "drawn.png").write_bytes(DRAWN)
    (tmp_path / "photo.png").write_bytes(PNG)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.fixture
def refused(command, place, monkeypatch):
    """Runs a command that must be refused before a model is loaded, and must leave all as it was."""

    def no_work(*args, **kwargs):
        raise AssertionError("weights were loaded")

    def run(words, *arguments):
        monkeypatch.setattr("llava.model.builder.load_base", no_work)
        before = {path: path.is_file() and path.read_bytes() for path in place.rglob("*")}
        with pytest.raises(SystemExit, match=words):
            command(*arguments)
        assert {path: path.is_file() and path.read_bytes() for path in place.rglob("*")} == before

    return run


BAD_FILES = [
    ("folder", "is a folder; give a file"),
    ("text.txt/x.json", "text.txt is a file, and nothing can be written below it"),
    ("text.txt", "exists and is not a"),
    ("data.json", "is one of the files that are read|exists and is not a"),
    ("x.png", r"give a name that ends in \.json"),
]


@pytest.mark.parametrize(("name", "words"), BAD_FILES)
@pytest.mark.parametrize("kind", ["score", "plan", "perplexity", "prune", "select"])
def test_json_outputs(refused, place, tiny, tiny_llava, kind, name, words):
    data = ("--model-path", tiny_llava, "--data-path", place / "data.json")
    images = ("--image-folder", tiny.images)
    flags = {
        "score": ("score", *data, *images, "--output"),
        "plan": ("plan", *data, "--vision-tower", tiny.tower, "--output"),
        "perplexity": ("perplexity", *data, *images, "--backbone", tiny.llm, "--output"),
        "prune": ("prune", *data, *images, "--block", 2, "--output", place / "pruned", "--block-scores"),
        "select": ("select", "0,3", "--num-layers", 6, "--output"),
    }[kind]
    refused(words, *flags, place / name)


def test_score_keeps_its_pictures_and_cache_apart(refused, place, tiny, tiny_llava):
    flags = ("score", "--model-path", tiny_llava, "--data-path", place / "data.json", "--image-folder", tiny.images)
    (place / "taken.png").write_text("not a picture")
    refused(r"taken\.png exists and is not a picture", *flags, "--output", place / "taken.json")
    (place / "taken2.heatmap.png").mkdir()
    refused(r"taken2\.heatmap\.png is a folder", *flags, "--output", place / "taken2.json")
    (place / "taken3.json.journal").mkdir()
    refused(r"taken3\.json\.journal is a folder", *flags, "--output", place / "taken3.json")
    cache = ("--output", place / "new.json", "--vision-feature-cache", place / "text.txt")
    refused(r"--vision-feature-cache .*text\.txt is a file; give a folder", *flags, *cache)
    prune = ("prune", "--model-path", tiny_llava, "--layers", 1, "--output")
    refused(r"text\.txt is a file, and nothing can be written below it", *prune, place / "text.txt" / "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("picture bars scores.json --output scores.json", r"give a name that ends in \.png"),
        ("picture bars scores.json --output folder", "is a folder; give a file"),
        ("picture bars scores.json --output text.txt", "exists and is not a picture"),
        ("picture bars scores.json --output photo.png", "exists and is not a picture of this project"),
        ("picture bars scores.json --output text.txt/x.png", "nothing can be written below it"),
        ("select scores.json#bi:2 --output scores.json", "is one of the files that are read"),
        ("select 0,scores.json#bi:2 --output linked.json", "is one of the files that are read"),
        ("select 0 --num-layers 6 --picture folder", r"--picture .* is a folder"),
        ("select 0 --num-layers 6 --markdown text.txt", "exists and is not a table"),
        ("select 0 --num-layers 6 --output x --markdown x", "--output and --markdown are the same"),
    ],
)
def test_inputs_and_other_kinds_are_not_replaced(refused, place, monkeypatch, arguments, words):
    monkeypatch.chdir(place)
    refused(words, *arguments.split())


def test_results_of_the_same_kind_are_replaced(command, place):
    """A command that is run again, a name without a suffix, and an empty file made by mktemp."""
    (place / "empty").touch()
    for target in ("top.json", "top.json", "empty", "plain"):
        flags = ("--output", place / target, "--picture", place / "drawn.png", "--markdown", place / "top.md")
        command("select", f"{place / 'scores.json'}#bi:2", *flags)
        assert json.loads((place / target).read_text())["selections"][0]["layers"] == [1, 5]
    command("picture", "bars", place / "scores.json", "--output", place / "drawn.png")


def test_a_folder_is_checked_after_what_a_killed_run_left_is_gone(tmp_path):
    """Else the room that it takes would be missing for the very run that replaces it."""
    left = tmp_path / ".out.abcdefgh.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    check_output(tmp_path / "out", [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"out needs 1000000000\.00 GB and .* free"):
        check_output(tmp_path / "out", [], 10**18)


def test_a_folder_that_cannot_be_replaced(tmp_path, monkeypatch):
    """A folder is written next to an existing one, and takes its place."""
    output = tmp_path / "out"
    output.mkdir()
    places = []
    monkeypatch.setattr("llava.outputs.shutil.disk_usage", lambda path: places.append(path) or SimpleNamespace(free=1))
    with pytest.raises(OutputError, match=r"needs 0\.00 GB"):
        check_output(output, [])
    assert places == [tmp_path]
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    with pytest.raises(OutputError, match="is a mount point and cannot be replaced; give a folder in it"):
        check_output(output, [])


def test_check_files(place):
    check_files({"--output": (place / "scores.json", SCORES), "--picture": (None, PICTURE)})
    check_files({"--output": (place / "new" / "deep" / "scores.json", SCORES)})
    with pytest.raises(OutputError, match="is not a file of block distances"):
        check_files({"--block-scores": (place / "scores.json", BLOCK_SCORES)})
    with pytest.raises(OutputError, match="is not an ordinary file"):
        check_files({"--markdown": ("/dev/null", TABLE)})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that says it is writable, and is not")
def test_a_place_where_nothing_can_be_made_is_told_first():
    with pytest.raises(OutputError, match=r"^--output /proc/x/s\.json: /proc is not writable \(.*\); give another"):
        check_files({"--output": ("/proc/x/s.json", SCORES)})
