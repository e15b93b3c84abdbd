"""A scoring run: measures samples and weights through the journal, and makes the metrics of a score file."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers.utils.logging import tqdm

from llava.journal import Journal
from llava.names import agree, count
from visual_region.importance import PARAMETER_METRICS, SAMPLE_METRICS
from visual_region.importance.means import Scores
from visual_region.importance.parameters import LayerSums, compare_layers
from visual_region.importance.samples import Reader, SampleSet, groups_of
from visual_region.importance.score_file import entry_of
from visual_region.importance.sweep import sweep
from visual_region.importance.tokens import count_kinds
from visual_region.importance.weights import DecoderWeights


def measure_samples(
    reader: Reader, samples: SampleSet, metrics: Sequence[str], layer_path: str, batch_size: int, journal: Journal
) -> list[dict[str, Any]]:
    """The journal's entries of the samples: `id`, `tokens` by kind, and a list `(layers, numbers)` by recorder."""
    groups = groups_of(samples, batch_size)
    left = [group for group in groups if f"sample {group[-1]}" not in journal.entries]
    done = len(samples.indices) - sum(map(len, left))
    if done:
        print(f"{done} of {count(len(samples.indices), 'sample')} {agree(done, 'was', 'were')} measured before")
    recorders = dict.fromkeys(SAMPLE_METRICS[name].recorder for name in metrics if name in SAMPLE_METRICS)
    bar = tqdm(total=len(samples.indices), initial=done, desc="samples", unit="sample")
    batches = reader.batches(samples, left)
    for batch, numbers in sweep(reader.model, batches, [make() for make in recorders], layer_path):
        entries, tokens = {}, count_kinds(batch.kinds).tolist()
        for row, index in enumerate(batch.samples):
            measured = {name: value[row].tolist() for name, value in numbers.items()}
            entries[f"sample {index}"] = {"id": samples.records[index].id, "tokens": tokens[row], **measured}
        journal.add(entries)
        bar.update(len(batch.samples))
    bar.close()
    return [journal.entries[f"sample {index}"] for index in samples.indices]


def sample_metrics(rows: Sequence[dict[str, Any]], metrics: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Entries of the score file: the metrics, then their details; without those that no sample has."""
    counts = torch.tensor([row["tokens"] for row in rows])
    scores: dict[str, Scores] = {}
    details: dict[str, Scores] = {}
    parts = {}
    for metric in (SAMPLE_METRICS[name] for name in metrics if name in SAMPLE_METRICS):
        numbers = torch.tensor([row[metric.recorder.name] for row in rows], dtype=torch.float64)
        scores[metric.name], parts[metric.name] = metric.scores(numbers, counts), metric.mean_of
        details |= metric.details(numbers, counts)
    measured = {name: value for name, value in (scores | details).items() if value.weights.sum() > 0}
    return {name: entry_of(value, resamples, seed, parts.get(name, ())) for name, value in measured.items()}


def parameter_metrics(
    trained: DecoderWeights, backbone: DecoderWeights, metrics: Sequence[str], journal: Journal
) -> dict[str, Any]:
    """Entries of the score file that compare two checkpoints."""
    depth = len(trained.layers)
    left = [i for i in range(depth) if f"layer {i}" not in journal.entries]
    compared = zip(left, compare_layers(trained, backbone, left), strict=True)
    for i, sums in tqdm(compared, total=depth, initial=depth - len(left), desc="parameters", unit="layer"):
        journal.add({f"layer {i}": asdict(sums)})
    sums = [LayerSums(**journal.entries[f"layer {i}"]) for i in range(depth)]
    return {name: PARAMETER_METRICS[name].entry(sums) for name in metrics if name in PARAMETER_METRICS}
