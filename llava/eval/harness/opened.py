"""What the model classes of both harnesses share: an opened checkpoint, its answers, and the processes of a run."""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from transformers.utils.logging import tqdm

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import OWN_TEMPLATE, TemplateError, get_template
from llava.dtypes import DTYPES
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.arguments import check_questions_template
from llava.eval.answering.batching import BatchSize, until_done
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import DEFAULT_CONTEXT
from llava.eval.answering.questions import Question
from llava.flags import device as device_name
from llava.flags import positive
from llava.model.builder import checked_device, load_checkpoint
from llava.names import close, did_you_mean

NAME = "llava_vr"
"""The name of our models in both harnesses."""
_DTYPES = DTYPES | {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()} | {"auto": None, None: None}
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The harnesses' names for the number of new tokens, the first of which counts."""
_OF_SAMPLING = ("temperature", "top_p", "top_k")
_TOP_K = 50
"""The only `top_k` of our decoding: transformers' default."""
_NOT_THE_TASKS = ("use_cache", "pad_token_id", "eos_token_id", "image_aspect_ratio")
"""Settings that some tasks give, although the checkpoint or our decoding has its own."""
_ARGUMENTS = (
    *("pretrained", "model_base", "conv_mode", "vision_tower", "dtype", "device"),
    *("batch_size", "max_batch_size", "max_length"),
)


