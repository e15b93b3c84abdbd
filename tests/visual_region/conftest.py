"""What the tests of layers on disk share."""

import sys
from types import SimpleNamespace

import pytest
import torch

PIXELS = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[1, 5, -200, 7, 9]])


@pytest.fixture
def command(monkeypatch):
    """Runs `python -m visual_region ...` in this process; what it refuses is a SystemExit with the message."""
    from visual_region.__main__ import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["visual_region", *map(str, arguments)])
        main()

    return run


@pytest.fixture
def logits():
    """Logits of one fixed image and prompt, float32 `(1, length, vocabulary)`, of a folder or a model."""
    from llava.model.builder import load_pretrained_model

    def of(model, base=None):
        if not isinstance(model, torch.nn.Module):
            model = load_pretrained_model(str(model), base and str(base), device="cpu")[1]
        with torch.no_grad():
            return model(input_ids=IDS, images=PIXELS).logits

    return of


@pytest.fixture
def text_logits():
    """The same for a prompt without an image."""
    from llava.model.builder import load_pretrained_model

    def of(model, base=None):
        model = load_pretrained_model(str(model), base and str(base), device="cpu", load_tower=False)[1]
        with torch.no_grad():
            return model(input_ids=torch.tensor([[1, 5, 6, 7, 9]])).logits

    return of


@pytest.fixture(scope="session")
def tiny_lora(tiny, tmp_path_factory):
    """A LoRA folder on the tiny language model, layers 0 and 3, with weights as if trained."""
    from llava.families import FAMILIES
    from llava.model.builder import load_tokenizer
    from llava.train.checkpoint import save_trained
    from visual_region.layers import LayerSelection
    from visual_region.surgery import record_selection
    from visual_region.tuning import apply_lora

    family = FAMILIES["llava_llama"]
    torch.manual_seed(5)
    config = family.load_config_class().from_pretrained(tiny.llm)
    model = family.load_model_class().from_pretrained(tiny.llm, config=config)
    model.requires_grad_(False)
    model.get_model().initialize_vision_modules(
        SimpleNamespace(
            vision_tower=str(tiny.tower),
            mm_vision_select_layer=-2,
            mm_vision_select_feature="patch",
            mm_projector_type="mlp2x_gelu",
            pretrain_mm_mlp_adapter=None,
        )
    )
    model.config.image_aspect_ratio = "pad"
    model.config.conversation_template = "v1"
    selection = LayerSelection.parse("0,3", 6)
    record_selection(model.config, selection)
    wrapped = apply_lora(model, selection, family.layer_path, r=4, lora_alpha=8, lora_dropout=0.0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.get_model().mm_projector.requires_grad_(True)
    folder = tmp_path_factory.mktemp("lora") / "lora"
    save_trained(wrapped, "lora", folder)
    load_tokenizer(tiny.llm).save_pretrained(folder)
    return folder
