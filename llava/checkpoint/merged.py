"""The tensors of the model that a checkpoint stands for, by our names; a LoRA is merged tensor by tensor."""

import torch

from llava.checkpoint.adapter import Adapter, AdapterError, strip_wrapper_prefix
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.opened import Checkpoint
from llava.checkpoint.tensors import Stored


def merged_tensors(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> dict[str, Stored]:
    """The tensors of a full checkpoint, or of a base with what was trained on it; only headers are read.

    An adapted weight is base + scale * B A, summed in float32 when it is read, and rounded to `dtype` once.

    Raises:
        AdapterError: the adapter is no sum, or adapts what the base does not have.
    """
    tensors = {(name := our_name(stored.name)): stored.renamed(name) for stored in checkpoint.whole.tensors}
    if checkpoint.base is None:
        return tensors
    adapter = checkpoint.adapter
    for stored in (*(adapter.tensors if adapter else ()), *checkpoint.tensors):
        name = strip_wrapper_prefix(stored.name).replace(".base_layer.", ".")
        if ".lora_" not in name:
            tensors[name] = stored.renamed(name)
    if adapter is not None:
        adapter.check_addable(checkpoint.path)
        for module in adapter.modules:
            if f"{module}.weight" not in tensors:
                raise AdapterError(f"{checkpoint.path} adapts {module}, which its base does not have")
            tensors[f"{module}.weight"] = _merged(tensors[f"{module}.weight"], adapter, module, dtype)
    return tensors


def _merged(weight: Stored, adapter: Adapter, module: str, dtype: torch.dtype) -> Stored:
    return weight.changed(lambda: (weight.tensor().float() + adapter.delta(module)).to(dtype), dtype)
