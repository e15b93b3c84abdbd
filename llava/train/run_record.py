"""What makes a run the same run: its settings, written to run_settings.json before weights are loaded.

Folders, files and templates are recorded with their content, so that a run may move to other paths.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from llava.checkpoint.identity import digest, digest_of
from llava.checkpoint.tensors import Tensors
from llava.conversation import get_template
from llava.files import sha256_of, write_json
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.plan import RunPlan

RUN_FILE = "run_settings.json"
MAY_CHANGE = {
    "length": ("max_steps", "num_train_epochs"),
    "logging": (
        *("logging_*", "log_level*", "log_on_each_node", "report_to", "run_name", "project", "trackio_*"),
        *("disable_tqdm", "include_num_input_tokens_seen", "debug", "skip_memory_metrics"),
    ),
    "saving": (
        *("save_*", "push_to_hub", "hub_*", "enable_jit_checkpoint", "resume_from_checkpoint"),
        "restore_callback_states_from_checkpoint",
    ),
    "measuring": (
        *("eval_*", "do_train", "do_eval", "do_predict", "per_device_eval_batch_size", "prediction_loss_only"),
        *("bf16_full_eval", "fp16_full_eval", "batch_eval_metrics", "include_for_metrics"),
    ),
    "workers": (
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order"),
    ),
    "memory and speed": (
        *("gradient_checkpointing*", "activation_checkpointing*", "label_only_logits", "padding_free", "share_prefix"),
        *("kernels", "vision_feature_cache", "attn_implementation", "tf32", "torch_compile*", "use_liger_kernel"),
        *("liger_kernel_config", "use_cache"),
        *("torch_empty_cache_steps", "full_determinism", "ddp_*", "fsdp*", "parallelism_config", "accelerator_config"),
    ),
    "machine and folders": ("output_dir", "cache_dir", "use_cpu", "local_rank"),
    "without effect": ("lazy_preprocess", "is_multimodal", "mpt_attn_impl", "model_type", "bad_samples"),
}
"""The flags that may be others when a run is resumed; every other flag must be the same. Also in docs/training.md."""
_BY_CONTENT = (
    *("model_name_or_path", "version", "vision_tower", "pretrain_mm_mlp_adapter", "data_path", "image_folder"),
    *("tune_layers", "deepspeed"),
)
_IMAGES = 64
"""Images whose sizes tell image folders apart."""


@dataclass(frozen=True)
class RunRecord:
    """The settings that a run must keep, by flag, and its length.

    The value of a flag that names a folder, a file or a template is `{"name": as given, "identity": its content}`.
    """

    settings: Mapping[str, Any]
    length: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        plan: RunPlan,
        model: ModelArguments,
        data: DataArguments,
        training: TrainingArguments,
        further: Mapping[str, Any],
    ) -> "RunRecord":
        """The record of a run that is about to start; `further`: settings of a command that uses the trainer."""
        flags = {
            part.name: getattr(values, part.name)
            for values in (model, data, training)
            for part in dataclasses.fields(values)
            if part.name not in _BY_CONTENT and not may_change(part.name)
        }
        processes = training.world_size * max(training.n_gpu, 1)
        settings = {**_contents(plan, data, training), **flags, "number of processes": processes, **further}
        length = {name: getattr(training, name) for name in MAY_CHANGE["length"]}
        # As read from JSON, to compare equal to what the file holds.
        return cls(*json.loads(json.dumps([settings, length], default=str)))

    def write(self, output: str | Path, finished: bool = False) -> None:
        write_json(Path(output) / RUN_FILE, dataclasses.asdict(self) | {"finished": finished})


def may_change(flag: str) -> bool:
    return any(fnmatch(flag, pattern) for patterns in MAY_CHANGE.values() for pattern in patterns)


def _contents(plan: RunPlan, data: DataArguments, training: TrainingArguments) -> dict[str, Any]:
    """The settings that are compared by content."""
    base, vision = plan.base, plan.vision
    local = Path(base.name).is_dir()
    # The folder of a hub id is named after its commit.
    settings = {
        "what trains": plan.kind.value,
        "model_name_or_path": _named(base.name, digest(base) if local else base.path.name),
        "version": _named(plan.template_name, template_text(plan.template_name)),
        "data_path": _named(data.data_path, plan.records.content),
        "samples used": _named(f"{len(plan.indices)}", hashlib.sha256(plan.indices.tobytes()).hexdigest()[:16]),
        "image_folder": _named(data.image_folder, _sizes(plan.records.unique_images(), data.image_folder)),
        "tune_layers": _layers(plan),
        "deepspeed": f"ZeRO stage {training.zero_stage}" if training.deepspeed else None,
    }
    files = build_vision_tower(vision, delay_load=True).weight_files
    settings["vision_tower"] = _named(vision.vision_tower, digest_of(Tensors(files)) if files else None)
    if vision.pretrain_mm_mlp_adapter:
        settings["pretrain_mm_mlp_adapter"] = _named(
            vision.pretrain_mm_mlp_adapter, sha256_of(vision.pretrain_mm_mlp_adapter)
        )
    return {"pretrain_mm_mlp_adapter": None} | settings


def _layers(plan: RunPlan) -> dict[str, Any] | None:
    if plan.selection is None:
        return None
    spec, layers = plan.selection.spec, plan.selection.layers
    return _named(spec, plan.base.record.tuned(spec, layers).layers)


def _named(name: str | None, identity: Any) -> dict[str, Any]:
    return {"name": name, "identity": identity}


def template_text(name: str) -> list[str | None]:
    """What a template adds to the turns; equal for two names of one template."""
    template = get_template(name)
    return [template.system, *template.roles, template.sep_style.name, template.sep, template.sep2]


def _sizes(images: list[str], folder: str | None) -> str:
    """A digest of the sizes of some images, evenly spaced."""
    files = [Path(folder or "", image) for image in images[:: max(1, len(images) // _IMAGES)]]
    return hashlib.sha256(repr([file.stat().st_size for file in files if file.is_file()]).encode()).hexdigest()[:16]
