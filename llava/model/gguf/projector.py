"""Vision tower and projector in llama.cpp's terms: the file that its mtmd tools take as `--mmproj`.

Sources: llama.cpp's tools/mtmd/clip.cpp and clip-impl.h (keys and tensors), models/llava.cpp (what is computed).
"""

from collections.abc import Mapping
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

from llava.checkpoint.parts import NEWLINE, projector_key
from llava.checkpoint.tensors import Stored
from llava.model.export import vision_problems
from llava.model.gguf.writing import FILE_TYPES, in_dtype
from llava.model.multimodal_encoder.base import PatchTower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

_ACTIVATIONS = {"quick_gelu": False, "gelu": True, "gelu_pytorch_tanh": True}
"""`hidden_act` of a tower -> `clip.use_gelu`, which is the tanh approximation."""
_IN_FLOAT32 = ("v.position_embd.weight", "v.patch_embd.weight")


def projector_problems(config: Any, tower: Any) -> list[str]:
    """What llama.cpp cannot express in tower and projector; empty if they can be exported."""
    problems = vision_problems(config, tower, "llama.cpp's mtmd")
    ratio = getattr(config, "image_aspect_ratio", None)
    if ratio not in (None, "square", "pad"):
        problems.append(f"image_aspect_ratio is {ratio!r}; those that can be exported: 'square', 'pad'")
    if not isinstance(tower, PatchTower):
        return problems
    if getattr(tower, "select_feature", "patch") != "patch":
        problems.append("mm_vision_select_feature is 'cls_patch'; llama.cpp drops the class token ('patch')")
    if (act := tower.cfg_only.hidden_act) not in _ACTIVATIONS:
        problems.append(f"the tower's hidden_act is {act!r}; llama.cpp has {', '.join(_ACTIVATIONS)}")
    return problems


def projector_notes(config: Any, tower: PatchTower) -> list[str]:
    """Where llama.cpp will give other answers."""
    notes = []
    if isinstance(tower, CLIPVisionTower):
        notes.append(
            "llama.cpp's releases since May 2025 misplace CLIP's class token (ggml-org/llama.cpp#25814): until that is "
            "mended, they answer worse about images"
        )
    ratio = getattr(config, "image_aspect_ratio", None)
    if ratio != "pad":
        trained = f"this model was trained with image_aspect_ratio {ratio or 'square'!r}"
        notes.append(f"llama.cpp pads images to a square; {trained}")
    return notes


def add_projector_keys(writer: GGUFWriter, config: Any, tower: PatchTower, dtype: torch.dtype) -> None:
    """The keys of a CLIP or SigLIP tower with a projector of two layers."""
    vision, processor = tower.cfg_only, tower.load_processor()
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_use_gelu(_ACTIVATIONS[vision.hidden_act])
    writer.add_vision_image_size(vision.image_size)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.layer_norm_eps)
    writer.add_vision_image_mean(list(processor.image_mean))
    writer.add_vision_image_std(list(processor.image_std))
    writer.add_vision_projection_dim(config.hidden_size)
    # Without the second key, the last of the layers in the file is not computed.
    writer.add_vision_block_count(tower.depth)
    writer.add_array("clip.vision.feature_layer", [tower.depth])


def projector_tensors(tower: PatchTower, tensors: Mapping[str, Stored], dtype: torch.dtype) -> list[Stored]:
    """The tower's layers up to the selected one, and the projector; loads the tower, in the dtype that it is stored in.

    Args:
        tensors: the checkpoint's, by our names.
    """
    tower.load_model()
    names = get_tensor_name_map(MODEL_ARCH.MMPROJ, tower.depth)
    found = []
    for name, parameter in tower.used_parameters().items():
        stored = Stored.of(f"vision_tower.{tower.file_prefix}{name}", parameter.detach())
        found.append(stored.renamed(names.get_name(stored.name, try_suffixes=(".weight", ".bias"))))
    for name, stored in tensors.items():
        if (key := projector_key(name)) and key != NEWLINE:
            found.append(stored.renamed(f"mm.{key.removeprefix('mm_projector.')}"))
    return [in_dtype(stored, torch.float32 if stored.name in _IN_FLOAT32 else dtype) for stored in found]
