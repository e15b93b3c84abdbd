"""SigLIP's tower against transformers' own, and S2 against a plain loop."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipVisionModel

from llava.mm_utils import process_image
from llava.model.multimodal_encoder.builder import VisionTowerError, build_vision_tower


def pixels(n=2, side=28):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(side))


def tower(folder, **settings):
    return build_vision_tower(SimpleNamespace(mm_vision_tower=str(folder), **settings))


@pytest.mark.parametrize(("setting", "state"), [({}, -2), ({"mm_vision_select_layer": -1}, -1)])
def test_equals_transformers(siglip, setting, state):
    ours = tower(siglip, **setting)
    with torch.no_grad():
        expected = SiglipVisionModel.from_pretrained(siglip)(pixels(), output_hidden_states=True)
        features = ours(pixels())
    torch.testing.assert_close(features, expected.hidden_states[state])
    assert features.shape == (2, ours.num_patches, ours.hidden_size) == (2, 4, 24)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_whole_siglip_folder(siglip, tmp_path):
    """Published folders hold text and vision."""
    vision = SiglipVisionModel.from_pretrained(siglip)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    whole = SiglipModel(SiglipConfig(vision_config=vision.config.to_dict(), text_config=text))
    whole.vision_model.load_state_dict(vision.state_dict())
    whole.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    torch.testing.assert_close(tower(tmp_path)(pixels()), tower(siglip)(pixels()))


def test_processor_stretches_or_pads(siglip):
    processor = tower(siglip).image_processor
    assert processor.crop_size == processor.size
    image = Image.new("RGB", (10, 20), (255, 0, 0))
    stretched = process_image(image, processor, None)
    assert stretched.shape == (3, 28, 28)
    torch.testing.assert_close(stretched[0], torch.ones(28, 28))
    padded = process_image(image, processor, "pad")
    # SigLIP's mean is 0.5: the padding is 127 of 255.
    torch.testing.assert_close(padded[:, 0, 0], torch.full((3,), 127 / 255 * 2 - 1))


def plain_s2(encode, images, scales):
    """The paper's steps, one tile at a time."""
    results = []
    for image in images:
        maps = []
        for scale in scales:
            big = interpolate(image[None], size=(scale, scale), mode="bicubic")
            rows = []
            for y in range(0, scale, scales[0]):
                tiles = []
                for x in range(0, scale, scales[0]):
                    tokens = encode(big[:, :, y : y + scales[0], x : x + scales[0]])[0]
                    grid = int(len(tokens) ** 0.5)
                    tiles.append(tokens.T.reshape(-1, grid, grid))
                rows.append(torch.cat(tiles, dim=2))
            whole = torch.cat(rows, dim=1)
            factor = scale // scales[0]
            maps.append(torch.nn.functional.avg_pool2d(whole, factor))
        results.append(torch.cat(maps).flatten(1).T)
    return torch.stack(results)


@pytest.mark.parametrize("scales", [None, "28,56,84", "56,28"])
def test_s2(siglip, scales):
    ours = tower(siglip, use_s2=True, s2_scales=scales)
    sizes = [28, 56] if scales == "56,28" else [28, 56, 84]
    assert ours.image_processor.size["height"] == sizes[-1]
    assert process_image(Image.new("RGB", (9, 9)), ours.image_processor, "pad").shape == (3, sizes[-1], sizes[-1])
    images = pixels(side=sizes[-1])
    features = ours(images)
    assert features.shape == (2, ours.num_patches, ours.hidden_size) == (2, 4, 24 * len(sizes))
    torch.testing.assert_close(features, plain_s2(tower(siglip), images, sizes), atol=1e-5, rtol=1e-4)
    assert ours.identity() != tower(siglip).identity()


def test_s2_of_clip(tiny):
    """LLaVA's config has it as `s2`."""
    ours = tower(tiny.tower, s2=True, mm_vision_select_layer=-2)
    assert process_image(Image.new("RGB", (9, 12)), ours.image_processor, None).shape == (3, 84, 84)
    images = pixels(side=84)
    expected = plain_s2(tower(tiny.tower, mm_vision_select_layer=-2), images, [28, 56, 84])
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_s2": True, "s2_scales": "28,50"}, "multiples"),
        ({"use_s2": True, "s2_scales": "56,84"}, "the first must be 28"),
        ({"use_s2": True, "s2_scales": "big"}, "not a list of sizes"),
        ({"mm_vision_select_layer": 4}, r"hidden states -4\.\.3"),
    ],
)
def test_settings_that_do_not_fit(siglip, settings, words):
    with pytest.raises(ValueError, match=words):
        tower(siglip, **settings)


def test_towers_that_are_not_covered(tmp_path):
    eva = tmp_path / "EVA02_CLIP_L_336_psz14_s6B.pt"
    eva.write_bytes(b"x")
    with pytest.raises(VisionTowerError, match="EVA-CLIP file of Bunny is not supported"):
        tower(eva)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VisionTowerError, match=r"'bert'; supported: .*siglip"):
        tower(tmp_path)
