"""Loading any checkpoint of this stack (upstream: llava/model/builder.py)."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from llava.checkpoint.adapter import NON_LORA, strip_wrapper_prefix
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.hf_llava import KEY_MAPPING, our_name
from llava.checkpoint.opened import Checkpoint, CheckpointError, Kind
from llava.checkpoint.parts import NEWLINE, is_projector, is_vision, projector_key
from llava.checkpoint.tokenizer import load_tokenizer
from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.devices import is_out_of_memory
from llava.families import family_of
from llava.model.merge import attach_lora, merge_lora
from llava.model.missing_weights import from_pretrained_whole
from llava.model.multimodal_encoder.builder import VisionTowerError, build_vision_tower
from llava.model.multimodal_encoder.tower_weights import trained_tower_files
from llava.model.multimodal_projector.builder import check_projector_weights, projector_weights
from llava.model.quantization import quantization_for

_DEFAULT_CONTEXT = 2048


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, Any, BaseImageProcessor | None, int]:
    """Upstream's signature for `load_checkpoint(open_checkpoint(...))`; `model_name` is not used."""
    kwargs |= {"load_8bit": load_8bit, "load_4bit": load_4bit, "use_flash_attn": use_flash_attn}
    return load_checkpoint(open_checkpoint(model_path, model_base), device_map=device_map, device=device, **kwargs)


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    dtype: torch.dtype | None = None,
    vision_tower: str | None = None,
    load_tower: bool = True,
    text_only: bool = False,
    quantization_config: BitsAndBytesConfig | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, Any, BaseImageProcessor | None, int]:
    """Loads a checkpoint for inference.

    Args:
        load_8bit: quantise the language model to 8 bits (`quantization_for`); a LoRA is then not merged.
        load_4bit: the same with 4 bits.
        device_map: "auto" uses all GPUs if there are several; otherwise as in from_pretrained.
        device: "cuda" without a GPU means the CPU.
        dtype: default: float16 on a GPU, as upstream, and float32 on a CPU.
        vision_tower: replaces the recorded path of the tower. A trained tower's weights are the checkpoint's anyway.
        load_tower: False leaves the tower a stub, for cached features.
        text_only: load neither tower nor projector.
        quantization_config: replaces load_8bit and load_4bit.
        kwargs: for from_pretrained.

    Returns:
        `(tokenizer, model, image_processor, context_len)`; image_processor is None for a model without a tower.

    Raises:
        CheckpointError: weights are missing or do not fit, or a LoRA or a projector has no vision tower.
        VisionTowerError: the recorded tower is missing.
    """
    device = checked_device(device)
    dtype = dtype or (torch.float32 if device == "cpu" else torch.float16)
    if use_flash_attn:
        kwargs["attn_implementation"] = "flash_attention_2"
    if load_8bit and load_4bit:
        raise ValueError("--load-8bit and --load-4bit exclude each other; give one")
    bits = 8 if load_8bit else 4 if load_4bit else 16
    quantization = quantization_config or quantization_for(bits, dtype)
    placement = _placement(device_map, device, quantization is not None)
    if placement is not None:
        kwargs["device_map"] = placement
    if quantization is not None:
        kwargs["quantization_config"] = quantization

    _check_parts(checkpoint)
    # A LoRA is merged before any rounding: its base is loaded in its stored dtype.
    first = checkpoint.stored_dtype if checkpoint.kind is Kind.LORA and quantization is None else dtype
    model = load_base(checkpoint.whole, checkpoint.model_config(vision_tower), first, text_only, **kwargs)
    if checkpoint.kind is Kind.FULL and not checkpoint.tower:
        add_head_bias(model, checkpoint)
    if checkpoint.kind is not Kind.FULL:
        add_trained_weights(model, checkpoint, widen=quantization is None)
    if checkpoint.kind is Kind.LORA:
        merged = quantization is None
        model = merge_lora(model, checkpoint, dtype) if merged else attach_lora(model, checkpoint).get_base_model()
    if quantization is None:
        cast_weights(model, dtype)
        with _memory_explained(checkpoint, device):
            model = model if placement else model.to(device)
    model.eval()
    model.config.use_cache = True
    model.config.name_or_path = checkpoint.name
    tokenizer = load_tokenizer(checkpoint.tokenizer_folder)
    add_image_tokens(tokenizer, model)

    tower = model.get_vision_tower()
    processor = None
    if tower is not None:
        tower.trained_files = trained_tower_files(checkpoint)
        processor = tower.load_processor()
        if load_tower:
            tower.load_model(device_map=device, dtype=dtype)
    context = getattr(model.config, "max_sequence_length", None) or _DEFAULT_CONTEXT
    return tokenizer, model, processor, context


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Casts what a checkpoint stores, in place.

    What is computed from the config keeps its dtype: rounded frequencies of RoPE would make the angles of late
    positions wrong.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))


@contextlib.contextmanager
def _memory_explained(checkpoint: Checkpoint, device: str) -> Iterator[None]:
    """Turns an error about memory into a `CheckpointError`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        what = "take 4 bits (--load-4bit, where a program has it), several GPUs, or the CPU (--device cpu)"
        raise CheckpointError(f"{checkpoint.name} does not fit into the memory of {device}; {what}") from error


def checked_device(device: str) -> str:
    """The device to use: "cuda" without a GPU is the CPU; raises `ValueError` for a GPU that does not exist."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number and int(number) >= count:
        have = f"has cuda:0 to cuda:{count - 1}" if count else "has no GPU that torch can use; give cpu"
        raise ValueError(f"--device {device} does not exist: this machine {have}")
    return device if count else "cpu"


