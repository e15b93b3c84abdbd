import json
import shutil
import subprocess
import sys

import pytest

from llava.data.check import cheap_problems, main
from llava.data.records import open_records


def item(name, text, answer="yes", **extra):
    return {"id": name, "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}], **extra}


def test_preflight_names_each_kind(tiny, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.png").write_bytes((tiny.images / "0.png").read_bytes())
    (tmp_path / "images" / "cut.png").write_bytes((tiny.images / "0.png").read_bytes()[:200])
    # A link to nothing is in the listing of the folder.
    (tmp_path / "images" / "gone.png").symlink_to("nowhere")
    data = tmp_path / "data.json"
    data.write_text(
        json.dumps(
            [
                item("fine", "<image>\nwhat?", image="good.png"),
                item("text", "hi"),
                item("gone", "<image>\nwhat?", image="gone.png"),
                item("cut", "<image>\nwhat?", image="cut.png"),
                item("unmarked", "what?", image="good.png"),
                item("two", "<image>\nwhat?", image=["good.png", "good.png"]),
                item("silent", "<image>\nwhat?", answer="", image="good.png"),
                item("long", "<image>\n" + "what " * 300, image="good.png"),
            ]
        )
    )
    problems = cheap_problems(open_records(data), tmp_path / "images")
    assert problems.samples == {2, 4, 5}
    command = [sys.executable, "-m", "llava.data.check", "--data_path", data, "--image_folder", tmp_path / "images"]
    command += ["--model_name_or_path", tiny.llm, "--model_max_length", "200", "--image_tokens", "4", "--workers", "1"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    for words in (
        "missing under",
        "(ids gone)",
        "no <image> in the text (ids unmarked)",
        "differ (ids two)",
        "cannot be opened",
        "no label at all: nothing in them would be trained (ids silent)",
        "every label lies past model_max_length 200 and would be cut off (ids long)",
    ):
        assert words in result.stdout, result.stdout


@pytest.mark.parametrize(
    ("projector", "flags", "tokens"),
    [
        ("mlp2x_gelu", [], 4),
        ("pixel_shuffle2x", [], 1),
        ("mlp2x_gelu", ["--image_tokens", "7"], 7),
        (None, [], 576),
    ],
)
def test_tokens_per_image(tiny, tiny_llava, tmp_path, monkeypatch, capsys, projector, flags, tokens):
    """A LLaVA's own, as its tower and its projector make them."""
    model = tiny.llm
    if projector:
        model = shutil.copytree(tiny_llava, tmp_path / "llava")
        config = json.loads((model / "config.json").read_text()) | {"mm_projector_type": projector}
        (model / "config.json").write_text(json.dumps(config))
    data = ["--data_path", tiny.data, "--image_folder", tiny.images, "--model_name_or_path", model, *flags]
    monkeypatch.setattr("sys.argv", ["check", *map(str, data)])
    with pytest.raises(SystemExit):
        main()
    assert f"labels are counted with {tokens} tokens per image" in capsys.readouterr().out


def test_clean_data_passes(tiny):
    assert not cheap_problems(open_records(tiny.data), tiny.images).by_kind


def test_a_file_of_another_kind_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "questions.jsonl").write_text('{"question_id": 1, "image": "1.png", "text": "a"}\n')
    for name, words in (("questions.jsonl", "error: .*is not LLaVA JSON"), ("none.json", "error: .* does not exist")):
        monkeypatch.setattr("sys.argv", ["check", "--data_path", str(tmp_path / name)])
        with pytest.raises(SystemExit, match=words):
            main()
