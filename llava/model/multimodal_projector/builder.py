"""Projectors from tower features to the language model's width (upstream: multimodal_projector/builder.py)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

_MLP = re.compile(r"mlp(\d+)x_gelu")
PROJECTOR_TYPES = "linear, mlpNx_gelu (such as mlp2x_gelu), identity"


class ProjectorError(ValueError):
    """A projector of an unknown type, or a projector file that does not fit the config."""


class IdentityMap(nn.Module):
    """Passes features through: for a tower as wide as the language model."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return x


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The projector `mm_projector_type` (default linear) from `mm_hidden_size` to `hidden_size`.

    Raises:
        ProjectorError: unknown type, or identity between different widths.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    match = _MLP.fullmatch(kind)
    if match and int(match.group(1)) > 0:
        layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
        for _ in range(1, int(match.group(1))):
            layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
        return nn.Sequential(*layers)
    if kind == "identity":
        if config.mm_hidden_size != config.hidden_size:
            raise ProjectorError(
                f"--mm_projector_type identity needs a tower as wide as the language model; the tower has "
                f"{config.mm_hidden_size}, the language model {config.hidden_size}"
            )
        return IdentityMap()
    raise ProjectorError(f"unknown --mm_projector_type {kind!r}; allowed: {PROJECTOR_TYPES}")


def read_projector(path: str | Path) -> dict[str, torch.Tensor]:
    """The projector's tensors in a file, under the names that the module itself uses ("0.weight").

    The text before `mm_projector.` may be anything, as in upstream's reader: stage 1, LoRA and merged files differ.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"projector file {path} does not exist")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ProjectorError(f"projector file {path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(tensors, Mapping):
        raise ProjectorError(f"projector file {path} holds a {type(tensors).__name__}, not named tensors")
    return projector_weights(tensors, path)


def projector_weights(tensors: Mapping[str, torch.Tensor], source: str | Path) -> dict[str, torch.Tensor]:
    """The projector's among some tensors, as `read_projector` gives them."""
    weights = {name.split("mm_projector.", 1)[1]: value for name, value in tensors.items() if "mm_projector." in name}
    if not weights and tensors:
        raise ProjectorError(
            f"projector file {source} holds no mm_projector weights; it has {', '.join(tensors)[:200]}"
        )
    return weights


def check_projector_weights(weights: Mapping[str, torch.Tensor], config: Any, source: str | Path) -> None:
    """Compares names and shapes with what the config asks for, without building anything of size.

    Raises:
        ProjectorError: says what the file holds and what the config wants.
    """
    with torch.device("meta"):
        wanted = {name: tuple(p.shape) for name, p in build_vision_projector(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found == wanted:
        return
    kind = getattr(config, "mm_projector_type", "linear")
    looks = projector_type_of(found)
    advice = f"; the file looks like --mm_projector_type {looks}" if looks and looks != kind else ""
    raise ProjectorError(
        f"projector file {source} does not fit: --mm_projector_type {kind} between this tower "
        f"({config.mm_hidden_size}) and this language model ({config.hidden_size}) has {_shapes(wanted)}, "
        f"the file has {_shapes(found)}{advice}"
    )


def projector_type_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The type that such tensor names belong to, or None."""
    if not shapes:
        return "identity"
    if set(shapes) == {"weight", "bias"}:
        return "linear"
    indices = sorted(int(name.split(".")[0]) for name in shapes if re.fullmatch(r"\d+\.weight", name))
    return f"mlp{len(indices)}x_gelu" if indices and indices == list(range(0, 2 * len(indices), 2)) else None


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()) or "nothing"
