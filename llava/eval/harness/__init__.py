"""Our checkpoints in other people's evaluation harnesses: lm-eval (`text.py`) and lmms-eval (`images.py`)."""

from typing import Any


def manifest() -> Any:
    """What lmms-eval asks an installed package for (its entry points `lmms_eval.models`): where its model class is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="llava_vr", simple_class_path="llava.eval.harness.images.LlavaVR")
