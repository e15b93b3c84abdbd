"""Images of any shape (LLaVA-1.6's `image_aspect_ratio` anyres): an image becomes several views for the tower.

The first view is the whole image, squeezed to the tower's square. Then the image is scaled to the best of several
canvases (`image_grid_pinpoints`), padded to it, and cut into tiles, row by row: the other views. Only `Tiling` knows
how many views and tokens an image has, and how the tokens of its views become one block. (Upstream: llava/mm_utils.py
and llava/model/llava_arch.py. Pixels and rounding are those of transformers' LlavaNext.)
"""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import LlavaNextImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor, select_best_resolution

Size = tuple[int, int]
"""Width and height; in pixels, if nothing else is said."""

ANYRES = "anyres"
IMAGE_ASPECT_RATIOS = ("square", "pad", ANYRES)
"""The supported values; only with the last one an image has several views."""
FLAT, SPATIAL, SPATIAL_UNPAD = "flat", "spatial", "spatial_unpad"
MERGE_TYPES = (FLAT, SPATIAL, SPATIAL_UNPAD)
"""Values of `mm_patch_merge_type`: view after view; the tiles' tokens line by line of the canvas; the same without what
was padded, and with a trained vector, `image_newline`, at the end of each line."""
_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""Columns and rows of LLaVA-1.6's canvases, in tiles."""
_OF_VIEWS = ("mm_patch_merge_type", "image_grid_pinpoints")


class TilingError(ValueError):
    """Settings with which images cannot be cut into views."""


@dataclass(frozen=True)
class Tiling:
    """How images become views.

    Attributes:
        side: pixels of a view's side.
        per_view: tokens of a view after the projector.
        merge: one of `MERGE_TYPES`.
        canvases: sizes to choose from, multiples of `side`; none: one view per image.
    """

    side: int
    per_view: int
    merge: str = FLAT
    canvases: tuple[Size, ...] = ()

    @classmethod
    def of(cls, config: Any, side: int, per_view: int) -> "Tiling":
        """The tiling of a config's `image_aspect_ratio`, `mm_patch_merge_type` and `image_grid_pinpoints`.

        Raises:
            TilingError: they are not possible, or do not fit the tower.
        """
        if getattr(config, "image_aspect_ratio", None) != ANYRES:
            return cls(side, per_view)
        merge = checked_merge_type(getattr(config, "mm_patch_merge_type", None))
        tiling = cls(side, per_view, merge, canvases_of(getattr(config, "image_grid_pinpoints", None), side))
        if merge != FLAT and tiling._grid**2 != per_view:
            raise TilingError(
                f"mm_patch_merge_type {merge} needs a square grid of tokens per view, and a view has {per_view}; "
                "mm_vision_select_feature patch leaves the class token out, mm_patch_merge_type flat needs no grid"
            )
        return tiling

    @property
    def several(self) -> bool:
        """Whether an image has several views, as many as its size asks for."""
        return bool(self.canvases)

    @property
    def most_views(self) -> int:
        return max(map(self.views, self.canvases), default=1)

    @property
    def most_tokens(self) -> int:
        """The most tokens that an image of any size takes: an image that fills its canvas is not unpadded."""
        return max(map(self.tokens, self.canvases), default=self.per_view)

    def views(self, size: Size | None) -> int:
        """The number of views of an image of this size; None will do for one view per image."""
        return 1 + math.prod(self._tiles(size)) if self.several else 1

    def tokens(self, size: Size | None) -> int:
        """The number of tokens of an image of this size; None will do for one view per image."""
        if self.merge == FLAT:
            return self.views(size) * self.per_view
        columns, rows = (self._grid * tiles for tiles in self._tiles(size))
        left, top = self._margins(size)
        columns, rows = columns - 2 * left, rows - 2 * top
        return self.per_view + rows * (columns + (self.merge == SPATIAL_UNPAD))

    def pixels(self, image: Image.Image, processor: BaseImageProcessor) -> torch.Tensor:
        """The views of an RGB image, float32 `(views, 3, side, side)`; `processor`: the tower's."""
        return self.image_processor(processor).preprocess(image, return_tensors="pt")["pixel_values"][0]

    def image_processor(self, processor: BaseImageProcessor) -> LlavaNextImageProcessorPil:
        """transformers' processor for these views, with the settings of the tower's."""
        settings = processor_settings(processor) | {"image_grid_pinpoints": turned(self.canvases)}
        # The side of its tiles. A processor that crops nothing has none, and the default is another tower's.
        crop = settings.get("crop_size") or {"height": self.side, "width": self.side}
        return LlavaNextImageProcessorPil(**settings | {"crop_size": crop})

    def join(self, views: torch.Tensor, size: Size | None, newline: torch.Tensor | None = None) -> torch.Tensor:
        """The tokens of an image's views, `(views, per_view, hidden)`, as one block `(tokens, hidden)`.

        Args:
            size: of the image; a single view, such as the empty image of a batch of text, needs none.
            newline: `image_newline`, `(hidden,)`, of spatial_unpad.
        """
        ends = newline.to(views).expand(1, -1) if self.merge == SPATIAL_UNPAD else views[:0, 0]
        if self.merge == FLAT or len(views) == 1:
            return torch.cat([views.flatten(0, 1), ends])
        if size is None or len(views) != self.views(size):
            needed = "their sizes are missing (image_sizes)" if size is None else f"size {size} has {self.views(size)}"
            raise ValueError(f"an image with {len(views)} views cannot be joined: {needed}")
        columns, rows = self._tiles(size)
        tiles = views[1:].unflatten(0, (rows, columns)).unflatten(2, (self._grid, self._grid))
        canvas = tiles.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        left, top = self._margins(size)
        canvas = canvas[top : len(canvas) - top, left : canvas.shape[1] - left]
        lines = torch.cat([canvas, ends.expand(len(canvas), *ends.shape)], dim=1)
        return torch.cat([views[0], lines.flatten(0, 1)])

    @property
    def _grid(self) -> int:
        """Tokens of a view's side."""
        return math.isqrt(self.per_view)

    def _canvas(self, size: Size) -> Size:
        """The canvas that keeps most of the image's pixels, of equal ones the smallest, the first."""
        width, height = size
        height, width = select_best_resolution((height, width), turned(self.canvases))
        return width, height

    def _tiles(self, size: Size) -> Size:
        """Columns and rows of tiles."""
        width, height = self._canvas(size)
        return width // self.side, height // self.side

    def _margins(self, size: Size) -> Size:
        """Tokens on the left and on the right, and above and below, that show padding only."""
        if self.merge != SPATIAL_UNPAD:
            return 0, 0
        columns, rows = (self._grid * tiles for tiles in self._tiles(size))
        width, height = size
        # Rounded as transformers does: by binary fractions, a product may be just below a whole number.
        if width / height > columns / rows:
            return 0, (rows - int(round(height * (columns / width), 7))) // 2
        return (columns - int(round(width * (rows / height), 7))) // 2, 0


