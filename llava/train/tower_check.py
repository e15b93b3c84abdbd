"""What training did to a vision tower that was not frozen.

Users of Bunny had models that gave the same answer for every image, without any warning (Bunny#140).
"""

import torch

from llava.model.multimodal_encoder.base import VisionTower

_TOO_ALIKE = 1e-3


def tower_drift(tower: VisionTower) -> float:
    """Change of the trained weights from the published ones: norm of the difference over the norm."""
    published = tower.load_network(torch.float32).state_dict()
    moved = total = 0.0
    for name, parameter in tower.vision_tower.named_parameters():
        if parameter.requires_grad:
            value = parameter.detach().float().cpu()
            moved += (value - published[name]).square().sum().item()
            total += published[name].square().sum().item()
    return (moved / total) ** 0.5


@torch.no_grad()
def difference_of_two_images(tower: VisionTower) -> float:
    """Difference between the features of two noise images: norm of the difference over the norm; 0 is blind."""
    processor = tower.load_processor()
    size = processor.crop_size or processor.size
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size["height"], size["width"], generator=noise)
    first, second = tower(images).float()
    return ((first - second).norm() / first.norm()).item()


def describe_tower(tower: VisionTower) -> str:
    """One line with both, and a warning if the tower no longer tells images apart."""
    apart = difference_of_two_images(tower)
    line = f"vision tower: its weights moved by {tower_drift(tower):.2%}; two images of noise are {apart:.2%} apart"
    if apart < _TOO_ALIKE:
        line += "\nwarning: the tower no longer tells images apart; train it at a lower --mm_projector_lr, or freeze it"
    return line
