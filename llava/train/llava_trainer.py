"""The Hugging Face trainer with LLaVA's sampling, learning-rate groups and checkpoints."""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import rotate_checkpoints

from llava.checkpoint.opened import Kind
from llava.checkpoint.parts import is_vision
from llava.checkpoint.write import finish_folder
from llava.data.sampler import EpochSampler
from llava.files import full_disk_explained
from llava.tiling import Tiling
from llava.train import hub
from llava.train.checkpoint import check_trusted, restore_trained, save_trained, trainable_state
from llava.train.diverged import FiniteCheck
from llava.train.learned import LearnedCheck
from llava.train.report import Printer, Progress
from llava.train.run_meter import decoder_positions
from llava.train.waiting import DataWait, waiting_line

STAGING = ".partial"


class LLaVATrainer(Trainer):
    """Upstream: llava/train/llava_trainer.py.

    Args:
        kind: what is trained, which decides what a checkpoint holds.
        tiling: of the model, which counts the positions that an image takes.
    """

    def __init__(self, *args: Any, kind: Kind, tiling: Tiling, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind, self.tiling = kind, tiling
        for theirs, ours in ((ProgressCallback, Progress), (PrinterCallback, Printer)):
            if self.pop_callback(theirs) is not None:
                self.add_callback(ours)
        self._staging = False
        self._learned, self._finite = LearnedCheck(), FiniteCheck(self.model)
        self._data_wait = DataWait()
        # Seconds and samples at the last line of the log.
        self._logged = (time.perf_counter(), 0)
        # Samples and positions of the decoder that this process has seen.
        self.seen = torch.zeros(2, dtype=torch.int64, device=self.args.device)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with self._data_wait.timed():
            return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds samples per second to the numbers of steps, and the share of time that steps waited to the summary.

        Raises:
            DivergedError: the loss of the steps since the last line shows it.
        """
        if "loss" in logs:
            now, seen = time.perf_counter(), self.seen[0].item()
            before, seen_before = self._logged
            logs["samples_per_second"] = round((seen - seen_before) * self.args.world_size / (now - before), 3)
            self._logged = (now, seen)
        if "train_runtime" in logs:
            share = torch.tensor([self._data_wait.measured()], device=self.args.device)
            # Steps take as long as those of the process that waits most.
            logs["train_data_wait"] = round(self.accelerator.gather(share).max().item(), 4)
        super().log(logs, *args, **kwargs)
        if "loss" in logs:
            self._finite.loss(logs["loss"], self.state.global_step)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        positions = decoder_positions(inputs, self.tiling, self.args.model_max_length)
        self.seen += torch.stack([positions.new_tensor(len(positions)), positions.sum()])
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._learned.step(loss)
        return loss

    def check_result(self) -> None:
        """Called at the end, before the result is written.

        Raises:
            NothingLearnedError: the loss was 0 in every step that this process and the others made.
            DivergedError: the loss was not finite at the end, or a weight is not.
        """
        self._finite.end(self.state.global_step)
        self._learned.end(self.accelerator)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Refuses a checkpoint-N with code in it: transformers and DeepSpeed read most of its files themselves.

        Prints at the end how long steps waited for data.
        """
        if resume_from_checkpoint:
            check_trusted(Path(resume_from_checkpoint))
        self._logged = (time.perf_counter(), 0)
        output = super().train(resume_from_checkpoint, **kwargs)
        if self.args.should_log:
            print(waiting_line(output.metrics["train_data_wait"], self.args.dataloader_num_workers))
        return output

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        lengths = dataset.modality_lengths if self.args.group_by_modality_length else None
        ranks = self.args.world_size * self.args.gradient_accumulation_steps
        self._sampler = EpochSampler(len(dataset), seed, lengths, self.args.train_batch_size, ranks)
        return self._sampler

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.hf_ds_config.is_offload():
                # DeepSpeed's AdamW for states in host memory; one from its config would lose the groups.
                from deepspeed.ops.adam import DeepSpeedCPUAdam

                kept = {name: kwargs[name] for name in ("lr", "betas", "eps") if name in kwargs}
                optimizer_class, kwargs = DeepSpeedCPUAdam, kept | {"adamw_mode": True}
            self.optimizer = optimizer_class(self.parameter_groups(model), **kwargs)
        return self.optimizer

    def parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """{rest, projector} x {decay, no decay}; projector and tower (as in Bunny) use --mm_projector_lr if given."""
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                key = (is_vision(name) and self.args.mm_projector_lr is not None, name in decayed)
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
        """Writes the checkpoint aside and renames it, so that a checkpoint-N is always complete."""
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            # Files of a killed run; DeepSpeed would add to them.
            shutil.rmtree(run_dir / STAGING, ignore_errors=True)
        self._finite.weights(self.state.global_step)
        self.accelerator.wait_for_everyone()
        self._staging = True
        try:
            # Weights, and the optimizer's two moments of those that train.
            moments = 2 * sum(parameter.nbytes for parameter in self.model.parameters() if parameter.requires_grad)
            with full_disk_explained(run_dir / name, run_dir / STAGING, self._bytes_of_model() + moments):
                super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        self.accelerator.wait_for_everyone()
        if self.state.best_model_checkpoint:
            self.state.best_model_checkpoint = str(run_dir / Path(self.state.best_model_checkpoint).name)
        if self.args.should_save:
            self.state.save_to_json(str(run_dir / STAGING / name / TRAINER_STATE_NAME))
            shutil.rmtree(run_dir / name, ignore_errors=True)
            (run_dir / STAGING / name).rename(run_dir / name)
            shutil.rmtree(run_dir / STAGING, ignore_errors=True)
            self.remove_old_checkpoints(run_dir)
            if self.args.push_to_hub and self.is_world_process_zero():
                hub.push_checkpoint(self.args, self.hub_model_id, run_dir / name)
        self.accelerator.wait_for_everyone()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: `_save_checkpoint` pushes the checkpoint when it is complete."""

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
        """Pushes the finished output folder; raises `OSError` if that fails."""
        if self.is_world_process_zero():
            print(hub.push_result(self.args, self.hub_model_id))

    def remove_old_checkpoints(self, run_dir: str | Path) -> None:
        """Keeps as many as --save_total_limit says."""
        rotate_checkpoints(
            output_dir=str(run_dir),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=False,
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the model's files; every rank calls it, as ZeRO-3 gathers parameters."""
        folder = Path(output_dir or self.args.output_dir)
        aside = None if folder.exists() else folder
        explained = full_disk_explained(Path(self.args.output_dir), aside, self._bytes_of_model())
        with contextlib.nullcontext() if _internal_call else explained:
            if self.kind is Kind.FULL:
                # As if called by the trainer itself: else it would push a folder that is not finished.
                super().save_model(output_dir, _internal_call=True)
                return
            model = self.accelerator.unwrap_model(self.model)
            state = trainable_state(model)
            if self.args.should_save:
                save_trained(model, self.kind, folder, state)
                self._finish(folder)

    def _finish(self, folder: Path) -> None:
        """Completes the folder of a checkpoint-N, or of the result, which has the run's name wherever it is written."""
        output = Path(self.args.output_dir)
        name = folder.name if self._staging else output.resolve().name
        base = self.accelerator.unwrap_model(self.model).config._name_or_path
        finish_folder(folder, self.processing_class, name, output, base)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the card was written with the model. `push_to_hub` would replace it by a generic one."""

    def save_state(self) -> None:
        file = Path(self.args.output_dir, TRAINER_STATE_NAME)
        with full_disk_explained(file, file):
            super().save_state()

    def _bytes_of_model(self) -> int:
        """The bytes of the weights that a checkpoint holds, at least."""
        saved = (p for p in self.model.parameters() if p.requires_grad or self.kind is Kind.FULL)
        return sum(parameter.nbytes for parameter in saved)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self._finish(Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            # Frozen weights are in the base, and would add 26 GB to each checkpoint of a 13B model.
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
            if self.args.should_save:
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.is_deepspeed_enabled or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._load_sharded(resume_from_checkpoint)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        trained = super()._init_training_state(max_steps, *args, **kwargs)
        # The state of a checkpoint-N holds the intervals that the run was started with.
        self.state.compute_steps(self.args, max_steps)
        self._learned.resume(self.state.log_history, self.args.device)
        self._finite.resume(self.state.log_history)
        return trained

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # A run that is resumed at its last step: transformers checks only after one more step.
            self.control.should_training_stop = True
            return
        # With several processes, accelerate's set_epoch finds no sampler below skipped batches.
        self._sampler.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def _load_sharded(self, folder: str) -> None:
        # Not strict: frozen weights are not in the folder. check_resumable has compared what trains.
        check_trusted(Path(folder))
        deepspeed_load_checkpoint(self.model_wrapped, folder, load_module_strict=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.kind is Kind.FULL:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore_trained(self.model if model is None else model, self.kind, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:
            self._load_sharded(self.state.best_model_checkpoint)
        elif self.kind is Kind.FULL:
            super()._load_best_model()
        else:
            restore_trained(self.model, self.kind, Path(self.state.best_model_checkpoint))
