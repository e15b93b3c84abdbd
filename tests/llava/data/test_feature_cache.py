import pytest
import torch

from llava.data.feature_cache import FeatureCache
from llava.images import open_image
from llava.mm_utils import process_image
from llava.model.multimodal_encoder.builder import build_vision_tower


class Args:
    mm_vision_select_layer = -2
    mm_vision_select_feature = "patch"

    def __init__(self, tower):
        self.vision_tower = str(tower)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_the_towers(tiny, tmp_path, dtype):
    tower = build_vision_tower(Args(tiny.tower), delay_load=True)
    cache = FeatureCache(tmp_path, tower, "pad", dtype)
    paths = sorted(tiny.images.iterdir())
    assert cache.ensure(paths, tower, batch_size=1) == 8
    assert cache.ensure(paths, tower) == 0
    again = FeatureCache(tmp_path, build_vision_tower(Args(tiny.tower), delay_load=True), "pad", dtype)
    for path in paths:
        pixels = process_image(open_image(path, "x"), tower.image_processor, "pad")
        assert torch.equal(again.features(path), tower(pixels.unsqueeze(0).to(dtype))[0])


def test_key_tells_towers_and_transforms_apart(tiny, tmp_path):
    tower = build_vision_tower(Args(tiny.tower), delay_load=True)
    other = build_vision_tower(Args(tiny.tower), delay_load=True)
    other.select_layer = -1
    folders = {
        FeatureCache(tmp_path, tower, "pad", torch.float32).folder,
        FeatureCache(tmp_path, tower, "square", torch.float32).folder,
        FeatureCache(tmp_path, tower, "pad", torch.bfloat16).folder,
        FeatureCache(tmp_path, other, "pad", torch.float32).folder,
    }
    assert len(folders) == 4


def test_a_torn_write_is_made_again(tiny, tmp_path):
    tower = build_vision_tower(Args(tiny.tower), delay_load=True)
    cache = FeatureCache(tmp_path, tower, "pad", torch.float32)
    paths = sorted(tiny.images.iterdir())
    cache.ensure(paths[:3], tower)
    with open(cache.folder / "features.bin", "ab") as data:
        data.write(b"half a row")
    with open(cache.folder / "index.jsonl", "a") as index:
        index.write('{"content": "ab')
    torn = FeatureCache(tmp_path, tower, "pad", torch.float32)
    assert torn.ensure(paths[:3], tower) == 0
    assert torn.features(paths[2]).shape == cache.features(paths[2]).shape
    fresh = FeatureCache(tmp_path, tower, "pad", torch.float32)
    fresh.ensure(paths, tower)
    pixels = process_image(open_image(paths[5], "x"), tower.image_processor, "pad")
    torch.testing.assert_close(fresh.features(paths[5]), tower(pixels.unsqueeze(0))[0])
    reread = FeatureCache(tmp_path, tower, "pad", torch.float32)
    # Of the images after the torn line none is lost, and none takes the place of another.
    assert reread.ensure(paths, tower) == 0
    for path in paths:
        torch.testing.assert_close(reread.features(path), fresh.features(path))


def test_changed_image_is_not_served(tiny, tmp_path):
    tower = build_vision_tower(Args(tiny.tower), delay_load=True)
    cache = FeatureCache(tmp_path, tower, "pad", torch.float32)
    path = tmp_path / "image.png"
    path.write_bytes((tiny.images / "0.png").read_bytes())
    cache.ensure([path], tower)
    path.write_bytes((tiny.images / "1.png").read_bytes())
    with pytest.raises(KeyError, match="changed"):
        cache.features(path)
