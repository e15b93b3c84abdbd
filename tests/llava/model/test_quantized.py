"""8 and 4 bits: the language model is quantised, projector, tower and head are not, a LoRA stays separate."""

import pytest
import torch

from llava.model.builder import load_pretrained_model

pytest.importorskip("bitsandbytes")
IDS = torch.tensor([[1, 5, -200, 7, 9]])


def pixels():
    return torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("flag", "kind"), [("load_8bit", "Linear8bitLt"), ("load_4bit", "Linear4bit")])
def test_projector_tower_and_head_stay(parity, flag, kind):
    folder, tower = str(parity / "llava-tiny"), str(parity / "tiny-clip-56")
    exact = load_pretrained_model(folder, device="cpu", vision_tower=tower)[1]
    model = load_pretrained_model(folder, device="cpu", vision_tower=tower, **{flag: True})[1]
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if "Linear" in type(module).__name__}
    assert {kinds[n] for n in kinds if ".layers." in n and "vision_tower" not in n} == {kind}
    assert {kinds[n] for n in kinds if "mm_projector" in n or "vision_tower" in n or "lm_head" in n} == {"Linear"}
    state, reference = model.state_dict(), exact.state_dict()
    for name in reference:
        if "mm_projector" in name or "vision_tower" in name:
            assert torch.equal(state[name], reference[name]), name
    with torch.no_grad():
        expected = exact(input_ids=IDS, images=pixels()).logits
        found = model(input_ids=IDS, images=pixels()).logits
    assert torch.corrcoef(torch.stack([expected.flatten(), found.flatten()]))[0, 1] > 0.9
    model.generate(IDS, images=pixels(), max_new_tokens=3, do_sample=False)


def test_lora_and_projector_on_a_quantised_base(parity):
    """Upstream quantised the projector and then could not load its weights (LLaVA#433)."""
    paths = (str(parity / "c_lora"), str(parity / "tiny-vicuna"))
    tower = str(parity / "tiny-clip-56")
    exact = load_pretrained_model(*paths, device="cpu", vision_tower=tower)[1]
    model = load_pretrained_model(*paths, device="cpu", vision_tower=tower, load_8bit=True)[1]
    assert type(model) is type(exact)
    assert any("lora_A" in name for name, _ in model.named_parameters())
    for name, value in exact.get_model().mm_projector.state_dict().items():
        assert torch.equal(model.get_model().mm_projector.state_dict()[name], value)
    with torch.no_grad():
        expected, found = (m(input_ids=torch.tensor([[1, 5, 6, 7]])).logits for m in (exact, model))
    assert torch.corrcoef(torch.stack([expected.flatten(), found.flatten()]))[0, 1] > 0.9
    load_pretrained_model(
        str(parity / "c_pretrain"), paths[1], device="cpu", vision_tower=tower, load_4bit=True, dtype=torch.bfloat16
    )


def test_one_of_the_two(tiny_llava):
    with pytest.raises(ValueError, match="exclude each other"):
        load_pretrained_model(str(tiny_llava), device="cpu", load_8bit=True, load_4bit=True)
