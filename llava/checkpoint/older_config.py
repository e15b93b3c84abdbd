"""config.json for transformers 4.37 to 4.45, whose fields were renamed later.

They know neither `rope_parameters` nor `dtype`, and would rotate with theta 10000 without a word. Every writer of this
project writes both forms (`with_older_fields`); every reader and comparison takes the new one (`without_older_fields`).
"""

from collections.abc import Mapping
from typing import Any

_NESTED = ("text_config", "vision_config")
_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor")
_TWO_KEYS = ("linear", "dynamic")
"""Types of scaling that 4.37 knows; it refuses a dictionary of other keys than `type` and `factor`."""


def with_older_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with the older fields too; one without the new fields is not changed."""
    nested = {name: with_older_fields(values[name]) for name in _NESTED if _is_config(values, name)}
    return dict(values) | _older_fields(values) | nested


def without_older_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without the older fields that say the same as its new ones.

    A rotation that was changed by hand in the older fields alone stays, and is a difference.
    """
    older = _older_fields(values) if "rope_theta" in values else {}
    kept = {name: value for name, value in values.items() if name not in older or older[name] != value}
    if values.get("dtype") is not None:
        kept.pop("torch_dtype", None)
    return kept | {name: without_older_fields(kept[name]) for name in _NESTED if _is_config(kept, name)}


def _older_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The older fields that follow from the new ones."""
    found: dict[str, Any] = {}
    if values.get("dtype") is not None:
        found["torch_dtype"] = values["dtype"]
    rope = values.get("rope_parameters") or {}
    if "rope_theta" in rope:
        found |= {"rope_theta": rope["rope_theta"], "rope_scaling": _scaling(rope, values.get("model_type", ""))}
        if "partial_rotary_factor" in rope:
            found["partial_rotary_factor"] = rope["partial_rotary_factor"]
    return found


def _is_config(values: Mapping[str, Any], name: str) -> bool:
    return isinstance(values.get(name), Mapping)


def _scaling(rope: Mapping[str, Any], model_type: str) -> dict[str, Any] | None:
    """`rope_scaling` in the form of 4.37 to 4.45; None without scaling."""
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind in _TWO_KEYS:
        return {"type": kind, "factor": float(rope["factor"])}
    if model_type.endswith("phi3"):
        return {"type": kind, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    # Llama 3.1's and others', which 4.43 introduced.
    others = {name: value for name, value in rope.items() if name not in ("type", *_ROPE)}
    return others | {"rope_type": kind}
