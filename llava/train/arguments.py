"""Upstream's training flags, with `--tune_layers` (upstream: the dataclasses of llava/train/train.py)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import transformers
from transformers import HfArgumentParser

from llava.families import ModelFamily
from llava.train.zero import join_group_on_cpu, read_zero_config, start_deepspeed
from visual_region.layers import GRAMMAR

# "v0" and "v0.5" of upstream change the padding token only; the text is Vicuna's.
_OLD_VERSIONS = {"v0": "vicuna_v1", "v0.5": "vicuna_v1"}


@dataclass
class ModelArguments:
    package: ClassVar[str] = "llava"
    """The package whose model a plain language model becomes (llava/families.py)."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "base language model or LLaVA: a folder"})
    version: str | None = field(default="v0", metadata={"help": "conversation template; v0 and v0.5 mean vicuna_v1"})
    freeze_backbone: bool = field(default=False)
    tune_mm_mlp_adapter: bool = field(default=False, metadata={"help": "stage 1: train the projector only"})
    vision_tower: str | None = field(default=None, metadata={"help": "tower: a folder or hub id"})
    mm_vision_select_layer: int | None = field(default=-1, metadata={"help": "CLIP layer to take; LLaVA-1.5: -2"})
    pretrain_mm_mlp_adapter: str | None = field(default=None, metadata={"help": "mm_projector.bin of stage 1"})
    mm_projector_type: str | None = field(
        default="linear",
        metadata={"help": "linear | mlp2x_gelu | identity | pixel_shuffle2x: 2 x 2 image tokens become one"},
    )
    mm_use_im_start_end: bool = field(default=False)
    mm_use_im_patch_token: bool = field(default=False)
    mm_patch_merge_type: str | None = field(default="flat")
    mm_vision_select_feature: str | None = field(default="patch")
    unfreeze_vision_tower: bool = field(
        default=False, metadata={"help": "train the tower too, in any mode, at the projector's learning rate"}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "auto | flash_attention_2 | sdpa | eager; auto: flash if it can run here, else sdpa"},
    )
    tune_layers: str | None = field(
        default=None, metadata={"help": "decoder layers to train: " + GRAMMAR.replace("%", "%%") + " Default: all"}
    )

    def check_family(self, family: ModelFamily) -> None:
        """Raises `ValueError` if a flag asks for another backbone than the model has."""

    def template_name(self, family: ModelFamily) -> str:
        """The conversation template that `--version` means."""
        return _OLD_VERSIONS.get(self.version, self.version)


@dataclass
class DataArguments:
    data_path: str | None = field(default=None, metadata={"help": "LLaVA JSON"})
    eval_data_path: str | None = field(
        default=None, metadata={"help": "LLaVA JSON whose loss is measured at every --eval_strategy step"}
    )
    lazy_preprocess: bool = field(default=False, metadata={"help": "accepted; samples are always made when needed"})
    is_multimodal: bool = field(default=False)
    image_folder: str | None = field(default=None)
    image_aspect_ratio: str = field(default="square")
    bad_samples: str = field(
        default="fail", metadata={"help": "fail | skip: what to do with samples that the preflight finds broken"}
    )
    vision_feature_cache: str | None = field(default=None, metadata={"help": "folder for features of the frozen tower"})


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    cache_dir: str | None = field(default=None)
    optim: str = field(default="adamw_torch")
    remove_unused_columns: bool = field(default=False)
    freeze_mm_mlp_adapter: bool = field(default=False)
    mpt_attn_impl: str | None = field(default="triton")
    model_max_length: int = field(default=512)
    double_quant: bool = field(default=True)
    quant_type: str = field(default="nf4")
    bits: int = field(default=16, metadata={"help": "16 | 8 | 4: of the frozen language model; 8 and 4 need LoRA"})
    lora_enable: bool = field(default=False)
    lora_r: int = field(default=64)
    lora_alpha: int = field(default=16)
    lora_dropout: float = field(default=0.05)
    lora_weight_path: str = field(default="")
    lora_bias: str = field(default="none")
    mm_projector_lr: float | None = field(
        default=None,
        metadata={"help": "learning rate of the projector; default: the base rate. It does not freeze the projector"},
    )
    group_by_modality_length: bool = field(default=False)
    label_only_logits: bool = field(
        default=True, metadata={"help": "compute logits only where a label exists; the loss is the same"}
    )

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available():
            # The same script runs on a laptop, without what only a GPU can do.
            self.use_cpu = True
            self.tf32 = None
        if self.deepspeed:
            start_deepspeed(self.use_cpu)
            self.deepspeed = read_zero_config(self.deepspeed)
        if self.ddp_find_unused_parameters is None:
            # Every rank reaches all that trains in every step, so DDP need not search.
            self.ddp_find_unused_parameters = False
        if self.gradient_checkpointing:
            self.gradient_checkpointing_kwargs = {"use_reentrant": False}
        super().__post_init__()
        if self.deepspeed and self.use_cpu:
            join_group_on_cpu()
        if self.eval_strategy != "no":
            self.prediction_loss_only = True

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
        return self.deepspeed["zero_optimization"].get("stage", 0) if self.deepspeed else 0


_RENAMED = {
    "--evaluation_strategy": "--eval_strategy",
    "--warmup_ratio": "--warmup_steps",
    "--no_cuda": "--use_cpu",
    "--per_gpu_train_batch_size": "--per_device_train_batch_size",
    "--per_gpu_eval_batch_size": "--per_device_eval_batch_size",
}
_DROPPED = (
    "--overwrite_output_dir",
    "--save_safetensors",
    "--logging_dir",
    "--half_precision_backend",
    "--group_by_length",
)


def modern_argv(argv: Sequence[str]) -> list[str]:
    """The flags of upstream's scripts in today's Hugging Face spelling.

    `--warmup_ratio r` is `--warmup_steps r` (a value below 1 is a share). Flags that no longer exist and change
    nothing here are left out, with a note.
    """
    result: list[str] = []
    i = 0
    while i < len(argv):
        flag, equals, value = argv[i].partition("=")
        if flag in _DROPPED:
            print(f"note: {flag} no longer exists in transformers and is ignored", file=sys.stderr)
            i += 1
            if not equals and i < len(argv) and not argv[i].startswith("--"):
                i += 1
            continue
        result.append(_RENAMED.get(flag, flag) + equals + value)
        i += 1
    return result


def parse_arguments(
    argv: Sequence[str] | None = None,
    classes: Sequence[type] = (ModelArguments, DataArguments, TrainingArguments),
) -> tuple[Any, Any, Any]:
    """Model, data and training arguments from the command line's flags; `classes` may be another package's."""
    parser = HfArgumentParser(tuple(classes))
    return parser.parse_args_into_dataclasses(args=modern_argv(sys.argv[1:] if argv is None else argv))
