"""What a training run costs, from module shapes alone: parameters, FLOPs, bytes. The model may be on the meta device.

FLOPs of a decoder layer and one sample: forward L (linear modules) + a (attention) + e (LoRA). The backward of a frozen
layer is L + 2a (no weight gradient), that of a LoRA 2e more, that of a trained layer L more. Checkpointing repeats the
forward, except the last linear module or the last LoRA factor. An addition or a multiplication is one FLOP;
element-wise work is not counted. The tests compare all this with torch's FlopCounterMode, which cannot be used here: it
would need a forward and a backward per selection, and a head on labelled positions has no shape on the meta device.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from visual_region.commands.flags import MODES
from visual_region.layers import LayerSelection

# What reads a layer's input: in the lowest layer that trains, its input gradient is not needed.
_READS_INPUT = ("q_proj", "k_proj", "v_proj", "qkv_proj")
_FLOAT32 = 4
_ADAM_STATES = 2


class CostError(ValueError):
    """A recipe that is not possible; the message says what is allowed."""


@dataclass(frozen=True)
class Recipe:
    """How a run trains.

    Attributes:
        mode: "lora", "full" (the selected layers' own weights) or "projector" (stage 1).
        text_tokens, image_tokens: of one sample; image_tokens 0 means text only.
        labelled_tokens: how many text tokens have a label.
        label_only_logits: the head runs on labelled positions only.
        cuda_autocast: 16 bits by CUDA's autocast, which computes some functions in float32; DeepSpeed has none.
    """

    mode: str
    text_tokens: int
    image_tokens: int
    labelled_tokens: int
    lora_r: int = 128
    gradient_checkpointing: bool = False
    label_only_logits: bool = True
    train_projector: bool = True
    cuda_autocast: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise CostError(f"mode {self.mode!r} is unknown; allowed: {', '.join(MODES)}")
        if self.text_tokens < 1 or self.image_tokens < 0 or self.lora_r < 1:
            raise CostError("text tokens and LoRA rank must be at least 1, image tokens at least 0")
        if not 0 < self.labelled_tokens <= self.text_tokens:
            raise CostError(f"labelled tokens must be from 1 to the {self.text_tokens} text tokens")

    @property
    def length(self) -> int:
        return self.text_tokens + self.image_tokens

    @property
    def head_positions(self) -> int:
        return self.labelled_tokens if self.label_only_logits else self.length


Linears = tuple[tuple[str, int, int], ...]
"""`(name, in, out)` of each linear module."""


def linears_of(module: nn.Module) -> Linears:
    found = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return tuple((name, part.in_features, part.out_features) for name, part in found)


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class LayerShape:
    """A decoder layer: its linear modules in order, the width of its attention (heads x head size), its parameters."""

    linears: Linears
    attention: int
    parameters: int

    @classmethod
    def of(cls, layer: nn.Module, config: Any) -> "LayerShape":
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(linears_of(layer), config.num_attention_heads * head, parameters_of(layer))

    def lora_parameters(self, r: int) -> int:
        return sum(r * (i + o) for _, i, o in self.linears)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model.

    Attributes:
        language_model: all parameters of the language model, tied ones once.
        tower_flops, tower_parameters: one image through the frozen tower; None if unknown.
    """

    layers: tuple[LayerShape, ...]
    hidden_size: int
    vocab_size: int
    language_model: int
    projector: Linears = ()
    projector_parameters: int = 0
    tower_flops: int | None = None
    tower_parameters: int | None = None

    @classmethod
    def of(cls, model: nn.Module, layer_path: str, projector: nn.Module | None = None, **tower: int | None) -> Any:
        """The sizes of a causal language model without vision modules, and of its projector."""
        config, projector = model.config, nn.Identity() if projector is None else projector
        return cls(
            tuple(LayerShape.of(layer, config) for layer in model.get_submodule(layer_path)),
            config.hidden_size,
            config.vocab_size,
            parameters_of(model),
            linears_of(projector),
            parameters_of(projector),
            **tower,
        )


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sample; `backward` includes `recomputed`."""

    tower: int
    forward: int
    backward: int
    recomputed: int

    @property
    def total(self) -> int:
        return self.tower + self.forward + self.backward


def lowest_with_gradient(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> tuple[int, bool]:
    """The lowest layer with gradients (none: the number of layers), and whether they reach the projector.

    Without checkpointing. A projector that trains on an image needs the gradients of every layer.
    """
    reaches_projector = recipe.train_projector and recipe.image_tokens > 0 and bool(shape.projector)
    everything = recipe.mode == "full" and len(selection or ()) == len(shape.layers)
    return 0 if reaches_projector or everything else min(selection or (), default=len(shape.layers)), reaches_projector


def flops_per_sample(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> Flops:
    """FLOPs of one sample's forward and backward; `selection` is None in mode "projector"."""
    s, tuned = recipe.length, set(selection or ())
    everything = recipe.mode == "full" and len(tuned) == len(shape.layers)
    lowest, reaches_projector = lowest_with_gradient(shape, selection, recipe)
    whole_depth = everything or reaches_projector or recipe.gradient_checkpointing
    # Checkpointing recomputes a frozen first layer only if the embeddings' output requires a gradient.
    lowest = 0 if recipe.gradient_checkpointing else lowest

    forward = backward = recomputed = 0
    for i, layer in enumerate(shape.layers):
        linear = [2 * s * n_in * n_out for _, n_in, n_out in layer.linears]
        attention = 4 * s * s * layer.attention
        adapted = recipe.mode == "lora" and i in tuned
        lora = 2 * s * layer.lora_parameters(recipe.lora_r) if adapted else 0
        once = sum(linear) + attention + lora
        forward += once
        if i < lowest:
            continue
        backward += sum(linear) + 2 * attention + 2 * lora
        if recipe.mode == "full" and i in tuned:
            backward += sum(linear)
        if i == lowest and not whole_depth and recipe.mode == "lora":
            # The frozen weights that read the layer's input, and the first LoRA factors there, pass nothing down.
            for name, n_in, n_out in layer.linears:
                if name.endswith(_READS_INPUT):
                    backward -= 2 * s * n_in * (n_out + recipe.lora_r)
        if recipe.gradient_checkpointing:
            recomputed += once - (2 * s * recipe.lora_r * layer.linears[-1][2] if adapted else linear[-1])

    head = 2 * recipe.head_positions * shape.hidden_size * shape.vocab_size
    forward += head
    backward += head * ((lowest < len(shape.layers)) + everything)
    sizes = [2 * recipe.image_tokens * n_in * n_out for _, n_in, n_out in shape.projector]
    forward += sum(sizes)
    if reaches_projector:
        backward += sum(sizes) + sum(sizes[1:])
    tower = (recipe.image_tokens and shape.tower_flops) or 0
    return Flops(tower, forward, backward + recomputed, recomputed)


@dataclass(frozen=True)
class Trained:
    """Parameters that train in decoder layers, the rest of the language model and the projector; all, without tower."""

    layers: int
    rest: int
    projector: int
    total: int

    @property
    def trained(self) -> int:
        return self.layers + self.rest + self.projector


def trained_parameters(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> Trained:
    """How many parameters train; the total includes those of a LoRA."""
    tuned = tuple(selection or ())
    total = shape.language_model + shape.projector_parameters
    layers = rest = 0
    if recipe.mode == "lora":
        layers = sum(shape.layers[i].lora_parameters(recipe.lora_r) for i in tuned)
        total += layers
    elif recipe.mode == "full":
        layers = sum(shape.layers[i].parameters for i in tuned)
        if len(tuned) == len(shape.layers):
            rest = shape.language_model - layers
    return Trained(layers, rest, shape.projector_parameters if recipe.train_projector else 0, total)


@dataclass(frozen=True)
class Bytes:
    """Memory of one device without sharding, and sizes of files.

    Attributes:
        weights: frozen ones, with the tower's, in the run's dtype; trained ones in float32.
        gradients, optimizer: of AdamW in float32.
        result: weight files of the final folder; checkpoint: of one checkpoint-N, with the optimizer's state.
    """

    weights: int
    gradients: int
    optimizer: int
    result: int
    checkpoint: int


def bytes_needed(shape: ModelShape, trained: Trained, recipe: Recipe, itemsize: int) -> Bytes:
    """Bytes of weights, gradients, optimizer and files; `itemsize` is that of the run's dtype."""
    n, tower = trained.trained, shape.tower_parameters or 0
    frozen = trained.total - n + tower
    if recipe.mode == "full":
        # A full checkpoint contains a copy of the tower, as upstream's does.
        result = itemsize * (trained.total + tower)
        model_files = itemsize * frozen + _FLOAT32 * n
    else:
        # A frozen projector is written too.
        projector = 0 if recipe.train_projector else itemsize * shape.projector_parameters
        result = model_files = _FLOAT32 * n + projector
    return Bytes(
        weights=itemsize * frozen + _FLOAT32 * n,
        gradients=_FLOAT32 * n,
        optimizer=_ADAM_STATES * _FLOAT32 * n,
        result=result,
        checkpoint=model_files + _ADAM_STATES * _FLOAT32 * n,
    )
