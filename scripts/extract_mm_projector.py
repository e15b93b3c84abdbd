"""Takes the projector out of a checkpoint into a file of its own (upstream: same name and flags).

python scripts/extract_mm_projector.py --model-path LLAVA --output mm_projector.bin
"""

import argparse
import sys
from pathlib import Path

import torch

from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.old_folder import NON_LORA, PROJECTOR, CheckpointError, Kind, read_checkpoint
from llava.checkpoint.weights import WeightFiles
from llava.files import written_whole


def projector_of(model_path: str) -> dict[str, torch.Tensor]:
    """The projector's tensors by stage 1's names, `model.mm_projector.*`; nothing else is read of a full checkpoint."""
    checkpoint = read_checkpoint(model_path)
    if checkpoint.kind is Kind.FULL:
        weights = WeightFiles(checkpoint.path)
        found = {name: our_name(name) for name in weights.names()}
        projector = {ours: weights.tensor(name) for name, ours in found.items() if "mm_projector." in ours}
    else:
        file = checkpoint.path / (NON_LORA if checkpoint.kind is Kind.LORA else PROJECTOR)
        trained = torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else {}
        projector = {
            "model.mm_projector." + name.split("mm_projector.", 1)[1]: value
            for name, value in trained.items()
            if "mm_projector." in name
        }
    if not projector:
        raise CheckpointError(f"{model_path} holds no projector")
    # Clones: what is saved must not drag along the file that it is mapped from.
    return {name: value.clone() for name, value in projector.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Extract the projector of a checkpoint")
    parser.add_argument("--model-path", required=True, help="full, merged, LoRA or transformers LLaVA checkpoint")
    parser.add_argument("--output", required=True, type=Path, help="file to write, such as mm_projector.bin")
    args = parser.parse_args()
    try:
        projector = projector_of(args.model_path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    with written_whole(args.output) as aside:
        torch.save(projector, aside)
    print(f"{args.output} holds {', '.join(projector)}")


if __name__ == "__main__":
    main()
