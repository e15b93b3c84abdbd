"""The values of upstream's `--model_type`."""

from llava.families import ModelFamily

MODEL_TYPES = {
    "phi-1.5": "bunny-phi",
    "phi-2": "bunny-phi",
    "phi-3": "bunny-phi3",
    "stablelm-2": "bunny-stablelm",
    "qwen1.5-1.8b": "bunny-qwen2",
    "llama3-8b": "bunny-llama",
}
"""Values of `--model_type` -> family; the flag is only checked against the model's config."""


def check_model_type(model_type: str | None, family: ModelFamily) -> None:
    """Raises `ValueError` for a `--model_type` that is unknown or not the model's."""
    if model_type is None:
        return
    if model_type == "minicpm":
        raise ValueError("--model_type minicpm: it runs code that its repository brings along and is not supported")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"unknown --model_type {model_type!r}; allowed: {', '.join(MODEL_TYPES)}")
    if MODEL_TYPES[model_type] != family.model_type:
        fitting = ", ".join(name for name, value in MODEL_TYPES.items() if value == family.model_type) or "none"
        raise ValueError(
            f"--model_type {model_type} does not fit: the model is a {family.model_type} (on {family.backbone_type}); "
            f"values that fit it: {fitting}; or leave the flag out"
        )
