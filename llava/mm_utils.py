"""Images to pixels and prompts to ids, under upstream's names (upstream: llava/mm_utils.py)."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.image_processing_utils import BaseImageProcessor

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import Segment
from llava.names import model_name
from llava.tiling import ANYRES, IMAGE_ASPECT_RATIOS, Tiling
from llava.tokenization import encode_segments


def image_mark(mm_use_im_start_end: bool, image: str = DEFAULT_IMAGE_TOKEN) -> str:
    """What stands for an image in a prompt: `<image>`, between marks in LLaVA before 1.5."""
    return f"{DEFAULT_IM_START_TOKEN}{image}{DEFAULT_IM_END_TOKEN}" if mm_use_im_start_end else image


def load_image_from_base64(image: str | bytes) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(image)))


def expand2square(image: Image.Image, background_color: tuple[int, int, int]) -> Image.Image:
    """The image centred on a square of its longer side."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), background_color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def process_image(
    image: Image.Image,
    processor: BaseImageProcessor,
    image_aspect_ratio: str | None,
    tiling: Tiling | None = None,
) -> torch.Tensor:
    """One image to pixels `(3, height, width)`, float32; "anyres" gives `(views, 3, height, width)` by `tiling`.

    `image_aspect_ratio` "pad" pads to a square with the processor's mean colour; "square" or None does not (CLIP's
    processor then crops the centre).
    """
    if image_aspect_ratio not in (None, *IMAGE_ASPECT_RATIOS):
        raise ValueError(
            f"image_aspect_ratio {image_aspect_ratio!r} is not supported; allowed: {', '.join(IMAGE_ASPECT_RATIOS)}"
        )
    image = image.convert("RGB")
    if image_aspect_ratio == ANYRES:
        return tiling.pixels(image, processor)
    if image_aspect_ratio == "pad":
        image = expand2square(image, tuple(int(255 * mean) for mean in processor.image_mean))
    return processor.preprocess(image, return_tensors="pt")["pixel_values"][0]


def process_images(
    images: Sequence[Image.Image], image_processor: BaseImageProcessor, model_cfg: Any
) -> torch.Tensor | list[torch.Tensor]:
    """Images to pixels `(n, 3, height, width)`, or a list if shapes differ, by the config's `image_aspect_ratio`.

    With "anyres" each image is `(views, 3, height, width)`; the model then needs its `image_sizes` too.
    """
    aspect_ratio = getattr(model_cfg, "image_aspect_ratio", None)
    tiling = Tiling.of(model_cfg, _side_of(image_processor), per_view=0) if aspect_ratio == ANYRES else None
    pixels = [process_image(image, image_processor, aspect_ratio, tiling) for image in images]
    return torch.stack(pixels) if all(p.shape == pixels[0].shape for p in pixels) else pixels


def _side_of(processor: BaseImageProcessor) -> int:
    """Pixels of the square that a processor makes."""
    size = processor.crop_size or processor.size
    return size["height"]


def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> list[int] | torch.Tensor:
    """Ids of a prompt, with `image_token_index` for each `<image>`: a list, or a 1-D int64 tensor for "pt"."""
    ids, _ = encode_segments([Segment(prompt, False)], tokenizer, split_images=True)
    ids = [image_token_index if token == IMAGE_TOKEN_INDEX else token for token in ids]
    if return_tensors is None:
        return ids
    if return_tensors == "pt":
        return torch.tensor(ids, dtype=torch.long)
    raise ValueError(f"return_tensors is None or 'pt', not {return_tensors!r}")


def get_model_name_from_path(model_path: str) -> str:
    """`llava.names.model_name`, under upstream's name; unlike upstream, how a model is loaded does not depend on it."""
    return model_name(model_path)


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stops each row once its generated text contains a keyword.

    `input_ids` is the prompt, `(batch, length)`. Our models generate from embeddings, so that generation returns new
    tokens only; with other models the prompt comes first. The first call tells which.
    """

    def __init__(self, keywords: Sequence[str], tokenizer: PreTrainedTokenizerBase, input_ids: torch.Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.prompt_len = input_ids.shape[1]
        self.start_len: int | None = None

    def __call__(self, output_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        if self.start_len is None:
            self.start_len = self.prompt_len if output_ids.shape[1] > self.prompt_len else 0
        texts = self.tokenizer.batch_decode(output_ids[:, self.start_len :], skip_special_tokens=False)
        done = [any(keyword in text for keyword in self.keywords) for text in texts]
        return torch.tensor(done, device=output_ids.device)