def processor_settings(processor: BaseImageProcessor) -> dict[str, Any]:
    """The settings that image processors of all classes share, for one of another class."""
    own = ("image_processor_type", "image_grid_pinpoints", "do_pad")
    kept = {name: value for name, value in processor.to_dict().items() if name not in own}
    # Classes differ in its default.
    return kept | {"do_center_crop": bool(kept.get("do_center_crop"))}


def turned(sizes: Any) -> list[list[int]]:
    """Sizes as `[height, width]`, as transformers writes them, from `(width, height)`, as upstream does; or back."""
    return [[second, first] for first, second in sizes]


def checked_merge_type(merge: str | None) -> str:
    """`mm_patch_merge_type` (default: flat); raises `TilingError` for an unknown one."""
    if merge not in (None, *MERGE_TYPES):
        raise TilingError(f"mm_patch_merge_type {merge!r} is not supported; supported: {', '.join(MERGE_TYPES)}")
    return merge or FLAT


def has_newline(config: Any) -> bool:
    """Whether a model has the vector `image_newline`, also if its images have one view each (as upstream's)."""
    return getattr(config, "mm_patch_merge_type", None) == SPATIAL_UNPAD


def canvases_of(pinpoints: Any, side: int = 1) -> tuple[Size, ...]:
    """Reads `image_grid_pinpoints`, a list of `[width, height]` or its text; None: LLaVA-1.6's, in multiples of `side`.

    Raises:
        TilingError: it is something else, or a size is no multiple of `side`.
    """
    if pinpoints is None:
        return tuple((columns * side, rows * side) for columns, rows in _GRIDS)
    try:
        pairs = ast.literal_eval(pinpoints) if isinstance(pinpoints, str) else pinpoints
        canvases = tuple((width, height) for width, height in pairs)
    except (ValueError, TypeError, SyntaxError):
        canvases = ()
    numbers = [number for canvas in canvases for number in canvas]
    if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise TilingError(f"image_grid_pinpoints {pinpoints!r} is not a list of sizes such as [[336, 672], [672, 336]]")
    if any(number % side for number in numbers):
        raise TilingError(f"image_grid_pinpoints {pinpoints} must be multiples of the tower's {side} pixels")
    return canvases


def check_settings(config: Mapping[str, Any]) -> None:
    """Raises `TilingError` if a config.json asks for images that are not supported, with any tower."""
    if (ratio := config.get("image_aspect_ratio")) not in (None, *IMAGE_ASPECT_RATIOS):
        further = [f", {name} {config[name]!r}" for name in _OF_VIEWS if config.get(name)]
        supported = ", ".join(IMAGE_ASPECT_RATIOS)
        raise TilingError(
            f"image_aspect_ratio {ratio!r}{''.join(further)}, which is not supported; supported: {supported}"
        )
    if ratio == ANYRES:
        checked_merge_type(config.get("mm_patch_merge_type"))
        canvases_of(config.get("image_grid_pinpoints"))
