"""Projectors from tower features to the language model's width (upstream: multimodal_projector/builder.py).

To add a type: a file that defines a `ProjectorType`, and a row in `PROJECTORS`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.checkpoint.parts import NEWLINE, projector_key
from llava.checkpoint.safe import load_pickled
from llava.model.multimodal_projector.pixel_shuffle import PIXEL_SHUFFLE
from llava.model.multimodal_projector.types import ProjectorError, ProjectorType, Shapes
from llava.tiling import ANYRES, SPATIAL_UNPAD, has_newline


def _mlp(match: re.Match[str], width: int, hidden_size: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(width, hidden_size)]
    for _ in range(1, int(match.group(1))):
        layers += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
    return nn.Sequential(*layers)


def _mlp_type(shapes: Shapes, width: int) -> str | None:
    indices = sorted(int(name.split(".")[0]) for name in shapes if re.fullmatch(r"\d+\.weight", name))
    return f"mlp{len(indices)}x_gelu" if indices and indices == list(range(0, 2 * len(indices), 2)) else None


def _identity(match: re.Match[str], width: int, hidden_size: int) -> nn.Module:
    if width != hidden_size:
        raise ProjectorError(
            f"--mm_projector_type identity needs a tower as wide as the language model; the tower has {width}, the "
            f"language model {hidden_size}"
        )
    return nn.Identity()


PROJECTORS: tuple[ProjectorType, ...] = (
    ProjectorType(
        "linear",
        "linear",
        lambda match, width, hidden_size: nn.Linear(width, hidden_size),
        lambda shapes, width: "linear" if set(shapes) == {"weight", "bias"} else None,
    ),
    ProjectorType("mlpNx_gelu (such as mlp2x_gelu)", r"mlp([1-9]\d*)x_gelu", _mlp, _mlp_type),
    ProjectorType("identity", "identity", _identity, lambda shapes, width: None if shapes else "identity"),
    PIXEL_SHUFFLE,
)


def _find(config: Any) -> tuple[ProjectorType, re.Match[str]]:
    """The row of `mm_projector_type` (default: linear), and the match of its pattern."""
    kind = getattr(config, "mm_projector_type", "linear")
    for row in PROJECTORS:
        match = re.fullmatch(row.pattern, kind)
        if match:
            return row, match
    allowed = ", ".join(row.usage for row in PROJECTORS)
    raise ProjectorError(f"unknown --mm_projector_type {kind!r}; allowed: {allowed}")


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The projector `mm_projector_type` from `mm_hidden_size` to `hidden_size`; raises `ProjectorError`."""
    row, match = _find(config)
    return row.build(match, config.mm_hidden_size, config.hidden_size)


def image_tokens(config: Any, tower_tokens: int) -> int:
    """Tokens per image after the projector, for `tower_tokens` before it; raises `ProjectorError`."""
    row, match = _find(config)
    return row.tokens(match, tower_tokens)


def read_projector(path: str | Path) -> dict[str, torch.Tensor]:
    """The projector's tensors in a file: by the module's own names ("0.weight"), and `image_newline`, if it has one."""
    path = Path(path)
    if path.is_dir():
        raise ProjectorError(f"projector file {path} is a folder; give mm_projector.bin in it")
    if not path.is_file():
        raise FileNotFoundError(f"projector file {path} does not exist")
    try:
        tensors = load_pickled(path)
    except ValueError as error:
        raise ProjectorError(f"projector file {error}") from error
    if not isinstance(tensors, Mapping):
        raise ProjectorError(f"projector file {path} holds a {type(tensors).__name__}, not named tensors")
    return projector_weights(tensors, path)


def projector_weights(tensors: Mapping[str, torch.Tensor], source: str | Path) -> dict[str, torch.Tensor]:
    """The projector's tensors, as `read_projector` returns them."""
    found = {key: value for name, value in tensors.items() if (key := projector_key(name))}
    weights = {key.removeprefix("mm_projector."): value for key, value in found.items()}
    if not weights and tensors:
        raise ProjectorError(
            f"projector file {source} holds no mm_projector weights; it has {', '.join(tensors)[:200]}"
        )
    return weights


def check_projector_weights(weights: Mapping[str, torch.Tensor], config: Any, source: str | Path) -> None:
    """Raises `ProjectorError` if names or shapes are not those that the config requires; allocates nothing.

    `image_newline` may be missing, as in a file of LLaVA-1.5.
    """
    with torch.device("meta"):
        wanted = {name: tuple(p.shape) for name, p in build_vision_projector(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if NEWLINE in found:
        if not has_newline(config):
            raise ProjectorError(
                f"projector file {source} holds {NEWLINE} and was trained with several views per image; give "
                f"--image_aspect_ratio {ANYRES} --mm_patch_merge_type {SPATIAL_UNPAD}"
            )
        wanted[NEWLINE] = (config.hidden_size,)
    if found == wanted:
        return
    kind = getattr(config, "mm_projector_type", "linear")
    own = {name: shape for name, shape in found.items() if name != NEWLINE}
    looks = next((name for row in PROJECTORS if (name := row.type_of(own, config.mm_hidden_size))), None)
    advice = f"; the file looks like --mm_projector_type {looks}" if looks and looks != kind else ""
    raise ProjectorError(
        f"projector file {source} does not fit: --mm_projector_type {kind} between this tower "
        f"({config.mm_hidden_size}) and this language model ({config.hidden_size}) has {_shapes(wanted)}, "
        f"the file has {_shapes(found)}{advice}"
    )


def _shapes(shapes: Shapes) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()) or "nothing"
