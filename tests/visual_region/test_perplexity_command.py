"""Figure 1, left: perplexity with layers set back, in memory, equals that of the folders that `revert` writes."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from llava.eval import perplexity as program
from llava.eval.answering.nll import Piece
from llava.eval.answering.perplexity import Corpus


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
    monkeypatch.setattr(Corpus, "measure", None)
    command(*flags, "--revert", "0-2", "--revert", "all")
    assert "all reverted" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another model, corpus or setting"):
        command(*flags, "--revert", "0-2", "--revert", "all", "--unit", "byte")


def test_documents_as_lm_eval_reads_them(command, tiny, tiny_lora, tmp_path, monkeypatch):
    """A file of documents in lm-eval's windows, answers as always; the same as llava.eval.perplexity measures."""
    documents, output, report = tmp_path / "d.jsonl", tmp_path / "table.json", tmp_path / "report.json"
    lines = [{"text": f"the line {i} is red" * (i + 1), "original": f"the line {i} is red ."} for i in range(3)]
    documents.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--text-file", documents, "--as-lm-eval", "--unit", "word", "--context", 20)
    answers = ("--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 2)
    command("perplexity", "--model-path", tiny_lora, *flags, *answers, "--output", output, "--revert", "all")
    table = json.loads(output.read_text())
    assert table["settings"]["as_lm_eval"] is True
    assert "lm-eval" in table["corpora"][str(documents)]["reading"]
    assert "reading" not in table["corpora"][str(tiny.data)]
    arguments = ("--model-path", tiny_lora, "--report-file", report, *flags, "--samples", 2)
    monkeypatch.setattr("sys.argv", ["x", *map(str, arguments)])
    program.main()
    found = table["rows"]["as it is"]["perplexity"][str(documents)]["value"]
    assert json.loads(report.read_text())["value"] == pytest.approx(found, rel=1e-5)


def test_a_table_goes_on_only_with_what_it_was_begun_with(command, tiny, tiny_llava, tmp_path, monkeypatch):
    """Images, tower, backbone and the dtype that is really used; tables of earlier versions hold none of these."""
    backbone, images = shutil.copytree(tiny.llm, tmp_path / "llm"), shutil.copytree(tiny.images, tmp_path / "images")
    output = tmp_path / "table.json"
    measured = []

    def measure(*_):
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(1)
        return [Piece("a", 1.0, 2, 3, 4), Piece("b", 2.0, 2, 3, 4)], {}

    monkeypatch.setattr(Corpus, "measure", measure)
    flags = ("perplexity", "--model-path", tiny_llava, "--backbone", backbone, "--data-path", tiny.data)
    flags = (*flags, "--samples", 2, "--revert", "all", "--output", output)
    with pytest.raises(SystemExit, match="130"):
        command(*flags, "--image-folder", tiny.images)
    begun = json.loads(output.read_text())
    assert begun["settings"]["dtype"] == "fp32"
    with pytest.raises(SystemExit, match=r"corpus or setting \(images was "):
        command(*flags, "--image-folder", images)
    with pytest.raises(SystemExit, match="vision_tower was None, now "):
        command(*flags, "--image-folder", tiny.images, "--vision-tower", tiny.tower)
    with monkeypatch.context() as patch:
        patch.setattr("visual_region.commands.perplexity.dtype_name", lambda _: "fp16")
        with pytest.raises(SystemExit, match="dtype was 'fp32', now 'fp16'"):
            command(*flags, "--image-folder", tiny.images)
    weights = load_file(backbone / "model.safetensors")
    changed = {name: value * 2 for name, value in weights.items()}
    save_file(changed, backbone / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match="backbone_identity was "):
        command(*flags, "--image-folder", tiny.images)

    for name in ("backbone_identity", "images", "vision_tower"):
        del begun["settings"][name]
    begun["settings"]["dtype"] = None
    output.write_text(json.dumps(begun))
    measured.clear()
    command(*flags, "--image-folder", tiny.images)
    assert len(measured) == 1
    assert all(row["perplexity"] for row in json.loads(output.read_text())["rows"].values())


def test_bad_input(command, tiny, tiny_llava, tmp_path):
    flags = ("perplexity", "--model-path", tiny_llava, "--output", tmp_path / "t.json")
    with pytest.raises(SystemExit, match="at least one --text-file or --data-path"):
        command(*flags)
    with pytest.raises(SystemExit, match="give --backbone"):
        command(*flags, "--data-path", tiny.data, "--image-folder", tiny.images)
    images = ("--data-path", tiny.data, "--image-folder", tiny.images)
    with pytest.raises(SystemExit, match="there is no layer 9"):
        command(*flags, *images, "--backbone", tiny.llm, "--revert", "9")


def test_a_backbone_of_another_shape_is_told_before_loading(command, tiny, tiny_llava, tmp_path, monkeypatch):
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setattr("visual_region.commands.perplexity.load", None)
    flags = ("perplexity", "--model-path", tiny_llava, "--data-path", tiny.data, "--image-folder", tiny.images)
    flags = (*flags, "--output", tmp_path / "t.json", "--backbone", tmp_path / "other")
    values = LlamaConfig.from_pretrained(tiny.llm).to_dict()
    LlamaForCausalLM(LlamaConfig(**values | {"intermediate_size": 48})).save_pretrained(tmp_path / "other")
    with pytest.raises(
        SystemExit, match=r"another shape: model\.layers\.\d\.mlp\.\w+\.weight is (48x32|32x48), in the"
    ):
        command(*flags, "--revert", "0-2")
    LlamaForCausalLM(LlamaConfig(**values | {"num_hidden_layers": 7})).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match=r"differs is model\.layers\.6\.input_layernorm\.weight, 32 in the backbone"):
        command(*flags)
    LlamaForCausalLM.from_pretrained(tiny.llm).save_pretrained(tmp_path / "other")
    weights = load_file(tmp_path / "other/model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "other/model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match=r"the backbone has no tensor model\.layers\.2\.mlp\.up_proj\.weight"):
        command(*flags, "--revert", "0-2")
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("content", ["[]", "{}", "not JSON"])
def test_an_output_that_is_no_table_is_named_and_kept(command, tiny, tiny_llava, tmp_path, monkeypatch, content):
    monkeypatch.setattr("visual_region.commands.perplexity.load", None)
    output = tmp_path / "t.json"
    output.write_text(content)
    flags = ("--data-path", tiny.data, "--image-folder", tiny.images, "--backbone", tiny.llm, "--output", output)
    with pytest.raises(SystemExit, match=r"t\.json exists and is not a file of perplexities"):
        command("perplexity", "--model-path", tiny_llava, *flags)
    assert output.read_text() == content
    output.unlink()
    with pytest.raises(SystemExit, match="unknown conversation template 'foo'"):
        command("perplexity", "--model-path", tiny_llava, *flags, "--conv-mode", "foo")
