"""Writes the projector of a checkpoint to its own file (upstream: same name and flags).

python scripts/extract_mm_projector.py --model-path LLAVA --output mm_projector.bin
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.opened import Checkpoint, CheckpointError
from llava.checkpoint.safe import load_pickled
from llava.files import written_whole
from llava.flags import Parser, run_program
from llava.outputs import FileKind, check_files


@dataclass(frozen=True)
class _ProjectorFile(FileKind):
    def recognises(self, path: Path) -> bool:
        try:
            held = load_pickled(path, mmap=True)
        except ValueError:
            return not path.stat().st_size
        return isinstance(held, dict) and all("mm_projector." in name for name in held)


PROJECTOR_FILE = _ProjectorFile("a projector", ".bin")


def projector_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The projector's tensors by stage 1's names, `model.mm_projector.*`; no other tensor is read."""
    # Clones: a saved view would contain the file that it is mapped from.
    projector = {
        "model.mm_projector." + name.split("mm_projector.", 1)[1]: stored.tensor().clone()
        for stored in checkpoint.tensors
        if "mm_projector." in (name := our_name(stored.name))
    }
    if not projector:
        raise CheckpointError(f"{checkpoint.name} holds no projector")
    return projector


def main() -> None:
    parser = Parser(description="Extract the projector of a checkpoint")
    parser.add_argument("--model-path", required=True, help="full, merged, LoRA or transformers LLaVA checkpoint")
    parser.add_argument("--output", required=True, type=Path, help="file to write, such as mm_projector.bin")
    args = parser.parse_args()
    checkpoint = open_checkpoint(args.model_path, with_base=False)
    check_files({"--output": (args.output, PROJECTOR_FILE)}, checkpoint.tensors.files)
    projector = projector_of(checkpoint)
    with written_whole(args.output) as aside:
        torch.save(projector, aside)
    print(f"{args.output} holds {', '.join(projector)}")


if __name__ == "__main__":
    run_program(main)
