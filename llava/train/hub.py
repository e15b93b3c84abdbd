"""`--push_to_hub`: what a run has finished writing goes to the Hub, with its model card.

transformers copies files of a checkpoint into the output folder in order to push them; there they would look like a
finished run. Here finished folders are pushed as they are.
"""

import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy

_STATE = ("optimizer*", "scheduler*", "rng_state*", "global_step*", "latest", "zero_to_fp32.py")
"""What only a resumed run reads."""
_UNFINISHED = ("checkpoint-*", ".*")
"""In an output folder: the checkpoints, and what is written aside."""
_PRIVATE = (TRAINING_ARGS_NAME,)
"""Holds `--hub_token`, and nothing reads it."""


def hub_problem(token: str | None) -> str | None:
    """What is wrong with a run that shall be pushed, as far as can be known without the network."""
    if token or get_token():
        return None
    return "--push_to_hub needs a token: run `hf auth login`, set HF_TOKEN, or give --hub_token"


def create_repository(args: Any) -> str:
    """Creates the repository that a run pushes to, unless it exists; its id. Raises `OSError` if that fails."""
    repository = args.hub_model_id or Path(args.output_dir).absolute().name
    api = HfApi(token=args.hub_token)
    try:
        return api.create_repo(repository, private=args.hub_private_repo, exist_ok=True).repo_id
    except Exception as error:
        # A network can fail in many ways, and each library has its own errors for it.
        raise OSError(
            f"--push_to_hub: the repository {repository} cannot be reached or created: {error}; check the network, the "
            "token and --hub_model_id, or leave the flag out and push the finished run later"
        ) from error


def push_checkpoint(args: Any, repository: str, folder: Path) -> None:
    """Pushes a finished checkpoint-N as `--hub_strategy` says. A failure is printed, and the training goes on.

    every_save: the model, without the state of the optimizer. checkpoint, all_checkpoints: also the whole folder, as
    last-checkpoint or by its name. end: nothing.

    The training waits for it: the folder may be deleted after the next save.
    """
    strategy = HubStrategy(args.hub_strategy)
    if strategy is HubStrategy.END:
        return
    try:
        _upload(args, repository, folder, f"{folder.name}: model", ignore=_STATE)
        if strategy is HubStrategy.CHECKPOINT:
            # It replaces the one before. Without that, files of earlier steps, such as DeepSpeed's folders, would stay.
            _upload(args, repository, folder, folder.name, path_in_repo="last-checkpoint", delete_patterns="*")
        elif strategy is HubStrategy.ALL_CHECKPOINTS:
            _upload(args, repository, folder, folder.name, path_in_repo=folder.name)
    except Exception as error:
        # A network can fail in many ways, and none of them may end a training.
        print(f"warning: {folder} was not pushed to {repository}, training goes on: {error}", flush=True)


def push_result(args: Any, repository: str) -> str:
    """Pushes the finished output folder without its checkpoints; returns the line to print.

    Raises:
        OSError: it could not be pushed; the message says how to do it by hand.
    """
    folder = Path(args.output_dir)
    try:
        url = _upload(args, repository, folder, "End of training", ignore=_UNFINISHED)
    except Exception as error:
        excluded = " ".join(map(shlex.quote, (*_UNFINISHED, *_PRIVATE)))
        raise OSError(
            f"the run is finished and its result is in {folder}, but it was not pushed to {repository}: {error}; "
            f"the same command tries again; by hand it is: hf upload {repository} {folder} --exclude {excluded}"
        ) from error
    return f"pushed to {url}"


def _upload(args: Any, repository: str, folder: Path, message: str, ignore: tuple[str, ...] = (), **where: Any) -> str:
    target = {"repo_id": repository, "revision": args.hub_revision, "ignore_patterns": [*ignore, *_PRIVATE], **where}
    return str(HfApi(token=args.hub_token).upload_folder(folder_path=folder, commit_message=message, **target))
