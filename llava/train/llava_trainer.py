"""The Hugging Face trainer with LLaVA's sampling, learning-rate groups and checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from llava.data.sampler import EpochSampler
from llava.train.checkpoint import restore_trained, save_trained

STAGING = ".partial"


class LLaVATrainer(Trainer):
    """Upstream: llava/train/llava_trainer.py.

    Args:
        mode: "projector", "lora" or "full": what trains, which decides what a checkpoint holds.
    """

    def __init__(self, *args: Any, mode: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mode = mode
        self._staging = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        lengths = dataset.modality_lengths if self.args.group_by_modality_length else None
        return EpochSampler(
            len(dataset),
            seed,
            lengths,
            batch_size=self.args.train_batch_size,
            world_size=self.args.world_size * self.args.gradient_accumulation_steps,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self.parameter_groups(model), **kwargs)
        return self.optimizer

    def parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """{rest, projector} x {decay, no decay}; the projector's have their own rate where one is given.

        A tower that trains shares the projector's rate, as in Bunny.
        """
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                beside = "mm_projector" in name or "vision_tower" in name
                key = (beside and self.args.mm_projector_lr is not None, name in decayed)
                groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if decay else 0.0,
                "lr": self.args.mm_projector_lr if projector else self.args.learning_rate,
            }
            for (projector, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / STAGING) if self._staging else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes the checkpoint aside and renames it, so that a checkpoint-N is whole or not there."""
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(run_dir / name, ignore_errors=True)
            (run_dir / STAGING / name).rename(run_dir / name)
            shutil.rmtree(run_dir / STAGING, ignore_errors=True)
            rotate_checkpoints(output_dir=str(run_dir), save_total_limit=self.args.save_total_limit, use_mtime=False)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.mode == "full":
            super()._save(output_dir, state_dict)
            return
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            save_trained(self.accelerator.unwrap_model(self.model), self.mode, folder, state_dict)
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.mode == "full":
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore_trained(self.model if model is None else model, self.mode, Path(resume_from_checkpoint))
