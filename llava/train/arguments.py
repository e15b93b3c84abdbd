"""Upstream's training flags, with `--tune_layers` (upstream: the dataclasses of llava/train/train.py)."""

import copy
import dataclasses
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import torch
import transformers
from transformers import HfArgumentParser
from transformers.utils import is_torch_tf32_available

from llava.data.share import WHOLE
from llava.families import ModelFamily
from llava.flags import Parser
from llava.train.flag_names import AUTO, ConfigurationError, modern_argv, no_such_flag, say
from llava.train.zero import join_group_on_cpu, read_zero_config, start_deepspeed
from visual_region.layers import GRAMMAR

# Upstream's "v0" and "v0.5" change the padding token only; the text is Vicuna's.
_OLD_VERSIONS = {"v0": "vicuna_v1", "v0.5": "vicuna_v1"}


def flag(default: Any, text: str) -> Any:
    """A flag with its help."""
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    package: ClassVar[str] = "llava"
    """The package whose model a plain language model becomes (llava/families.py)."""

    model_name_or_path: str | None = flag(None, "base language model or LLaVA: a folder or hub id")
    version: str | None = flag("v0", "conversation template; v0 and v0.5 mean vicuna_v1")
    freeze_backbone: bool = False
    tune_mm_mlp_adapter: bool = flag(False, "stage 1: train the projector only")
    vision_tower: str | None = flag(None, "tower: a folder or hub id")
    mm_vision_select_layer: int | None = flag(-1, "CLIP layer to take; LLaVA-1.5: -2")
    pretrain_mm_mlp_adapter: str | None = flag(None, "mm_projector.bin of stage 1")
    mm_projector_type: str | None = flag(
        "linear", "linear | mlp2x_gelu | identity | pixel_shuffle2x: 2 x 2 image tokens become one"
    )
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = False
    mm_patch_merge_type: str | None = flag("flat", "flat | spatial | spatial_unpad: how an image's views are joined")
    mm_vision_select_feature: str | None = "patch"
    unfreeze_vision_tower: bool = flag(False, "train the tower too, in any mode, at the projector's learning rate")
    attn_implementation: str | None = flag(
        None, "auto | flash_attention_2 | sdpa | eager; auto: flash if it can run here, else sdpa"
    )
    tune_layers: str | None = flag(None, "decoder layers to train: " + GRAMMAR.replace("%", "%%") + " Default: all")

    def check_family(self, family: ModelFamily) -> None:
        """Raises `ValueError` if a flag asks for another backbone than the model has."""

    def template_name(self, family: ModelFamily) -> str:
        """The conversation template that `--version` means."""
        return _OLD_VERSIONS.get(self.version, self.version)