class HarnessModel:
    """One half of a harness's model class; the other base is the harness's own.

    Attributes:
        sees: whether tower and projector are loaded.
        answers_as: the class that answers.
        new_tokens: of a task that does not say how many.
    """

    sees = False
    answers_as: type[Answerer] = Answerer
    new_tokens = 256

    def __init__(
        self,
        pretrained: str = "",
        model_base: str | None = None,
        conv_mode: str | None = None,
        vision_tower: str | None = None,
        dtype: str | None = None,
        device: str = "cuda",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        **unknown: Any,
    ) -> None:
        """Opens and loads a checkpoint; the arguments are those of --model_args.

        Args:
            pretrained: checkpoint: full, LoRA, projector, merged or pruned.
            model_base: base of a LoRA or a projector; default: the recorded one.
            conv_mode: conversation template; default: the one that the checkpoint records.
            vision_tower: tower folder, if the recorded one is missing.
            dtype: float32, float16 or bfloat16; default ("auto"): float16 on a GPU, float32 on a CPU.
            device: "cuda" and "cuda:0" without a GPU mean the CPU; of several processes, each takes a GPU of its own.
            batch_size: requests at once; "auto" takes what fits, and halves it when memory runs out.
            max_batch_size: most requests at once of "auto".
            max_length: tokens that the model reads at once; default: all its positions.

        Raises:
            EvaluationError: names all arguments with impossible values.
            CheckpointError: the checkpoint cannot be loaded.
        """
        super().__init__()
        self.batch_size = None if str(batch_size).partition(":")[0] == "auto" else batch_size
        numbers = {"batch_size": self.batch_size, "max_batch_size": max_batch_size, "max_length": max_length}
        _check(pretrained, conv_mode, dtype, device, numbers, unknown)
        self.most_rows = max_batch_size
        # lm-eval's default is "cuda:0", also on a machine without a GPU.
        device = "cuda" if device == "cuda:0" and not torch.cuda.is_available() else str(device)
        self._device = torch.device(self._join(checked_device(device)))
        self.checkpoint = open_checkpoint(str(pretrained), model_base, flag="pretrained")
        if self.sees and not self.checkpoint.tower:
            raise EvaluationError(f"{self.checkpoint.name} has no vision tower: it cannot be shown images")
        positions = getattr(self.checkpoint.model_config(), "max_position_embeddings", None)
        if max_length and positions and int(max_length) > positions:
            raise EvaluationError(f"max_length={max_length} is beyond the {positions} positions of the model")
        self.max_length = int(max_length or positions or DEFAULT_CONTEXT)
        self.template_name = conv_mode or self.checkpoint.question_template
        own = self.template_name == OWN_TEMPLATE
        if not own:
            check_questions_template(self.template_name, self.checkpoint)
        self.template = None if own else get_template(self.template_name)
        self.tokenizer, self.model, processor, _ = load_checkpoint(
            self.checkpoint,
            device=str(self._device),
            dtype=_DTYPES[dtype],
            vision_tower=vision_tower,
            text_only=not self.sees,
        )
        self.answerer = self.answers_as(self.model, self.tokenizer, processor, None, Path())

    def _join(self, device: str) -> str:
        """Joins the processes of torchrun or `accelerate launch`, if there are several; the device of this one."""
        self._rank, self._world_size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return device
        # The other processes wait at the end for the slowest one.
        patient = InitProcessGroupKwargs(timeout=timedelta(weeks=4))
        self.accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[patient])
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        return f"cuda:{self.accelerator.local_process_index}" if device.startswith("cuda") else device

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def tokenizer_name(self) -> str:
        """What rendered requests depend on: the harness keeps them under this name."""
        return f"{self.checkpoint.name}__{self.template_name}".replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes about the model into its results."""
        return {
            "model_num_parameters": self.model.num_parameters(),
            "model_dtype": str(self.model.dtype),
            "checkpoint_kind": self.checkpoint.kind.value,
            "conversation_template": self.template_name,
        }

    def rows(self, new_tokens: int = 0) -> BatchSize:
        """A new batch size, of the arguments; `new_tokens` per prompt."""
        size = BatchSize.of(None if self.batch_size is None else int(self.batch_size), self.model, new_tokens)
        if not size.given and self.most_rows:
            size.rows = min(size.rows, int(self.most_rows))
        return size

    def generation(self, settings: Mapping[str, Any]) -> Generation:
        """A task's `generation_kwargs` as ours.

        Raises:
            EvaluationError: names the settings that our decoding does not have.
        """
        left = dict(settings)
        lengths = [left.pop(name, None) for name in _LENGTHS]
        until = left.pop("until", None) or []
        temperature, top_p, top_k = (left.pop(name, None) for name in _OF_SAMPLING)
        sampled = left.pop("do_sample", None)
        sampled = bool(temperature) if sampled is None else bool(sampled) and temperature != 0
        beams = left.pop("num_beams", None)
        for name in _NOT_THE_TASKS:
            left.pop(name, None)
        wrong = [f"{name}={value!r}" for name, value in left.items() if value is not None]
        if sampled and top_k not in (None, _TOP_K):
            wrong.append(f"top_k={top_k!r} (only {_TOP_K})")
        if wrong:
            known = ", ".join(("until", "do_sample", *_LENGTHS[:2], *_OF_SAMPLING, "num_beams"))
            raise EvaluationError(f"generation_kwargs that {NAME} does not have: {', '.join(wrong)}; it has: {known}")
        stops = [until] if isinstance(until, str) else list(until)
        stops += [self.tokenizer.eos_token, self.template.stop if self.template else None]
        return Generation(
            max_new_tokens=int(next((length for length in lengths if length is not None), self.new_tokens)),
            temperature=float(1 if temperature is None else temperature) if sampled else 0.0,
            top_p=top_p,
            num_beams=int(beams or 1),
            stop_strings=tuple(dict.fromkeys(stop for stop in stops if stop)),
        )

    def respond(self, requests: Sequence[Any], questions: Sequence[Question], settings: Sequence[Any]) -> list[str]:
        """The texts of all requests, each given as a question with its `generation_kwargs`."""
        alike: dict[str, list[int]] = defaultdict(list)
        for place, kwargs in enumerate(settings):
            alike[json.dumps(kwargs, sort_keys=True, default=str)].append(place)
        # All are read before the first is answered, so that a wrong one shows at once.
        generations = [self.generation(settings[places[0]]) for places in alike.values()]
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), desc="answers", unit="request", disable=bool(self._rank)) as bar:
            for generation, places in zip(generations, alike.values(), strict=True):
                answerer = replace(self.answerer, generation=generation)
                answer = answerer.answer if self.sees else answerer.continuations
                size = self.rows(generation.max_new_tokens)

                def work(left: list[int], answerer: Answerer = answerer, answer: Any = answer, size: Any = size) -> Any:
                    for batch in answerer.batches([questions[place] for place in left], size):
                        asked = [left[row] for row in batch.rows]
                        found = answer([questions[place] for place in asked], batch.prompts)
                        for place, text in zip(asked, found, strict=True):
                            self.cache_hook.add_partial("generate_until", requests[place].args[:2], text)
                            yield place, text
                        bar.update(len(asked))

                texts |= zip(places, until_done(size, places, work), strict=True)
        return [texts[place] for place in range(len(requests))]

    # lm-eval calls these if there are several processes; lmms-eval asks `accelerator` itself.

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.accelerator.gather(tensor) if self._world_size > 1 else tensor

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        if self._world_size == 1:
            return [obj]
        found = [None] * self._world_size if self._rank == dst else None
        torch.distributed.gather_object(obj, found, dst=dst)
        return found

    def barrier(self) -> None:
        if self._world_size > 1:
            self.accelerator.wait_for_everyone()


def note(text: str) -> None:
    """For the user; standard output holds the harness's table."""
    print(f"note: {text}", file=sys.stderr)


def _check(
    pretrained: str,
    conv_mode: str | None,
    dtype: str | None,
    device: str,
    numbers: Mapping[str, Any],
    unknown: Mapping[str, Any],
) -> None:
    """Raises `EvaluationError` that names everything that is wrong with --model_args."""
    wrong = [] if pretrained else ["pretrained=CHECKPOINT is needed"]
    if dtype not in _DTYPES:
        wrong.append(f"dtype={dtype}: allowed: {', '.join(str(name) for name in _DTYPES if name)}")
    try:
        device_name(str(device))
    except argparse.ArgumentTypeError as error:
        wrong.append(f"device={device}: {error}")
    for name, value in numbers.items():
        try:
            if value is not None:
                positive(str(value))
        except argparse.ArgumentTypeError as error:
            wrong.append(f"{name}: {error}")
    if conv_mode is not None:
        try:
            get_template(str(conv_mode))
        except TemplateError as error:
            wrong.append(f"conv_mode={conv_mode}: {error}")
    for name in unknown:
        wrong.append(f"{name}: no such argument{did_you_mean(*close(name, _ARGUMENTS))}")
    if wrong:
        raise EvaluationError(f"model_args of {NAME}: {'; '.join(wrong)} (all: {', '.join(_ARGUMENTS)})")
