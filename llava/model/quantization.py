"""A language model in 8 or 4 bits (bitsandbytes)."""

import importlib.util
from typing import Any

import torch

QUANT_TYPES = ("nf4", "fp4")
NOT_QUANTIZED = ["model.mm_projector", "model.vision_tower", "lm_head"]
"""Full paths of modules that are not quantised: the head as in the QLoRA paper; projector and tower because it makes
answers worse and saves nothing, and because the projector's weights could not be loaded (LLaVA#433)."""


class QuantizationError(ValueError):
    """Invalid settings of quantisation."""


def quantization_for(
    bits: int, compute_dtype: torch.dtype, *, double_quant: bool = True, quant_type: str = "nf4"
) -> Any:
    """The `quantization_config` for `from_pretrained`; None for 16 bits.

    Args:
        compute_dtype: dtype of 4-bit weights in a matrix product.
        double_quant, quant_type: for 4 bits: quantise the scales too; "nf4" or "fp4".

    Raises:
        QuantizationError: an unknown value, or bitsandbytes is not installed.
    """
    if bits not in (4, 8, 16):
        raise QuantizationError(f"{bits} bits are not possible; allowed: 16, 8, 4")
    if quant_type not in QUANT_TYPES:
        raise QuantizationError(f"quant_type {quant_type!r}; allowed: {', '.join(QUANT_TYPES)}")
    if bits == 16:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise QuantizationError(
            f"{bits} bits need the package bitsandbytes, which is not installed: pip install -c constraints.txt "
            "-e '.[scale]'; or use 16 bits"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        llm_int8_skip_modules=NOT_QUANTIZED,
        llm_int8_threshold=6.0,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_quant_type=quant_type,
    )