@dataclass
class DataArguments:
    data_path: str | None = flag(None, "LLaVA JSON")
    eval_data_path: str | None = flag(None, "LLaVA JSON whose loss is measured at every --eval_strategy step")
    lazy_preprocess: bool = flag(False, "accepted; samples are always made when needed")
    is_multimodal: bool = False
    image_folder: str | None = None
    image_aspect_ratio: str = flag("square", "square | pad | anyres: several views per image, as LLaVA-1.6")
    image_grid_pinpoints: str | None = flag(
        None, "anyres: sizes to choose from, such as [[336,672],[672,336]]; default: the base's, else LLaVA-1.6's"
    )
    bad_samples: str = flag("fail", "fail | skip: what to do with samples that the preflight finds broken")
    data_share: str = flag(
        WHOLE, "share of the samples to train on, such as 25%%, drawn with --data_seed (default: --seed)"
    )
    vision_feature_cache: str | None = flag(None, "folder for features of the frozen tower")


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    cache_dir: str | None = None
    optim: str = "adamw_torch"
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = flag(
        False, "True: the log shows an earlier average in place of a NaN or infinite loss"
    )
    freeze_mm_mlp_adapter: bool = False
    mpt_attn_impl: str | None = "triton"
    model_max_length: int = 512
    double_quant: bool = True
    quant_type: str = "nf4"
    bits: int = flag(16, "16 | 8 | 4: of the frozen language model; 8 and 4 need LoRA")
    lora_enable: bool = False
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_weight_path: str = ""
    lora_bias: str = "none"
    mm_projector_lr: float | None = flag(
        None, "learning rate of the projector; default: the base rate. It does not freeze the projector"
    )
    group_by_modality_length: bool = False
    label_only_logits: bool = flag(True, "compute logits only where a label exists; the loss is the same")
    gradient_checkpointing: str = field(
        default="False",
        metadata={
            "help": "True | False | auto: recompute only as many decoder layers as the device's memory asks for",
            **{"nargs": "?", "const": "True"},
        },
    )
    deepspeed: str | None = flag(
        None,
        "DeepSpeed config, such as ./scripts/zero2.json | auto: plain DDP if a step fits a device, else ZeRO-2, else "
        "ZeRO-3",
    )
    padding_free: bool = flag(
        True, "compute the rows of a batch without padding; the loss is the same. Not with --attn_implementation eager"
    )
    kernels: str = flag(
        "none",
        "none | liger: Liger's kernels, on a GPU | cpu: fewer passes over memory, on a CPU | compile: torch.compile of "
        "each decoder layer | auto: cpu, or liger where it can run, else none. The loss is the same",
    )
    share_prefix: bool = flag(
        True,
        "with --padding_free on a CPU: compute what all rows of a batch begin with only once; the loss is the same",
    )

    def __post_init__(self) -> None:
        given = dict(vars(self))
        self.chooses_sharding = self.deepspeed == AUTO
        if self.chooses_sharding:
            self._given, self.deepspeed = given, None
        self.refused = []
        checkpointing = str(self.gradient_checkpointing).lower()
        if checkpointing not in ("true", "false", AUTO):
            self.refused.append(f"--gradient_checkpointing {self.gradient_checkpointing}; allowed: True, False, {AUTO}")
        self.chooses_recomputation = checkpointing == AUTO
        self.gradient_checkpointing = checkpointing == "true"
        if self.fp16 and self.bf16:
            # transformers ends here; the plan reports it with everything else that is wrong.
            self.refused.append("--fp16 True with --bf16 True: a run computes in one of them; give one")
            self.fp16 = False
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.tf32 and (self.use_cpu or not is_torch_tf32_available()):
            # The scripts ask for it; hardware without it has nothing to switch on.
            self.tf32 = None
        if self.accelerator_config is None and self.dataloader_pin_memory and torch.cuda.is_available():
            # A batch is copied while the device computes; else the copy waits until the step before has ended.
            self.accelerator_config = {"non_blocking": True}
        if self.deepspeed:
            start_deepspeed(self.use_cpu)
            self.deepspeed = read_zero_config(self.deepspeed)
        if self.ddp_find_unused_parameters is None:
            # Every rank uses all trainable parameters in every step.
            self.ddp_find_unused_parameters = False
        if self.gradient_checkpointing or getattr(self, "activation_checkpointing", None):
            self.gradient_checkpointing_kwargs = {"use_reentrant": False}
        for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
            # Newer releases of transformers have other names, and warn of these, which are upstream's flags.
            new = old.replace("gradient", "activation")
            if getattr(self, new, False) is None:
                setattr(self, new, getattr(self, old))
        super().__post_init__()
        if self.world_size == 1 and self.n_gpu > 1:
            # transformers would divide each batch among threads (DataParallel), which loses rows of image batches.
            say(f"one of {self.n_gpu} GPUs is used: GPUS={self.n_gpu} before a script, or torchrun, uses all")
            self._n_gpu = 1
        if self.deepspeed and self.use_cpu:
            join_group_on_cpu()
        if self.eval_strategy != "no":
            self.prediction_loss_only = True

    def with_deepspeed(self, config: dict[str, Any]) -> "TrainingArguments":
        """The same arguments with a DeepSpeed config in place of `auto`.

        They are made again, because transformers reads the config while it makes them; DeepSpeed then takes the process
        group that exists.
        """
        return type(self)(**self._given | {"deepspeed": config})

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
        return self.deepspeed["zero_optimization"].get("stage", 0) if self.deepspeed else 0


ARGUMENTS = (ModelArguments, DataArguments, TrainingArguments)


class _OneSpelling(ArgumentDefaultsHelpFormatter):
    """A help without the flags' second spelling, with dashes."""

    def _format_action_invocation(self, action: Action) -> str:
        shown = copy.copy(action)
        shown.option_strings = [name for name in action.option_strings if "-" not in name[2:]]
        return super()._format_action_invocation(shown)


class TrainerParser(Parser, HfArgumentParser):
    """Flags of the argument classes. The help has our flags first, and those of transformers after them."""

    def __init__(self, classes: Sequence[type]) -> None:
        usage = "%(prog)s --model_name_or_path M --vision_tower T --data_path D --image_folder I --output_dir O [...]"
        super().__init__(classes, usage=usage, formatter_class=_OneSpelling)
        theirs = {part.name for part in dataclasses.fields(transformers.TrainingArguments)}
        ours = set(TrainingArguments.__annotations__)
        actions = self._optionals._group_actions
        inherited = self.add_argument_group("flags of transformers.TrainingArguments")
        inherited._group_actions = [action for action in actions if action.dest in theirs - ours]
        self._optionals._group_actions = [action for action in actions if action not in inherited._group_actions]

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message} (--help shows all flags)")


def parse_arguments(argv: Sequence[str] | None = None, classes: Sequence[type] = ARGUMENTS) -> tuple[Any, Any, Any]:
    """Model, data and training arguments from the command line; `classes` may be another package's.

    Raises:
        ConfigurationError: flags that do not exist, or that transformers refuses.
    """
    parser = TrainerParser(classes)
    try:
        *parts, left = parser.parse_args_into_dataclasses(
            modern_argv(sys.argv[1:] if argv is None else argv), return_remaining_strings=True
        )
    except (ValueError, NotImplementedError) as error:
        raise ConfigurationError(str(error)) from error
    if left:
        raise no_such_flag([word for word in left if word.startswith("--")] or left, parser.options)
    return tuple(parts)
