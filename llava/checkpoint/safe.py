"""Reads folders and files of others without running code that they bring.

No other file of this project calls `from_pretrained`, `from_config` or `torch.load` directly.
"""

import pickle
import re
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch

_FOREIGN_CODE = "trust_remote_code=True"
"""transformers' advice if it would need the folder's code."""
_GLOBAL = re.compile(r"(?:GLOBAL|class) ([\w.]+)")


class UntrustedError(ValueError):
    """A folder or file that can be read only by running its code."""


class TensorFileError(ValueError):
    """A file of weights that cannot be read."""


def without_code(load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of a `from_pretrained` or `from_config` of transformers; code of the folder never runs.

    With the default, transformers asks on the terminal whether to run it.

    Raises:
        UntrustedError: nothing but the folder's code, or a pickle with code, could load it.
    """
    source = next((str(value) for value in args if isinstance(value, str | Path)), "the model")
    try:
        return load(*args, trust_remote_code=False, **kwargs)
    except ValueError as error:
        if _FOREIGN_CODE not in str(error):
            raise
        files = [file.name for file in sorted(Path(source).glob("*config.json")) if "auto_map" in file.read_text()]
        where = f" ({', '.join(files)}: auto_map)" if files else ""
        raise UntrustedError(
            f"{source} asks for Python code of its own{where}, which is never run; supported are folders whose model, "
            "tokenizer and image processor are classes of transformers"
        ) from error
    except pickle.UnpicklingError as error:
        check_pickles(sorted(Path(source).glob("*.bin")))
        raise _refusal(source, error) from error


def load_pickled(path: str | Path, allowed: Sequence[Any] = (), mmap: bool = False) -> Any:
    """The content of a file of `torch.save`, on the CPU: tensors, plain values, and the classes in `allowed`.

    Args:
        mmap: maps the tensors, if the file allows it.

    Raises:
        UntrustedError: it holds anything else.
        TensorFileError: it is damaged, or no file of `torch.save`.
    """
    try:
        with torch.serialization.safe_globals([*allowed, *_members_by_name(allowed)]):
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            except RuntimeError:
                if not mmap:
                    raise
                # Files from before torch 1.6 are not zip archives and cannot be mapped.
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (RuntimeError, LookupError, EOFError, AttributeError, TypeError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise TensorFileError(f"{path} is not a file that torch.save wrote, or is damaged ({why})") from error


def check_pickles(paths: Sequence[Path], allowed: Sequence[Any] = ()) -> None:
    """Raises `UntrustedError` if one of the files holds more than `load_pickled` returns."""
    for path in paths:
        load_pickled(path, allowed, mmap=True)


def _members_by_name(allowed: Sequence[Any]) -> list[tuple[Callable[[Any, str], Enum], str]]:
    """Replaces `getattr` in a file: Python 3.11.0 to 3.11.3 pickle the member of an enum as `getattr(class, name)`.

    Only members of the allowed enums are returned; without an allowed enum, `getattr` stays refused.
    """
    enums = [item for item in allowed if isinstance(item, type) and issubclass(item, Enum)]

    def member(enum: Any, name: str) -> Enum:
        if enum not in enums or name not in enum.__members__:
            raise pickle.UnpicklingError("Unsupported global: GLOBAL getattr")
        return enum[name]

    return [(member, "builtins.getattr")] if enums else []


def _refusal(path: str | Path, error: pickle.UnpicklingError) -> UntrustedError:
    """Without torch's message, which advises to load the file all the same."""
    named = _GLOBAL.search(str(error))
    what = f"it holds more than tensors ({named.group(1)})" if named else "it is not a file of tensors only"
    return UntrustedError(
        f"{path} is refused: {what}, and loading it could run code; get the weights as safetensors, or as a file that "
        "holds tensors only"
    )
