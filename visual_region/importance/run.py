"""A scoring run: from samples and checkpoints to the metrics of a score file, through the journal."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.utils.logging import tqdm

from llava.journal import Journal
from visual_region.importance import DATA_METRICS
from visual_region.importance.angular import ANGLE, AngleRecorder, angular_distance
from visual_region.importance.angular_param import angular_param
from visual_region.importance.block_influence import COSINE, CosineRecorder, block_influence
from visual_region.importance.image_attention import ATTENTION, ImageAttentionRecorder, image_attention
from visual_region.importance.means import Scores
from visual_region.importance.multimodal_bi import multimodal_bi
from visual_region.importance.parameter_change import parameter_change
from visual_region.importance.parameters import LayerSums, compare_layers
from visual_region.importance.samples import Reader, SampleSet, groups_of
from visual_region.importance.score_file import entry_of
from visual_region.importance.sweep import Recorder, sweep
from visual_region.importance.tokens import KINDS, count_kinds
from visual_region.importance.weights import DecoderWeights

_RECORDERS: dict[str, tuple[Callable[[], Recorder], tuple[str, ...]]] = {
    COSINE: (CosineRecorder, ("bi", "multimodal-bi")),
    ANGLE: (AngleRecorder, ("angular",)),
    ATTENTION: (ImageAttentionRecorder, ("image-attention",)),
}
"""What is recorded -> how, and the metrics that are made of it."""


def recorders_for(metrics: Sequence[str]) -> list[Recorder]:
    return [make() for make, names in _RECORDERS.values() if set(names) & set(metrics)]


def measure_samples(
    reader: Reader, samples: SampleSet, metrics: Sequence[str], layer_path: str, batch_size: int, journal: Journal
) -> list[dict[str, Any]]:
    """What the pass records of each sample, in the order of `samples`; finished ones are taken from the journal.

    Each entry holds `id`, `tokens` (image, prompt, answer) and, by what is recorded, a list `(layers, numbers)`.
    """
    groups = groups_of(samples, batch_size)
    left = [group for group in groups if f"sample {group[-1]}" not in journal.entries]
    done = len(samples.indices) - sum(map(len, left))
    if done:
        print(f"{done} of {len(samples.indices)} samples were measured before")
    bar = tqdm(total=len(samples.indices), initial=done, desc="samples", unit="sample")
    for batch, numbers in sweep(reader.model, reader.batches(samples, left), recorders_for(metrics), layer_path):
        tokens = count_kinds(batch.kinds).tolist()
        journal.add(
            {
                f"sample {index}": {
                    "id": samples.records[index].id,
                    "tokens": tokens[row],
                    **{name: value[row].tolist() for name, value in numbers.items()},
                }
                for row, index in enumerate(batch.samples)
            }
        )
        bar.update(len(batch.samples))
    bar.close()
    return [journal.entries[f"sample {index}"] for index in samples.indices]


def sample_metrics(rows: Sequence[dict[str, Any]], metrics: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Entries of the score file, from what `measure_samples` returned.

    Beside each metric asked for stand its parts: `bi-image`, `bi-text`, `bi-prompt`, `bi-answer`; `angular-last`;
    `image-attention-prompt` and the like (what prompt tokens give to the image).
    """
    counts = torch.tensor([row["tokens"] for row in rows])
    recorded = {
        name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in _RECORDERS if name in rows[0]
    }
    scores: dict[str, Scores] = {}
    if "bi" in metrics:
        scores["bi"] = block_influence(recorded[COSINE], counts)
    if COSINE in recorded:
        subsets = {kind: (kind,) for kind in KINDS} | {"text": ("prompt", "answer")}
        for name, kinds in subsets.items():
            scores[f"bi-{name}"] = block_influence(recorded[COSINE], counts, kinds)
    if "multimodal-bi" in metrics:
        scores["multimodal-bi"] = multimodal_bi(recorded[COSINE], counts)
    if "angular" in metrics:
        scores["angular"] = angular_distance(recorded[ANGLE])
        scores["angular-last"] = angular_distance(recorded[ANGLE], position=1)
    if "image-attention" in metrics:
        scores["image-attention"] = image_attention(recorded[ATTENTION], counts)
        for kind in KINDS:
            scores[f"image-attention-{kind}"] = image_attention(recorded[ATTENTION], counts, (kind,))
    measured = {name: value for name, value in scores.items() if value.weights.sum() > 0}
    parts = {"multimodal-bi": ("bi-image", "bi-text")}
    order = [*[name for name in DATA_METRICS if name in measured], *[n for n in measured if n not in DATA_METRICS]]
    return {name: entry_of(measured[name], resamples, seed, parts.get(name, ())) for name in order}


def parameter_metrics(
    trained: DecoderWeights, backbone: DecoderWeights, metrics: Sequence[str], journal: Journal
) -> dict[str, Any]:
    """Entries of the score file for the metrics that compare two checkpoints."""
    depth = len(trained.layers)
    left = [i for i in range(depth) if f"layer {i}" not in journal.entries]
    bar = tqdm(total=depth, initial=depth - len(left), desc="parameters", unit="layer")
    for i, sums in zip(left, compare_layers(trained, backbone, left), strict=True):
        journal.add({f"layer {i}": sums.to_dict()})
        bar.update()
    bar.close()
    sums = [LayerSums(**journal.entries[f"layer {i}"]) for i in range(depth)]
    counted = {"elements": [s.elements for s in sums], "left_out": [s.zeros for s in sums]}
    entries = {}
    if "parameter-change" in metrics:
        entries["parameter-change"] = {"values": parameter_change(sums), **counted}
    if "angular-param" in metrics:
        entries["angular-param"] = {"values": angular_param(sums), "elements": counted["elements"]}
    return entries
