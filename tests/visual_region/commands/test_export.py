"""`export --format gguf` as typed: what it refuses, what it prints, and that a failed export leaves nothing."""

import shutil

import pytest

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")

from gguf import GGUFReader


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_files_and_messages(tiny_llava, tmp_path, command, capsys):
    output = tmp_path / "small"
    flags = ("export", "--model-path", tiny_llava, "--format", "gguf", "--conv-mode", "v1", "--output", output)
    command(*flags, "--outtype", "f16")
    assert names(output) == ["README.md", "mmproj.gguf", "model.gguf"]
    said = capsys.readouterr().out
    assert f"llama-mtmd-cli -m {output}/model.gguf --mmproj {output}/mmproj.gguf" in said
    reader = GGUFReader(output / "model.gguf")
    assert reader.fields["general.name"].contents() == "small"
    assert reader.fields["general.file_type"].contents() == 1
    card = (output / "README.md").read_text()
    for words in ("library_name: gguf", "llama-mtmd-cli -m small/model.gguf", "■□□■□□"):
        assert words in card
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        command(*flags)
    command(*flags, "--overwrite", "--text-only")
    assert names(output) == ["README.md", "model.gguf"]
    assert "pipeline_tag: text-generation" in (output / "README.md").read_text()
    assert f"llama-cli -m {output}/model.gguf" in capsys.readouterr().out
    assert GGUFReader(output / "model.gguf").fields["general.file_type"].contents() == 0


def test_what_the_output_holds_is_not_replaced(tiny_llava, tmp_path, command):
    source = shutil.copytree(tiny_llava, tmp_path / "source")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("precious")
    both = tmp_path / "both"
    both.mkdir()
    (both / "model.gguf").write_text("a model")
    (both / "thesis.txt").write_text("precious")
    flags = ("export", "--model-path", source, "--format", "gguf", "--overwrite", "--output")
    for output, words in (
        (source, "overlap"),
        (source / "gguf", "overlap"),
        (mine, "is not empty and not an export to GGUF"),
        (both, "is not empty and not an export to GGUF"),
        (mine / "README.md", "is a file; give a folder"),
    ):
        with pytest.raises(SystemExit, match=words):
            command(*flags, output)
    assert (mine / "README.md").read_text() == (both / "thesis.txt").read_text() == "precious"
    assert names(source) == names(tiny_llava)


def test_a_failed_export_leaves_nothing(tiny_llava, tmp_path, command, monkeypatch):
    monkeypatch.setattr("llava.model.gguf.export.write_card", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("export", "--model-path", tiny_llava, "--format", "gguf", "--output", tmp_path / "no")
    assert not names(tmp_path)


def test_full_disk(tiny_llava, small_disk, command):
    with pytest.raises(SystemExit, match=r"needs 0.00 GB and .* free; give a folder on another disk"):
        command("export", "--model-path", tiny_llava, "--format", "gguf", "--output", small_disk / "no")
    assert not names(small_disk)


def test_what_is_missing_or_wrong_is_one_line(tiny_llava, tmp_path, command, monkeypatch, capsys):
    flags = ("export", "--model-path", tiny_llava, "--output", tmp_path / "no")
    with pytest.raises(SystemExit, match="--text-only is for --format gguf"):
        command(*flags, "--text-only")
    with pytest.raises(SystemExit):
        command(*flags, "--format", "gguf", "--outtype", "q8_0")
    assert "is none of f32, f16, bf16; llama.cpp's llama-quantize makes smaller types" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs the package gguf, .*: pip install -e '.\[gguf\]'"):
        command(*flags, "--format", "gguf")
    assert not names(tmp_path)
