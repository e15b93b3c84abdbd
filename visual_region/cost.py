"""What a training run costs, from module shapes alone: parameters, FLOPs, bytes. The model may be on the meta device.

Words, per decoder layer and sample of S tokens: L = forward of its linear modules, a = forward of its attention
(scores and values, S x S), F = L + a; e = forward of its LoRA; d = forward of its last linear module. A frozen layer's
backward is L + 2a (no weight gradient), a LoRA's 2e more, a trained layer's L more. With checkpointing the forward is
done again, up to the last tensor that backward needs: d less, or, in an adapted layer, its last LoRA factor less.
Gradients run down to the lowest layer with anything trained below or in it: with an image and a projector that trains,
through every layer, whatever is selected. A FLOP is an addition or a multiplication; element-wise work is not counted.

These forms equal torch's FlopCounterMode (tests). The counter itself would need a forward and a backward of the whole
model per selection, and the head on labelled positions only has no shape on the meta device.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from visual_region.layers import LayerSelection
from visual_region.tuning import decoder_layers

MODES = ("lora", "full", "projector")
# What reads a layer's input: in the lowest layer that trains, its input gradient is not needed.
_READS_INPUT = ("q_proj", "k_proj", "v_proj", "qkv_proj")
_FLOAT32 = 4
_ADAM_STATES = 2


class CostError(ValueError):
    """A recipe that cannot be priced; the message says what is allowed."""


@dataclass(frozen=True)
class Recipe:
    """How a run trains.

    Attributes:
        mode: "lora", "full" (the selected layers' own weights) or "projector" (stage 1).
        text_tokens, image_tokens: of one sample; image_tokens 0 means text only.
        labelled_tokens: positions with a label.
        label_only_logits: the head runs on those alone.
        train_projector: False if it is frozen.
    """

    mode: str
    text_tokens: int
    image_tokens: int
    labelled_tokens: int
    lora_r: int = 128
    gradient_checkpointing: bool = False
    label_only_logits: bool = True
    train_projector: bool = True

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
        """Positions of a sample that the head runs on."""
        return self.labelled_tokens if self.label_only_logits else self.length


@dataclass(frozen=True)
class LayerShape:
    """A decoder layer: its linear modules `(name, in, out)` in order, and its number of parameters.

    `attention` is the width of its attention: heads x head size.
    """

    linears: tuple[tuple[str, int, int], ...]
    attention: int
    parameters: int

    @classmethod
    def of(cls, layer: nn.Module, config: Any) -> "LayerShape":
        linears = [
            (name, module.in_features, module.out_features)
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear)
        ]
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(tuple(linears), config.num_attention_heads * head, sum(p.numel() for p in layer.parameters()))

    def lora_parameters(self, r: int) -> int:
        return sum(r * (i + o) for _, i, o in self.linears)


@dataclass(frozen=True)
class ModelShape:
    """What prices need of a model.

    Attributes:
        layers: one shape per layer, from the input up.
        language_model: all parameters of the language model, tied ones once.
        projector: `(in, out)` of its linear modules; projector_parameters: their number.
        tower_flops, tower_parameters: one image through the frozen tower; None if it is not known.
    """

    layers: tuple[LayerShape, ...]
    hidden_size: int
    vocab_size: int
    language_model: int
    projector: tuple[tuple[int, int], ...] = ()
    projector_parameters: int = 0
    tower_flops: int | None = None
    tower_parameters: int | None = None

    @classmethod
    def of(cls, model: nn.Module, layer_path: str, projector: nn.Module | None = None, **tower: int | None) -> Any:
        """Reads a causal language model without vision modules, and its projector; both may be on the meta device."""
        linears = [m for m in projector.modules() if isinstance(m, nn.Linear)] if projector is not None else []
        config = model.config
        return cls(
            tuple(LayerShape.of(layer, config) for layer in decoder_layers(model, layer_path)),
            config.hidden_size,
            config.vocab_size,
            sum(p.numel() for p in model.parameters()),
            tuple((m.in_features, m.out_features) for m in linears),
            sum(p.numel() for p in projector.parameters()) if projector is not None else 0,
            **tower,
        )


@dataclass(frozen=True)
class Flops:
    """One sample's, by part; `backward` includes `recomputed`."""

    tower: int
    forward: int
    backward: int
    recomputed: int

    @property
    def total(self) -> int:
        return self.tower + self.forward + self.backward


def lowest_with_gradient(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> tuple[int, bool]:
    """The lowest layer that gradients run through (none: the number of layers), and whether they reach the projector.

    Without checkpointing.
    """
    reaches_projector = recipe.train_projector and recipe.image_tokens > 0 and bool(shape.projector)
    everything = recipe.mode == "full" and len(selection or ()) == len(shape.layers)
    return 0 if reaches_projector or everything else min(selection or (), default=len(shape.layers)), reaches_projector


def flops_per_sample(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> Flops:
    """One sample's forward and backward, in FLOPs.

    Args:
        selection: the tuned layers; None in mode "projector".
    """
    s, tuned = recipe.length, set(selection or ())
    everything = recipe.mode == "full" and len(tuned) == len(shape.layers)
    lowest, reaches_projector = lowest_with_gradient(shape, selection, recipe)
    whole_depth = everything or reaches_projector or recipe.gradient_checkpointing
    # Checkpointing makes the embeddings' output ask for a gradient, or a frozen first layer could not be recomputed.
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
            reading = [(n_in, n_out) for name, n_in, n_out in layer.linears if name.endswith(_READS_INPUT)]
            backward -= sum(2 * s * n_in * (n_out + recipe.lora_r) for n_in, n_out in reading)
        if recipe.gradient_checkpointing:
            recomputed += once - (2 * s * recipe.lora_r * layer.linears[-1][2] if adapted else linear[-1])

    head = 2 * recipe.head_positions * shape.hidden_size * shape.vocab_size
    forward += head
    if lowest < len(shape.layers):
        backward += head
    if everything:
        backward += head
    if recipe.image_tokens and shape.projector:
        sizes = [2 * recipe.image_tokens * n_in * n_out for n_in, n_out in shape.projector]
        forward += sum(sizes)
        if reaches_projector:
            backward += sum(sizes) + sum(sizes[1:])
    tower = shape.tower_flops or 0 if recipe.image_tokens else 0
    return Flops(tower, forward, backward + recomputed, recomputed)


@dataclass(frozen=True)
class Trained:
    """Numbers of parameters.

    Attributes:
        layers, rest, projector: what trains in decoder layers, elsewhere in the language model, and in the projector.
        total: all but the tower's.
    """

    layers: int
    rest: int
    projector: int
    total: int

    @property
    def trained(self) -> int:
        return self.layers + self.rest + self.projector


def trained_parameters(shape: ModelShape, selection: LayerSelection | None, recipe: Recipe) -> Trained:
    """How many parameters train; a LoRA's own are part of the total."""
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
    """Memory of one device without sharding, and files.

    Attributes:
        weights: the frozen ones in the run's dtype, the trained ones in float32 (the tower's are part of it).
        gradients, optimizer: of AdamW, float32.
        result: the final folder's weight files; checkpoint: one checkpoint-N with the optimizer's state.
    """

    weights: int
    gradients: int
    optimizer: int
    result: int
    checkpoint: int


def bytes_needed(shape: ModelShape, trained: Trained, recipe: Recipe, itemsize: int) -> Bytes:
    """Bytes of weights, gradients, optimizer and files.

    Args:
        itemsize: bytes of an element in the run's dtype: 2 or 4.
    """
    n = trained.trained
    tower = shape.tower_parameters or 0
    frozen = trained.total - n + tower
    if recipe.mode == "full":
        # A full checkpoint carries a copy of the tower, as upstream's does.
        result = itemsize * (trained.total + tower)
        model_files = itemsize * frozen + _FLOAT32 * n
    else:
        # A frozen projector belongs to the result all the same.
        projector = 0 if recipe.train_projector else itemsize * shape.projector_parameters
        result = model_files = _FLOAT32 * n + projector
    return Bytes(
        weights=itemsize * frozen + _FLOAT32 * n,
        gradients=_FLOAT32 * n,
        optimizer=_ADAM_STATES * _FLOAT32 * n,
        result=result,
        checkpoint=model_files + _ADAM_STATES * _FLOAT32 * n,
    )
