"""The names of the trainer's flags, and what became of upstream's. Does not import torch.

Importing the trainer takes many seconds. A misspelt flag is found before, with the names in the source files of the
argument classes.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from llava.names import close, did_you_mean

LLAVA = "llava.train.arguments"
"""The module with llava's argument classes; its `ARGUMENTS` are the classes."""
AUTO = "auto"
"""`--attn_implementation auto`."""
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""The environment variable with which torch asks Linux for huge pages, for tensors of a CPU from 2 MiB on."""
_RENAMED = {
    "--evaluation_strategy": "--eval_strategy",
    "--warmup_ratio": "--warmup_steps",
    "--no_cuda": "--use_cpu",
    "--per_gpu_train_batch_size": "--per_device_train_batch_size",
    "--per_gpu_eval_batch_size": "--per_device_eval_batch_size",
}
_GONE = ("overwrite_output_dir", "save_safetensors", "logging_dir", "half_precision_backend", "group_by_length")
_DROPPED = {f"--{name}" for name in _GONE}


class ConfigurationError(ValueError):
    """What is wrong with a run's settings. Every process of the run finds it; the first one reports it."""


def modern_argv(argv: Sequence[str]) -> list[str]:
    """Upstream's flags under their current Hugging Face names. Flags that no longer exist are left out, with a note.

    `--warmup_ratio r` is `--warmup_steps r` (a value below 1 is a share).
    """
    result: list[str] = []
    dropped = False
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if flag in _DROPPED:
            say(f"{flag} no longer exists in transformers and is ignored")
        elif not dropped or argument.startswith("--"):
            result.append(_RENAMED.get(flag, flag) + equals + value)
        # The next argument is its value, unless it begins with "--".
        dropped = flag in _DROPPED and not equals
    return result


def check_names(argv: Iterable[str], module: str) -> None:
    """Raises `ConfigurationError` for flags that neither `module`, nor llava, nor transformers declares."""
    files = [_source(name) for name in dict.fromkeys((module, LLAVA, "transformers.training_args"))]
    known = ["--help", *_RENAMED, *_DROPPED, *(f"--{name}" for file in files for name in declared(file))]
    # argparse takes the beginning of a name, and has --no_NAME for a flag that is true by default.
    accepted = [*known, *(name.replace("--", "--no_", 1) for name in known)]
    flags = [f"--{word[2:].partition('=')[0].replace('-', '_')}" for word in argv if word.startswith("--")]
    if unknown := [flag for flag in flags if not any(name.startswith(flag) for name in accepted)]:
        raise no_such_flag(unknown, known)


def no_such_flag(words: Iterable[str], known: Iterable[str]) -> ConfigurationError:
    """The error for flags that are not known, with what was probably meant."""
    known = sorted(known)
    near = (word + did_you_mean(*close(word, known)) for word in dict.fromkeys(words))
    return ConfigurationError(f"no such flag: {', '.join(near)} (--help shows all flags)")


def declared(file: Path) -> list[str]:
    """Names with an annotation in the classes of a source file: the fields of its dataclasses."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return [
        line.target.id
        for node in classes
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]


def is_main_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A note on standard error, from the first process only."""
    _print_once(f"note: {text}")


def warn(text: str) -> None:
    """A warning on standard error, from the first process only."""
    _print_once(f"warning: {text}")


def _print_once(line: str) -> None:
    if is_main_process():
        print(line, file=sys.stderr)


def _source(module: str) -> Path:
    """The source file of a module, which is not imported."""
    package, *rest = module.split(".")
    return Path(importlib.util.find_spec(package).submodule_search_locations[0], *rest).with_suffix(".py")