def _check_parts(checkpoint: Checkpoint) -> None:
    """A LoRA or a projector needs a vision-language model; prints a note about a LoRA without its projector."""
    if checkpoint.kind is not Kind.FULL and not checkpoint.tower:
        raise CheckpointError(
            f"{checkpoint.path} has no config.json that names a vision tower, and its base {checkpoint.base.path} is a "
            "plain language model. Upstream's checkpoint-N of a LoRA run holds the LoRA only (its projector was never "
            "written); use the folder of the finished run. If it is a LoRA of the language model alone, merge it with "
            "PEFT and give the merged folder"
        )
    if checkpoint.kind is Kind.LORA and not checkpoint.tensors.files:
        print(
            f"note: {checkpoint.path} has no {NON_LORA}; the projector is its base's. If the LoRA was trained together "
            "with a projector (upstream's checkpoint-N), that projector is missing and answers will be wrong",
            file=sys.stderr,
        )


def _placement(device_map: Any, device: str, quantized: bool) -> Any:
    """The device_map to load with; None: load on the CPU and then move the whole model."""
    if device != "cuda":
        return {"": device} if quantized else None
    if device_map == "auto" and not quantized and torch.cuda.device_count() == 1:
        return None
    return device_map


def load_base(checkpoint: Checkpoint, config: Any, dtype: Any, text_only: bool = False, **kwargs: Any) -> Any:
    """The LLaVA of `config` with the weights of a full checkpoint, or of a plain language model; its tower is a stub.

    Raises:
        VisionTowerError: before any weight is read, if the recorded tower is missing.
    """
    if text_only:
        config.mm_vision_tower = None
    if getattr(config, "mm_vision_tower", None):
        try:
            build_vision_tower(config, delay_load=True).check_files()
        except VisionTowerError as error:
            raise VisionTowerError(
                f"{error}. The checkpoint's config.json names it; give --vision-tower the tower's folder here"
            ) from error
    if checkpoint.hf:
        kwargs["key_mapping"] = KEY_MAPPING
    # A plain language model may be the base of several families; the config decides.
    model = from_pretrained_whole(checkpoint, family_of(config), config=config, dtype=dtype, **kwargs)
    # Otherwise transformers restores the old names of the weights on saving.
    model._weight_conversions = None
    # The name that results record as their base: of a hub id not its folder in the cache of this machine.
    model.name_or_path = model.config.name_or_path = checkpoint.name
    clean_generation_config(model)
    if checkpoint.hf:
        # It suppresses `<image>`, which is no token here.
        model.generation_config.suppress_tokens = None
    return model


def add_head_bias(model: Any, checkpoint: Checkpoint) -> None:
    """Gives a plain language model the bias of its head, such as Microsoft's Phi has; a Bunny's Phi has none."""
    if "lm_head.bias" in checkpoint.tensors and model.lm_head.bias is None:
        bias = checkpoint.tensors["lm_head.bias"].tensor()
        model.lm_head.bias = nn.Parameter(bias.to(model.lm_head.weight), requires_grad=False)


def clean_generation_config(model: Any) -> None:
    """Removes sampling values that contradict `do_sample` false.

    transformers refuses to save them, and Vicuna has some (LLaVA#1144).
    """
    generation = getattr(model, "generation_config", None)
    if generation is not None and not generation.do_sample:
        for name in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            if getattr(generation, name, None) is not None:
                setattr(generation, name, None)


def add_image_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Adds the image marks of checkpoints before LLaVA-1.5, with embeddings, if the config requires them."""
    if getattr(model.config, "mm_use_im_patch_token", False):
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if getattr(model.config, "mm_use_im_start_end", False):
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))


def add_trained_weights(model: Any, checkpoint: Checkpoint, widen: bool = False) -> None:
    """Loads the weights of stage 1, or of a LoRA run, into the model; a trained tower's are loaded with the tower.

    `widen`: what they replace becomes float32 first. A later `.to(dtype)` then rounds them once, whatever dtype the
    base is stored in.
    """
    if not checkpoint.tensors.files:
        return
    file, tensors = checkpoint.tensors.files[0], checkpoint.tensors.loaded()
    state = {strip_wrapper_prefix(name): value for name, value in tensors.items() if not is_vision(name)}
    if widen:
        for name, parameter in model.named_parameters():
            if is_projector(name) or name in state:
                parameter.data = parameter.data.float()
    weights = projector_weights(tensors, file)
    if model.get_vision_tower() is not None:
        check_projector_weights(weights, model.config, file)
        model.get_model().load_projector(weights)
        stored = {*weights, *(projector_key(our_name(name)) for name in checkpoint.whole.tensors.by_name)}
        if model.get_model().image_newline is not None and NEWLINE not in stored:
            raise CheckpointError(f"{file} holds no {NEWLINE}, which config.json asks for, and neither does the base")
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise CheckpointError(f"{file} holds weights that the model has no place for: {', '.join(unexpected[:3])}")
