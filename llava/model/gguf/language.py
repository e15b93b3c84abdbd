"""The language model in llama.cpp's terms: its keys, the names and the layout of its tensors.

Sources: the tables of the package `gguf`, and llama.cpp's src/llama-model.cpp, which reads them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, get_tensor_name_map
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava.checkpoint.opened import Checkpoint, CheckpointError
from llava.checkpoint.tensors import Stored
from llava.families import known_families
from llava.model.gguf.writing import FILE_TYPES, in_dtype

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "phi3": MODEL_ARCH.PHI3,
}
"""Backbone -> llama.cpp's architecture."""
_ROPE = {
    MODEL_ARCH.LLAMA: ("default", "linear", "llama3"),
    MODEL_ARCH.QWEN2: ("default", "linear"),
    MODEL_ARCH.PHI3: ("default", "longrope"),
}
"""The scalings of positions that each architecture computes as transformers does."""
_HEAD = "lm_head.weight"


def language_problems(checkpoint: Checkpoint) -> list[str]:
    """What llama.cpp cannot express in the language model; empty if it can be exported."""
    backbone, config = checkpoint.family.backbone_type, checkpoint.model_config()
    arch = ARCHITECTURES.get(backbone)
    if arch is None:
        allowed = [f.model_type for f in known_families().values() if f.backbone_type in ARCHITECTURES]
        return [f"the backbone is {backbone!r}; those that can be exported: {', '.join(allowed)}"]
    problems = []
    if checkpoint.whole.own.get("quantization_config"):
        problems.append("its weights are stored in 8 or 4 bits; export a checkpoint in 16 or 32 bits")
    if config.hidden_act != "silu":
        problems.append(f"hidden_act is {config.hidden_act!r}; llama.cpp computes 'silu'")
    if config.rope_parameters["rope_type"] not in _ROPE[arch]:
        kind, allowed = config.rope_parameters["rope_type"], ", ".join(_ROPE[arch])
        problems.append(f"rope_type is {kind!r}; llama.cpp's {MODEL_ARCH_NAMES[arch]} has {allowed}")
    if config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0 and arch is not MODEL_ARCH.PHI3:
        problems.append("partial_rotary_factor is not 1, which llama.cpp supports for Phi-3 only")
    return problems


def language_notes(config: Any) -> list[str]:
    """Where llama.cpp will give other answers."""
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
        return [f"llama.cpp attends to all tokens, this model to the last {window}: longer texts get other answers"]
    return []


def add_language_keys(writer: GGUFWriter, config: Any, dtype: torch.dtype) -> None:
    """The keys of the architecture."""
    head = _head_size(config)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(ROPE_INIT_FUNCTIONS["longrope"](config)[1])
    if writer.arch == MODEL_ARCH_NAMES[MODEL_ARCH.PHI3]:
        # Required; 0 is no window.
        writer.add_sliding_window(config.sliding_window or 0)


def language_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Stored], dtype: torch.dtype) -> list[Stored]:
    """The language model's tensors by llama.cpp's names.

    Raises:
        CheckpointError: a tensor that the config requires is missing or has another shape.
    """
    config = checkpoint.model_config()
    config.mm_vision_tower = None
    arch = ARCHITECTURES[checkpoint.family.backbone_type]
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    with torch.device("meta"):
        wanted = checkpoint.family.load_model_class()(config).state_dict()
    if config.tie_word_embeddings:
        # llama.cpp takes the embeddings where it finds no head.
        del wanted[_HEAD]
    found = []
    for name, meta in wanted.items():
        stored = tensors.get(name)
        if stored is None or stored.shape != tuple(meta.shape):
            have = "is missing" if stored is None else f"has the shape {stored.shape} and not {tuple(meta.shape)}"
            raise CheckpointError(
                f"{checkpoint.whole.path} is not whole: {name}, which its config.json requires, {have}"
            )
        if arch is MODEL_ARCH.LLAMA and ".q_proj." in name:
            stored = _paired(stored, config.num_attention_heads)
        elif arch is MODEL_ARCH.LLAMA and ".k_proj." in name:
            stored = _paired(stored, config.num_key_value_heads)
        found.append(in_dtype(stored, dtype).renamed(names.get_name(name, try_suffixes=(".weight", ".bias"))))
    return [*found, *_rope_tensors(config)]


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _paired(stored: Stored, heads: int) -> Stored:
    """A projection whose rows are in the order in which llama.cpp's llama rotates them.

    It rotates rows 2i and 2i + 1 of a head together, transformers rows i and i + half.
    """

    def load() -> torch.Tensor:
        halves = stored.tensor().reshape(heads, 2, -1, *stored.shape[1:])
        return halves.transpose(1, 2).reshape(stored.shape)

    return stored.changed(load)


def _rope_tensors(config: Any) -> list[Stored]:
    """Factors by which llama.cpp divides the frequencies of the rotation, one for each pair of rows, float32."""
    rope = config.rope_parameters
    if rope["rope_type"] == "longrope":
        sides = {side: torch.tensor(rope[f"{side}_factor"], dtype=torch.float32) for side in ("long", "short")}
        return [Stored.of(f"rope_factors_{side}.weight", factors) for side, factors in sides.items()]
    if rope["rope_type"] == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
        plain = rope["rope_theta"] ** -(
            torch.arange(0, _head_size(config), 2, dtype=torch.float32) / _head_size(config)
        )
        return [Stored.of("rope_freqs.weight", plain / scaled)]
    return []
