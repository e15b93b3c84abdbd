"""Loading a model with errors for missing weights, which transformers initialises at random."""

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from llava.checkpoint.opened import Checkpoint, CheckpointError
from llava.checkpoint.parts import NEWLINE, is_vision, projector_key
from llava.checkpoint.safe import without_code
from llava.families import ModelFamily
from llava.names import count, some
from llava.tiling import has_newline


def from_pretrained_whole(checkpoint: Checkpoint, family: ModelFamily, **kwargs: Any) -> Any:
    """`from_pretrained` of the family's model class; only a plain language model may lack a projector.

    Raises:
        CheckpointError: names the first weights that are missing, do not fit, or are of unknown layers.
    """
    # If only the config of a hub id was downloaded, from_pretrained downloads the weights.
    path = checkpoint.path if checkpoint.tensors.files else checkpoint.name
    reports: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" in record.getMessage():
            reports.append(record.getMessage())
            return False
        return True

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(keep)
    try:
        model, found = without_code(family.load_model_class().from_pretrained, path, output_loading_info=True, **kwargs)
    except RuntimeError as error:
        if reports:
            raise CheckpointError(f"the weights in {path} do not fit its config.json:\n{reports[0]}") from error
        raise
    finally:
        logger.removeFilter(keep)
    missing = sorted(name for name in found["missing_keys"] if not _loaded_later(name, checkpoint.own))
    if missing:
        raise CheckpointError(
            f"{path} is not whole: {len(missing)} weights that its config.json requires are missing from its files, "
            f"first {', '.join(missing[:3])}. Copy it again, or correct config.json"
        )
    # The tower loads its own weights; the rotary tables of old files are now computed.
    unused = (name for name in found["unexpected_keys"] if not is_vision(name))
    left = sorted(name for name in unused if "rotary_emb.inv_freq" not in name)
    layers = [name for name in left if name.startswith(f"{family.layer_path}.")]
    if layers:
        raise CheckpointError(
            f"{path} holds {len(layers)} weights of decoder layers that its config.json has no place for, first "
            f"{', '.join(layers[:3])}; num_hidden_layers or the model_type there is wrong"
        )
    if left:
        print(f"{path}: {count(len(left), 'weight is', 'weights are')} not used: {some(left, 3)}")
    return model


def _loaded_later(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with this config.json may lack a weight, because the caller loads it.

    Those are the tower's, all vision parts of a plain language model, and the `image_newline` of a LoRA or a projector
    whose base has none.
    """
    if not config.get("mm_vision_tower"):
        return is_vision(name)
    return "vision_tower." in name or (projector_key(name) == NEWLINE and not has_newline(SimpleNamespace(**config)))
