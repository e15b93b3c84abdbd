"""The common part of Bunny's models (upstream: bunny/model/bunny_arch.py)."""

from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel


class BunnyConfig:
    """A mixin for a config: Bunny's defaults for settings that a checkpoint does not record."""

    mm_projector_type = "mlp2x_gelu"
    mm_vision_select_layer = -2


class BunnyMetaModel(LlavaMetaModel):
    """A mixin for the decoder stack."""


class BunnyMetaForCausalLM(LlavaMetaForCausalLM):
    """A mixin in front of a causal language model of transformers."""

    generate_returns_prompt = False
    """Set by `load_pretrained_model` for upstream's callers, who expect the prompt before the answer."""

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As llava's; with `generate_returns_prompt`, `(batch, length + new)` with 0 for -200, which can be decoded."""
        ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        output = super().generate(ids, **kwargs)
        if not self.generate_returns_prompt:
            return output
        prompt = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, 0)
        if isinstance(output, torch.Tensor):
            return torch.cat([prompt, output], dim=1)
        output.sequences = torch.cat([prompt, output.sequences], dim=1)
        return output
