"""Figure 1, left: perplexity with layers set back, in memory, equals that of the folders that `revert` writes."""

import json

import pytest

from llava.eval import perplexity as program


def test_rows_equal_reverted_folders(command, tiny, tiny_lora, tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Where is the red line? It is at the top. Is there a circle? No, there is none. " * 3)
    output = tmp_path / "table.json"
    flags = (
        "perplexity", "--model-path", tiny_lora, "--text-file", text, "--context", 40, "--stride", 20,
        "--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 4, "--output", output,
    )  # fmt: skip
    command(*flags, "--revert", "0-2", "--revert", "all")
    table = json.loads(output.read_text())
    assert list(table["rows"]) == ["as it is", "0-2 reverted", "all reverted"]
    assert table["corpora"][str(text)]["stride"] == 20
    assert table["corpora"][str(tiny.data)]["template"] == "v1"

    for spec, variant in (("0-2", "0-2 reverted"), ("all", "all reverted")):
        folder = tmp_path / f"reverted-{spec}"
        command("revert", "--model-path", tiny_lora, "--layers", spec, "--output", folder)
        report = tmp_path / f"{spec}.json"
        arguments = ("--text-file", text, "--context", 40, "--stride", 20, "--samples", 4)
        monkeypatch.setattr("sys.argv", ["x", *map(str, ("--model-path", folder, "--report-file", report, *arguments))])
        program.main()
        found = table["rows"][variant]["perplexity"][str(text)]["value"]
        assert json.loads(report.read_text())["value"] == pytest.approx(found, rel=1e-5)
    assert len({row["perplexity"][str(text)]["value"] for row in table["rows"].values()}) == 3

    # Asked again nothing is measured; another model is refused.
    monkeypatch.setattr(program.Corpus, "measure", None)
    command(*flags, "--revert", "0-2", "--revert", "all")
    assert "all reverted" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another model, corpus or setting"):
        command(*flags, "--revert", "0-2", "--revert", "all", "--unit", "byte")


def test_bad_input(command, tiny, tiny_llava, tmp_path):
    flags = ("perplexity", "--model-path", tiny_llava, "--output", tmp_path / "t.json")
    with pytest.raises(SystemExit, match="at least one --text-file or --data-path"):
        command(*flags)
    with pytest.raises(SystemExit, match="give --backbone"):
        command(*flags, "--data-path", tiny.data, "--image-folder", tiny.images)
    images = ("--data-path", tiny.data, "--image-folder", tiny.images)
    with pytest.raises(SystemExit, match="there is no layer 9"):
        command(*flags, *images, "--backbone", tiny.llm, "--revert", "9")
