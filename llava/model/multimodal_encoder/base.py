"""The interface of vision towers (upstream: multimodal_encoder/clip_encoder.py)."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoImageProcessor, CLIPImageProcessorPil, LlavaNextImageProcessorPil, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from llava.checkpoint.folder import local_folder
from llava.checkpoint.hf_llava import TOWER_PREFIXES
from llava.checkpoint.opened import CheckpointError
from llava.checkpoint.safe import without_code
from llava.checkpoint.tensors import TensorFileError, Tensors, tensors_in, weight_files
from llava.model.multimodal_encoder.tower_weights import put_tower_weights, read_tower_weights
from llava.tiling import processor_settings

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


class VisionTower(nn.Module):
    """An image encoder, frozen by default; a stub with known sizes until `load_model` is called.

    Subclasses implement `load_network`, `encode` and `num_patches`.

    Args:
        vision_tower: folder or hub id of the tower.
        tower_config: the tower's own config.
        args: the LLaVA config or the model arguments.
    """

    inside_llava = False
    """Whether the folder is transformers' own LLaVA."""
    file_prefix = ""
    """A level in the weight names of files that the classes of transformers no longer have."""
    can_train = True
    """Whether `unfreeze` may be called; False for a tower with running statistics."""

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_drop_file_prefix)
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.cfg_only = tower_config
        self.vision_tower: nn.Module | None = None
        self.image_processor: BaseImageProcessor | None = None
        self.trains = False
        self.trained_files: Sequence[Path] = ()
        self.missing: Set[str] = set()

    def load_network(self, dtype: torch.dtype | None) -> nn.Module:
        """Returns the network with its weights in `dtype` (None: as stored)."""
        raise NotImplementedError

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels `(batch, 3, height, width)` to features `(batch, num_patches, hidden_size)`."""
        raise NotImplementedError

    def unused_modules(self) -> list[nn.Module]:
        """Parts of the loaded network that the features do not depend on; they never train."""
        return []

    def used_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the loaded network that the features depend on, by name."""
        unused = {id(parameter) for module in self.unused_modules() for parameter in module.parameters()}
        return {name: p for name, p in self.vision_tower.named_parameters() if id(p) not in unused}

    @property
    def hidden_size(self) -> int:
        """Width of a feature."""
        return self.cfg_only.hidden_size

    @property
    def num_patches(self) -> int:
        """Number of features per image."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """The settings that the features depend on (part of the feature cache's key)."""
        return {"config": self.cfg_only.to_dict()}

    def check_files(self) -> None:
        """Raises `CheckpointError` if the tower has no image processor or damaged weights; reads no weight."""
        folder = Path(self.vision_tower_name)
        if folder.is_dir() and not any((folder / name).is_file() for name in _PROCESSORS):
            raise CheckpointError(f"vision tower {folder} has no {_PROCESSORS[0]}; copy it from the tower's source")
        try:
            self.load_processor()
            _ = Tensors([file for file in weight_files(folder) if file.suffix == ".safetensors"]).shards
        except (TensorFileError, OSError) as error:
            why = str(error).partition("\n")[0]
            raise CheckpointError(f"vision tower {folder} is not whole: {why}; copy it again") from error

    def load_processor(self) -> BaseImageProcessor:
        """The processor of one view; needs no weights."""
        if self.image_processor is None:
            processor = without_code(AutoImageProcessor.from_pretrained, self.vision_tower_name, backend="pil")
            if isinstance(processor, LlavaNextImageProcessorPil):
                # The views are `Tiling`'s.
                processor = CLIPImageProcessorPil(**processor_settings(processor))
            self.image_processor = processor
        return self.image_processor

    def load_model(self, device_map: Any = None, dtype: torch.dtype | None = None) -> None:
        """Loads the weights once; `trained_files` replace the folder's. `device_map`: a device or None."""
        if self.is_loaded:
            return
        self.load_processor()
        network = self.load_network(dtype)
        network.requires_grad_(False)
        if isinstance(device_map, str | torch.device) and str(device_map) != "auto":
            network.to(device_map)
        self.vision_tower = network.eval()
        if self.trained_files:
            weights = read_tower_weights(self.trained_files)
            put_tower_weights(network, weights, self.used_parameters(), self.trained_files[0])
        elif missing := sorted(self.missing & self.used_parameters().keys()):
            # They would be random.
            self.vision_tower = None
            raise CheckpointError(
                f"vision tower {self.vision_tower_name} lacks weights, first {missing[0]}; copy it again"
            )
        self.is_loaded = True

    def unload(self) -> None:
        """Becomes a stub again."""
        self.vision_tower = None
        self.is_loaded = False

    def unfreeze(self) -> None:
        """Makes every used parameter trainable; the weights must be loaded."""
        if not self.can_train:
            raise ValueError(f"a vision tower of model_type {self.cfg_only.model_type!r} cannot be unfrozen")
        self.trains = True
        self.vision_tower.requires_grad_(True)
        for module in self.unused_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "VisionTower":
        """A frozen tower stays in evaluation mode, for batch norm and dropout."""
        return super().train(mode and self.trains)

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Features, in the input's dtype, of `(batch, 3, height, width)` or a list of `(3, height, width)`."""
        if not self.is_loaded:
            raise RuntimeError(f"vision tower {self.vision_tower_name} is used before load_model() was called")
        if isinstance(images, list):
            return [self.forward(image.unsqueeze(0)) for image in images]
        with torch.set_grad_enabled(self.trains and torch.is_grad_enabled()):
            return self.encode(images.to(device=self.device, dtype=self.dtype)).to(images.dtype)

    @property
    def dummy_feature(self) -> torch.Tensor:
        """One feature of zeros, `(1, hidden_size)`."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.vision_tower.parameters()).dtype if self.is_loaded else torch.get_default_dtype()

    @property
    def device(self) -> torch.device:
        return next(self.vision_tower.parameters()).device if self.is_loaded else torch.device("cpu")

    @property
    def config(self) -> PreTrainedConfig:
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def weight_files(self) -> list[Path]:
        """The local files that the weights come from (part of the feature cache's key)."""
        folder = Path(self.vision_tower_name)
        own = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]) if folder.is_dir() else []
        return [*own, *self.trained_files]


