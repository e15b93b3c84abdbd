"""Images cut into views: pixels and numbers of tokens are those of transformers, joining is a plain loop's."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaNextImageProcessorPil, LlavaNextProcessor, SiglipImageProcessorPil

from llava.mm_utils import process_images
from llava.tiling import MERGE_TYPES, Tiling, TilingError, canvases_of
from tests.fixtures.anyres import PINPOINTS, SHAPES, SIDE, VIEWS

SQUARE = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
GRID = 7


def tiling(merge="spatial_unpad", **changes):
    return Tiling.of(SimpleNamespace(**VIEWS | {"mm_patch_merge_type": merge} | changes), SIDE, GRID**2)


def images():
    noise = random.Random(0)
    for size in SHAPES:
        yield Image.frombytes("RGB", size, noise.randbytes(3 * size[0] * size[1]))


def upstreams_views(image, canvases, processor):
    """Upstream's rule in plain words: the canvas with most pixels of the image, the least of it wasted, the first."""
    ranked = []
    for place, (width, height) in enumerate(canvases):
        scale = min(width / image.width, height / image.height)
        kept = min(int(image.width * scale) * int(image.height * scale), image.width * image.height)
        ranked.append((-kept, width * height - kept, place))
    width, height = canvases[min(ranked)[2]]
    across, down = width / image.width, height / image.height
    size = (width, min(math.ceil(image.height * across), height))
    if across >= down:
        size = (min(math.ceil(image.width * down), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image.resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
    corners = [(x, y) for y in range(0, height, SIDE) for x in range(0, width, SIDE)]
    views = [image.resize((SIDE, SIDE)), *(canvas.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners)]
    return torch.stack([processor.preprocess(view, return_tensors="pt")["pixel_values"][0] for view in views])


@pytest.mark.parametrize("pinpoints", [PINPOINTS, [[84, 28], [28, 56]]], ids=["LLaVA-1.6's", "not symmetric"])
def test_pixels_are_those_of_transformers_and_of_upstream(pinpoints):
    processor = CLIPImageProcessorPil(**SQUARE)
    turned = [[height, width] for width, height in pinpoints]
    stock = LlavaNextImageProcessorPil(**SQUARE, image_grid_pinpoints=turned)
    own = tiling(image_grid_pinpoints=pinpoints)
    for image in images():
        found = own.pixels(image, processor)
        assert len(found) == own.views(image.size) > 1
        assert torch.equal(found, stock(image, return_tensors="pt")["pixel_values"][0])
        assert torch.equal(found, upstreams_views(image, pinpoints, processor))


def test_a_processor_that_crops_nothing():
    """Such as SigLIP's without our tower: it has no size of a crop, which is the side of transformers' tiles."""
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    for image in images():
        found = tiling().pixels(image, processor)
        assert torch.equal(found, upstreams_views(image, PINPOINTS, processor))


def test_images_of_upstreams_function():
    """A list, because their numbers of views differ; images that have as many are stacked."""
    config = SimpleNamespace(**VIEWS)
    processor = CLIPImageProcessorPil(**SQUARE)
    found = process_images(list(images()), processor, config)
    assert [len(views) for views in found] == [tiling().views(size) for size in SHAPES]
    assert process_images([Image.new("RGB", (28, 28))] * 2, processor, config).shape == (2, 3, 3, SIDE, SIDE)


def test_numbers_of_tokens_are_those_of_transformers():
    luck = random.Random(1)
    sizes = [*SHAPES, *((luck.randrange(5, 700), luck.randrange(5, 700)) for _ in range(300))]
    own, patch = tiling(), SIDE // GRID
    stock = LlavaNextProcessor.__new__(LlavaNextProcessor)
    stock.patch_size, stock.num_additional_image_tokens = patch, 0
    turned = [[height, width] for width, height in PINPOINTS]
    stock.image_processor = SimpleNamespace(image_grid_pinpoints=turned)
    for width, height in sizes:
        assert own.tokens((width, height)) == stock._get_number_of_features(height, width, SIDE, SIDE)
    assert own.most_tokens == max(own.tokens(size) for size in [*sizes, (560, 560)])
    assert own.most_views == 5


@pytest.mark.parametrize("merge", MERGE_TYPES)
def test_joining_is_a_plain_loops(merge):
    own, newline = tiling(merge), torch.full((2,), -1.0)
    for size in SHAPES:
        count = own.views(size)
        views = torch.arange(count * GRID**2 * 2.0).view(count, GRID**2, 2)
        found = own.join(views, size, newline)
        assert len(found) == own.tokens(size) <= own.most_tokens
        assert found.tolist() == by_hand(own, views, size, merge)


def by_hand(own, views, size, merge):
    if merge == "flat":
        return [token for view in views.tolist() for token in view]
    columns, rows = own._tiles(size)
    canvas = {
        (GRID * row + y, GRID * column + x): views[1 + row * columns + column, GRID * y + x].tolist()
        for row in range(rows)
        for column in range(columns)
        for y in range(GRID)
        for x in range(GRID)
    }
    left, top = 0, 0
    height, width = GRID * rows, GRID * columns
    if merge == "spatial_unpad":
        # What the image covers if it is scaled to touch two sides of the canvas.
        scale = min(width / size[0], height / size[1])
        left, top = ((whole - int(round(s * scale, 7))) // 2 for whole, s in zip((width, height), size, strict=True))
    found = views[0].tolist()
    for y in range(top, height - top):
        found += [canvas[y, x] for x in range(left, width - left)]
        found += [[-1.0, -1.0]] if merge == "spatial_unpad" else []
    return found


def test_one_view_per_image():
    own = Tiling.of(SimpleNamespace(**VIEWS | {"image_aspect_ratio": "pad"}), SIDE, 5)
    assert (own.several, own.views(None), own.tokens(None), own.most_tokens, own.most_views) == (False, 1, 5, 5, 1)


@pytest.mark.parametrize(
    ("changes", "per_view", "words"),
    [
        ({"mm_patch_merge_type": "spatial_max"}, 49, "'spatial_max' is not supported; supported: flat, spatial, spa"),
        ({"image_grid_pinpoints": [[28, 50]]}, 49, r"\[\[28, 50\]\] must be multiples of the tower's 28 pixels"),
        ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, 49, r"is not a list of sizes such as \[\[336, 672\]"),
        ({"image_grid_pinpoints": [28, 56]}, 49, "is not a list of sizes"),
        ({"image_grid_pinpoints": []}, 49, "is not a list of sizes"),
        ({}, 50, "a view has 50; mm_vision_select_feature patch leaves the class token out"),
    ],
)
def test_settings_that_are_not_possible(changes, per_view, words):
    with pytest.raises(TilingError, match=words):
        Tiling.of(SimpleNamespace(**VIEWS | changes), SIDE, per_view)


def test_pinpoints_as_text_and_by_default():
    assert canvases_of("[(28, 56), [56, 28]]", SIDE) == ((28, 56), (56, 28))
    assert canvases_of(None, 336) == ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


def test_the_narrowest_images():
    for size in ((1, 500), (500, 1), (1, 1)):
        views = tiling().pixels(Image.new("RGB", size), CLIPImageProcessorPil(**SQUARE))
        tokens = views[:, 0, ::4, ::4].reshape(len(views), 49, 1)
        assert len(tiling().join(tokens, size, torch.zeros(1))) == tiling().tokens(size)


def test_views_that_do_not_fit_the_size():
    views = torch.zeros(3, GRID**2, 2)
    with pytest.raises(
        ValueError, match=r"an image with 3 views cannot be joined: their sizes are missing \(image_sizes"
    ):
        tiling().join(views, None, torch.zeros(2))
    with pytest.raises(ValueError, match=r"size \(56, 56\) has 5"):
        tiling().join(views, (56, 56), torch.zeros(2))
