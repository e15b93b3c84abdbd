"""DeepSpeed's ZeRO with the Hugging Face trainer: config, start, and gathering of sharded parameters."""

import contextlib
import importlib.util
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from llava.train.flag_names import ConfigurationError, say

_GATHER = "stage3_gather_16bit_weights_on_model_save"
_OLD_GATHER = "gather_16bit_weights_on_model_save"


class ZeroConfigError(ConfigurationError):
    """A `--deepspeed` that cannot be used; the message says what to type instead."""


def config_of_stage(stage: int) -> dict[str, Any]:
    """What `--deepspeed auto` takes for a ZeRO stage: zero3.json, below stage 3 zero2.json. scripts/ links to them."""
    config = _read_json(Path(__file__).parent / f"deepspeed_configs/zero{3 if stage == 3 else 2}.json")
    config["zero_optimization"]["stage"] = stage
    return config


def read_zero_config(deepspeed: str | dict[str, Any]) -> dict[str, Any]:
    """The DeepSpeed config of a JSON file; settings that contradict the trainer's flags are corrected, with a note.

    An `optimizer` section would put every parameter into one group, without `--mm_projector_lr`; a `scheduler` section
    would override `--lr_scheduler_type` (upstream's zero3_offload.json has both). Without `gradient_clipping` nothing
    is clipped (upstream's zero2.json and zero3.json). Under ZeRO-3 a model is saved without weights unless they are
    gathered; upstream's zero3_offload.json has the old name of that key.

    Raises:
        ZeroConfigError: no such file, no JSON object, or a ZeRO stage other than 0 to 3.
    """
    config = json.loads(json.dumps(deepspeed)) if isinstance(deepspeed, dict) else _read_json(Path(deepspeed))
    for section, flags in (
        ("optimizer", "--learning_rate, --mm_projector_lr and --weight_decay"),
        ("scheduler", "--lr_scheduler_type and --warmup_ratio"),
    ):
        if config.pop(section, None) is not None:
            say(f"the {section!r} section of --deepspeed is left out: {flags} decide")
    if "gradient_clipping" not in config:
        say("gradient_clipping is set to auto in --deepspeed: without it --max_grad_norm would do nothing")
        config["gradient_clipping"] = "auto"
    zero = config.setdefault("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ZeroConfigError(f"--deepspeed {deepspeed}: zero_optimization.stage is {stage!r}; allowed: 0, 1, 2, 3")
    old = zero.pop(_OLD_GATHER, None)
    if stage == 3 and zero.get(_GATHER) is not True:
        if old is None:
            say(f"{_GATHER} is set to true: without it a saved folder would hold no weights")
        zero[_GATHER] = True
    return config


def start_deepspeed(use_cpu: bool) -> None:
    """Prepares the environment for DeepSpeed, before the trainer's arguments look for devices.

    A process started by plain `python` becomes a world of one, on a free port of 127.0.0.1.

    Raises:
        ZeroConfigError: DeepSpeed is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ZeroConfigError(
            "--deepspeed needs the package of that name, which is not installed: pip install -c constraints.txt "
            "-e '.[scale]'; or leave the flag out (the scripts: DEEPSPEED=)"
        )
    if use_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def join_group_on_cpu() -> None:
    """Connects DeepSpeed to the process group, which accelerate makes on CPUs; else ZeRO-3 assumes a world of one.

    Its shared-memory collectives are disabled: compiling them takes a minute, and gloo does the same.
    """
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


@contextlib.contextmanager
def gathered(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, the parameters are whole on every rank (ZeRO-3 keeps a share on each). All ranks must enter it."""
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    with contextlib.ExitStack() as stack:
        if partitioned:
            import deepspeed

            stack.enter_context(deepspeed.zero.GatheredParameters(partitioned))
        yield


@contextlib.contextmanager
def weights_whole(training: TrainingArguments) -> Iterator[None]:
    """Inside, `from_pretrained` returns whole weights under ZeRO-3 too.

    For the vision tower, which must run before the trainer starts DeepSpeed (feature cache) and shards it.
    """
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if training.deepspeed:
            set_hf_deepspeed_config(training.hf_deepspeed_config)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ZeroConfigError(
            f"--deepspeed {path} cannot be read ({error.strerror}); try ./scripts/zero2.json or auto"
        ) from error
    except ValueError as error:
        raise ZeroConfigError(f"--deepspeed {path} is not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise ZeroConfigError(f"--deepspeed {path} holds no JSON object")
    return config