class PatchTower(VisionTower):
    """A vision transformer of transformers: hidden states of its layer `mm_vision_select_layer` (default -2)."""

    file_prefix = "vision_model."
    config_class: ClassVar[type[PreTrainedConfig]]
    network_class: ClassVar[Any]

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        # The config of a whole CLIP or SigLIP (text and vision) has the tower's one level down.
        if not isinstance(tower_config, self.config_class):
            tower_config = tower_config.vision_config
        super().__init__(vision_tower, tower_config, args)
        self.select_layer = getattr(args, "mm_vision_select_layer", -2)
        states = tower_config.num_hidden_layers + 1
        if not -states <= self.select_layer < states:
            raise ValueError(
                f"mm_vision_select_layer {self.select_layer} does not exist: the tower {vision_tower} has hidden "
                f"states {-states}..{states - 1}"
            )
        self.depth = self.select_layer % states

    def load_network(self, dtype: torch.dtype | None) -> nn.Module:
        """The network from the tower's own folder or hub id, or from transformers' own LLaVA."""
        load = self.network_class.from_pretrained
        if not self.inside_llava:
            options = {"dtype": dtype or "auto", "output_loading_info": True}
            network, found = without_code(load, self.vision_tower_name, **options)
            self.missing = set(found["missing_keys"])
            return network
        weights = {
            stored.name.removeprefix(prefix): stored.tensor()
            for stored in tensors_in(local_folder(self.vision_tower_name))
            for prefix in TOWER_PREFIXES
            if stored.name.startswith(prefix)
        }
        dtype = dtype or next((value.dtype for value in weights.values()), None)
        options = {"config": self.cfg_only, "state_dict": weights, "dtype": dtype, "output_loading_info": True}
        network, found = without_code(load, None, **options)
        self.missing = set(found["missing_keys"])
        return network

    @property
    def num_patches(self) -> int:
        return (self.cfg_only.image_size // self.cfg_only.patch_size) ** 2

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"select_layer": self.select_layer}


def _drop_file_prefix(tower: VisionTower, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Lets `load_state_dict` accept the names in files."""
    if not tower.file_prefix:
        return
    inside = f"{prefix}vision_tower."
    for name in [name for name in state if name.startswith(inside + tower.file_prefix)]:
        state[inside + name.removeprefix(inside + tower.file_prefix)] = state.pop(name)
