"""Decoder layers with fewer passes over memory, for training on a CPU, in plain torch. The loss stays the same.

Each small step around the matrix products reads and writes its tensors once, into new memory, and keeps some of them
for the backward. The functions here do several steps in one tensor, and do not keep what is cheap to compute again.
Only the model that is given changes.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.families import family_of

_RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Phi3RMSNorm", "Qwen2RMSNorm")
"""Norms of transformers that compute `weight * (x / rms(x))`, the rms in float32."""
_MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "StableLmMLP")
"""MLPs of transformers that compute `down_proj(act_fn(gate_proj(x)) * up_proj(x))`."""
_SILU = ("SiLU", "SiLUActivation")
_ROTARY = "apply_rotary_pos_emb"


def apply_cpu_kernels(model: Any) -> tuple[str, ...]:
    """Makes the decoder layers of a model compute with them, after LoRA was added; the kinds that were changed."""
    changed = []
    for module in model.get_submodule(family_of(model.config).layer_path).modules():
        if type(module).__name__ in _RMS_NORMS:
            module.forward = partial(_norm, module)
            changed.append("norms")
        elif type(module).__name__ in _MLPS and type(module.act_fn).__name__ in _SILU:
            module.forward = partial(_mlp, module)
            changed.append("MLPs")
        elif type(module).__name__ == "Phi3MLP" and type(module.activation_fn).__name__ in _SILU:
            module.forward = partial(_mlp_of_one_product, module)
            changed.append("MLPs")
        elif type(module).__name__.endswith("Attention") and _ROTARY in _names(module):
            module.forward = partial(with_rotary, module, _rotary)
            changed.append("rotary embedding")
        elif _is_plain_lora(module):
            module.forward = partial(_lora, module)
            changed.append("LoRA")
    return tuple(dict.fromkeys(changed))


def _norm(module: nn.Module, states: torch.Tensor) -> torch.Tensor:
    return _RMSNorm.apply(states, module.weight, module.variance_epsilon)


def _mlp(module: nn.Module, states: torch.Tensor) -> torch.Tensor:
    return module.down_proj(_SwiGLU.apply(module.gate_proj(states), module.up_proj(states)))


def _mlp_of_one_product(module: nn.Module, states: torch.Tensor) -> torch.Tensor:
    return module.down_proj(_SwiGLU.apply(*module.gate_up_proj(states).chunk(2, dim=-1)))


def _names(module: nn.Module) -> dict[str, Any]:
    """The names in the file of a module's class."""
    return vars(sys.modules[type(module).__module__])


def with_rotary(module: nn.Module, rotary: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The module's own attention with another rotary embedding, which it finds by its name in its file."""
    names = _names(module)
    before = names[_ROTARY]
    names[_ROTARY] = rotary
    try:
        return type(module).forward(module, *args, **kwargs)
    finally:
        names[_ROTARY] = before


def _rotary(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _Rotary.apply(query, cos, sin), _Rotary.apply(key, cos, sin)


def _is_plain_lora(module: nn.Module) -> bool:
    """Whether a module is a linear one with a single LoRA of the usual kind, whose weights are whole.

    ZeRO-3 gathers weights by hooks of their modules, which `_lora` does not call.
    """
    if (type(module).__module__, type(module).__name__) != ("peft.tuners.lora.layer", "Linear"):
        return False
    weights = [part.weight for adapters in (module.lora_A, module.lora_B) for part in adapters.values()]
    biases = any(part.bias is not None for part in module.lora_B.values())
    return len(weights) == 2 and not module.lora_variant and not biases and not hasattr(weights[0], "ds_id")


def _lora(module: Any, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`base(x) + B(A(dropout(x))) * scaling`, with the last two steps in the last product."""
    [(name, first)] = module.lora_A.items()
    if args or kwargs or module.disable_adapters or module.merged or name not in module.active_adapters:
        return type(module).forward(module, states, *args, **kwargs)
    result, last, dropout = module.base_layer(states), module.lora_B[name].weight, module.lora_dropout[name]
    states = module._cast_input_dtype(states, first.weight.dtype)
    if isinstance(dropout, nn.Dropout) and dropout.p and dropout.training and states.dtype == first.weight.dtype:
        small = _DroppedLinear.apply(states, first.weight, dropout.p)
    else:
        small = first(dropout(states))
    if small.dtype != result.dtype:
        return (result + functional.linear(small, last) * module.scaling[name]).to(result.dtype)
    rows = (result.flatten(0, -2), small.flatten(0, -2))
    return torch.addmm(*rows, last.t(), alpha=module.scaling[name]).view(result.shape)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = states.float()
        # One pass, without a tensor of squares.
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1])
        factor = mean.add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, factor)
        result = (wide * factor).to(states.dtype)
        return result.mul_(weight) if result.dtype == torch.result_type(result, weight) else result * weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight, factor = ctx.saved_tensors
        wide, weight_grad, states_grad = states.float(), None, None
        grad = grad.float()
        if ctx.needs_input_grad[1]:
            weight_grad = (grad * wide).mul_(factor).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            inner = grad * weight
            along = torch.linalg.vecdot(inner, wide).unsqueeze(-1).mul_(factor**3).div_(-wide.shape[-1])
            states_grad = inner.mul_(factor).addcmul_(wide, along).to(states.dtype)
        return states_grad, weight_grad, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        gate, up = ctx.saved_tensors
        needs_gate, needs_up = ctx.needs_input_grad
        gate_grad = torch.ops.aten.silu_backward(grad * up, gate) if needs_gate else None
        return gate_grad, functional.silu(gate).mul_(grad) if needs_up else None


class _Rotary(torch.autograd.Function):
    """Rotates the first values of each head, as many as `cos` has, and passes the others on."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(states, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        # The angles of the two halves of `sin` are the same, so that the backward is the rotation by minus the angle.
        return _rotate(grad, *ctx.saved_tensors, -1), None, None


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    size = cos.shape[-1]
    half = size // 2
    result = torch.empty_like(states)
    torch.mul(states[..., :size], cos, out=result[..., :size])
    result[..., :half].addcmul_(states[..., half:size], sin[..., :half], value=-sign)
    result[..., half:size].addcmul_(states[..., :half], sin[..., half:], value=sign)
    if size < states.shape[-1]:
        result[..., size:] = states[..., size:]
    return result


class _DroppedLinear(torch.autograd.Function):
    """`linear(dropout(x))`; keeps `x`, which others keep too, and a mask of bytes instead of two tensors like `x`.

    Draws the same numbers as torch's dropout.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, p: float) -> torch.Tensor:
        mask = torch.empty_like(states, dtype=torch.bool).bernoulli_(1 - p)
        ctx.save_for_backward(states, mask, weight)
        ctx.scale = 1 / (1 - p)
        return functional.linear(states * mask, weight).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        states, mask, weight = ctx.saved_tensors
        states_grad = weight_grad = None
        # Under autocast the result, and so its gradient, has another dtype; the backward runs outside of autocast.
        grad = grad * ctx.scale
        if ctx.needs_input_grad[0]:
            states_grad = (grad @ weight.to(grad.dtype)).mul_(mask).to(states.dtype)
        if ctx.needs_input_grad[1]:
            rows = (grad.flatten(0, -2).t(), (states * mask).to(grad.dtype).flatten(0, -2))
            weight_grad = torch.mm(*rows).to(weight.dtype)
        return states_grad, weight_grad, None
