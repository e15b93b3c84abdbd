"""What llama.cpp's tools/mtmd/clip.cpp reads from a file and computes of it (its models/llava.cpp), in torch."""

import torch
from torch.nn import functional as F

REQUIRED_KEYS = {
    "general.architecture",
    "clip.has_vision_encoder",
    "clip.projector_type",
    "clip.use_gelu",
    "clip.vision.image_size",
    "clip.vision.patch_size",
    "clip.vision.embedding_length",
    "clip.vision.feed_forward_length",
    "clip.vision.block_count",
    "clip.vision.projection_dim",
    "clip.vision.attention.head_count",
    "clip.vision.attention.layer_norm_epsilon",
    "clip.vision.image_mean",
    "clip.vision.image_std",
    "clip.vision.feature_layer",
}


def names_of(tower, depth):
    """The tensors that clip.cpp looks for."""
    names = {"v.patch_embd.weight", "v.position_embd.weight"}
    names |= {"v.class_embd", "v.pre_ln.weight", "v.pre_ln.bias"} if tower == "clip" else {"v.patch_embd.bias"}
    parts = ("attn_q", "attn_k", "attn_v", "attn_out", "ln1", "ln2", "ffn_up", "ffn_down")
    for kind in ("weight", "bias"):
        names |= {f"v.blk.{i}.{part}.{kind}" for i in range(depth) for part in parts}
        names |= {f"mm.0.{kind}", f"mm.2.{kind}"}
    return names


def embeddings(reader, pixels, gelu, class_last=False):
    """Features of one image, float32 `(patches, width of the language model)`, of a file in float32.

    Args:
        pixels: `(1, 3, height, width)`.
        gelu: of the projector; llama.cpp's is the tanh approximation.
        class_last: with the defect of ggml-org/llama.cpp#25814: the class token is put behind the patches, while
            positions and the choice of the patches count it as the first.
    """
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert (keys["general.architecture"], keys["clip.projector_type"]) == ("clip", "mlp")
    heads, eps = keys["clip.vision.attention.head_count"], keys["clip.vision.attention.layer_norm_epsilon"]

    def linear(name, x):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)

    def split(x):
        return x.reshape(len(x), heads, -1).transpose(0, 1)

    x = F.conv2d(
        pixels, tensors["v.patch_embd.weight"], tensors.get("v.patch_embd.bias"), keys["clip.vision.patch_size"]
    )
    x = x.flatten(2)[0].T
    first = tensors.get("v.class_embd")
    if first is not None:
        x = torch.cat([x, first[None]] if class_last else [first[None], x])
    x = x + tensors["v.position_embd.weight"]
    if "v.pre_ln.weight" in tensors:
        x = norm("v.pre_ln", x)
    [depth] = keys["clip.vision.feature_layer"]
    for i in range(depth):
        inside = f"v.blk.{i}"
        y = norm(f"{inside}.ln1", x)
        q, k, v = (split(linear(f"{inside}.attn_{part}", y)) for part in "qkv")
        attended = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(x.shape)
        x = x + linear(f"{inside}.attn_out", attended)
        y = linear(f"{inside}.ffn_up", norm(f"{inside}.ln2", x))
        y = F.gelu(y, approximate="tanh") if keys["clip.use_gelu"] else y * torch.sigmoid(1.702 * y)
        x = x + linear(f"{inside}.ffn_down", y)
    patches = x[1:] if first is not None else x
    return linear("mm.2", gelu(linear("mm.0", patches)))
