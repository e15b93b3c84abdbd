"""What all of Bunny's models share (upstream: bunny/model/bunny_arch.py); everything else is llava's."""

from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel


class BunnyConfig:
    """A mixin for a language model's config: Bunny's defaults for settings that a checkpoint does not record."""

    mm_projector_type = "mlp2x_gelu"
    mm_vision_select_layer = -2


class BunnyMetaModel(LlavaMetaModel):
    """A mixin for the decoder stack."""


class BunnyMetaForCausalLM(LlavaMetaForCausalLM):
    """A mixin in front of a causal language model of transformers."""

    generate_returns_prompt = False
    """Upstream's Bunny returns the prompt in front of the answer, and its callers cut it off. Bunny's own
    `load_pretrained_model` sets this for them; the code of this repository uses the new tokens only."""

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As llava's: ids `(batch, length)` to the new tokens `(batch, new)`.

        With `generate_returns_prompt` the result is `(batch, length + new)`; an image's -200 in the prompt is 0 there,
        so that the row can be decoded.
        """
        ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        output = super().generate(ids, **kwargs)
        if not self.generate_returns_prompt:
            return output
        prompt = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, 0)
        if isinstance(output, torch.Tensor):
            return torch.cat([prompt, output], dim=1)
        output.sequences = torch.cat([prompt, output.sequences], dim=1)
        return output
