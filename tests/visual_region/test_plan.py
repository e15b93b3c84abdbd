"""`plan` reads a config and nothing else; its figures are those of visual_region.cost (test_cost.py)."""

import json

import pytest


@pytest.fixture
def config_only(tiny_llava, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_llava / "config.json").read_bytes())
    return folder


def test_a_config_is_enough(command, config_only, tmp_path, capsys, monkeypatch):
    from torch.overrides import TorchFunctionMode

    class NothingReal(TorchFunctionMode):
        """Whatever makes a tensor of size outside the meta device is a weight loaded."""

        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            device = getattr(result, "device", None)
            assert device is None or device.type == "meta" or result.numel() < 100
            return result

    output = tmp_path / "plan.json"
    with NothingReal():
        command(
            "plan", "--model-path", config_only, "--tune-layers", "all", "--tune-layers", "0,3", "--lora-r", 4,
            "--text-tokens", 20, "--samples", 100, "--tflops", 1, "--output", output,
        )  # fmt: skip
    printed = capsys.readouterr().out
    assert "0,3: ■□□■□□" in printed
    assert "device hours" in printed
    assert "nothing sharded, 1 TFLOP/s, 40% of it reached\n" in printed
    plan = json.loads(output.read_text())
    assert plan["assumed"]["image_tokens"] == 4
    assert (plan["assumed"]["tflops"], plan["assumed"]["utilization"]) == (1, 0.4)
    first, second = plan["selections"]
    assert second["layers"] == [0, 3]
    linears = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64)
    projector = 24 * 32 + 32 + 32 * 32 + 32
    assert second["parameters"]["trained"] == 2 * 4 * linears + projector
    assert first["parameters"]["trained"] == 6 * 4 * linears + projector
    for row in (first, second):
        plain, again = row["plain"], row["gradient_checkpointing"]
        assert plain["flops_per_run"] == 100 * plain["flops_per_sample"]["total"]
        assert plain["flops_per_sample"]["tower"] > 0
        assert again["flops_per_sample"]["recomputed"] > plain["flops_per_sample"]["recomputed"] == 0
        assert again["activation_bytes"] < plain["activation_bytes"]
    assert second["plain"]["flops_per_run"] < first["plain"]["flops_per_run"]


def test_presets_stand_in_for_a_tower_that_is_not_here(command, tiny, tmp_path, capsys):
    config = json.loads((tiny.llm / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    command("plan", "--model-path", tmp_path, "--mode", "full", "--data-path", tiny.data)
    printed = capsys.readouterr().out
    assert "24 samples x 1 epochs of 576 image and 192 text tokens" in printed
    assert "nothing sharded\n" in printed, "without --tflops there are no hours"
    assert "CLIP ViT-L/14-336 or of the flags" in printed
    command("plan", "--model-path", tiny.llm, "--mode", "projector", "--vision-tower", tiny.tower)
    assert "of 4 image and 192" in capsys.readouterr().out


def test_everything_wrong_is_told_at_once(command, tiny, tmp_path):
    with pytest.raises(SystemExit) as stop:
        command("plan", "--model-path", tiny.llm, "--batch-size", 0, "--epochs", -1, "--image-tokens", -1)
    for word in ("--batch-size 0", "--epochs -1", "--image-tokens -1"):
        assert word in str(stop.value)
    cases = [
        (("--mode", "projector", "--tune-layers", "0"), "stage 1 trains the projector only"),
        (("--tune-layers", "7"), "there is no layer 7"),
        (("--vision-tower", tmp_path / "none"), "neither a folder nor a known hub id"),
        (("--utilization", 3), "--utilization 3 is a share of the peak and must be at most 1"),
        (("--lora-dropout", 2), "--lora-dropout 2 must be from 0 to below 1"),
        (("--mm-hidden-size", 0), "--mm-hidden-size 0 must be above 0"),
        (("--mm-hidden-size", -4), "--mm-hidden-size -4 must be above 0"),
        (("--labelled-tokens", 500), "labelled tokens must be from 1 to the 192"),
    ]
    for flags, words in cases:
        with pytest.raises(SystemExit, match=words):
            command("plan", "--model-path", tiny.llm, *flags)
    with pytest.raises(SystemExit, match="does not exist: there is no such folder"):
        command("plan", "--model-path", tmp_path / "nothing")
