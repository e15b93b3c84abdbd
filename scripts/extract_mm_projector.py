"""Writes the projector of a checkpoint to its own file (upstream: same name and flags).

python scripts/extract_mm_projector.py --model-path LLAVA --output mm_projector.bin
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from llava.files import written_whole
from llava.flags import Parser, run_program
from llava.outputs import FileKind, check_files


@dataclass(frozen=True)
class _ProjectorFile(FileKind):
    def recognises(self, path: Path) -> bool:
        from llava.checkpoint.parts import is_projector
        from llava.checkpoint.safe import load_pickled

        try:
            held = load_pickled(path, mmap=True)
        except ValueError:
            return not path.stat().st_size
        return isinstance(held, dict) and all(map(is_projector, held))


PROJECTOR_FILE = _ProjectorFile("a projector", ".bin")


def extract(args: argparse.Namespace) -> None:
    """Writes the projector's tensors by stage 1's names, `model.mm_projector.*`; no other tensor is read."""
    # These import torch, so they wait until the flags have been read.
    import torch

    from llava.checkpoint.folder import open_checkpoint
    from llava.checkpoint.hf_llava import our_name
    from llava.checkpoint.opened import CheckpointError
    from llava.checkpoint.parts import projector_key

    checkpoint = open_checkpoint(args.model_path, with_base=False)
    check_files({"--output": (args.output, PROJECTOR_FILE)}, checkpoint.tensors.files)
    # Clones: a saved view would contain the file that it is mapped from.
    projector = {
        f"model.{key}": stored.tensor().clone()
        for stored in checkpoint.tensors
        if (key := projector_key(our_name(stored.name)))
    }
    if not projector:
        raise CheckpointError(f"{checkpoint.name} holds no projector")
    # Through an open file: with a path, torch writes its temporary name into the file.
    with written_whole(args.output) as aside, open(aside, "wb") as file:
        torch.save(projector, file)
    print(f"{args.output} holds {', '.join(projector)}")


def main() -> None:
    parser = Parser(description="Extract the projector of a checkpoint")
    parser.add_argument("--model-path", required=True, help="full, merged, LoRA or transformers LLaVA checkpoint")
    parser.add_argument("--output", required=True, type=Path, help="file to write, such as mm_projector.bin")
    extract(parser.parse_args())


if __name__ == "__main__":
    run_program(main)
