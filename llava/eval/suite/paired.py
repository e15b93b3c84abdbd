"""Two checkpoints on the same questions: differences and ratios of scores with paired bootstrap intervals."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from llava.eval.answering.flags import UNITS
from llava.eval.scoring.report import Report
from llava.eval.scoring.statistics import RESAMPLES, Interval, draw_counts, percentiles
from llava.names import some

_SETTINGS = ("bos", "context", "shots", "stride")
_FREE = ("asked_in", "corpus")
"""Texts that may differ: each model is asked in its own template, and a corpus is compared by its sha256."""


class ComparisonError(ValueError):
    """Results that cannot be compared."""


def check_comparable(benchmark: str, reports: Mapping[str, Report]) -> None:
    """Raises `ComparisonError` unless all reports (by checkpoint) are of the same questions and rules."""
    (first, reference), *others = reports.items()
    for name, report in others:
        frames = [r.details.get("frame", {}).get("boxes_are_shares_of") for r in (reference, report)]
        same = {"metric": (reference.metric, report.metric), "unit": (reference.unit, report.unit), "frame": (*frames,)}
        for key in sorted(reference.details.keys() & report.details.keys()):
            # Rules, frames and methods are texts; most numbers among the details are results.
            if key in _SETTINGS or (isinstance(reference.details[key], str) and key not in _FREE):
                same[key] = (reference.details[key], report.details[key])
        differing = [f"{key}: {a!r} and {b!r}" for key, (a, b) in same.items() if a != b]
        if differing:
            raise ComparisonError(f"{benchmark}: {first} and {name} were scored differently ({'; '.join(differing)})")
        ours, theirs = questions_of(reference), questions_of(report)
        if ours != theirs:
            apart = [*sorted(ours - theirs), *sorted(theirs - ours)]
            raise ComparisonError(
                f"{benchmark}: {first} was scored on {len(ours)} questions and {name} on {len(theirs)}, "
                f"{len(ours & theirs)} of them the same (not in both: {some(apart, 3)}); "
                "score both on the same question file"
            )


@dataclass(frozen=True)
class PairedDraws:
    """Bootstrap draws of two checkpoints' scores on the same resampled questions: each `(resamples,)`."""

    ours: np.ndarray
    reference: np.ndarray

    def difference(self) -> Interval:
        return percentiles(self.ours - self.reference)

    def ratio(self) -> Interval | None:
        """None where the reference's score can be 0."""
        return percentiles(self.ours / self.reference) if self.reference.min() > 0 else None


def paired_draws(
    ours: Mapping[str, float], reference: Mapping[str, float], resamples: int = RESAMPLES, seed: int = 0
) -> PairedDraws:
    """Means on resampled questions of both, given as question -> score; a question's two scores stay together."""
    scores = np.array([(ours[key], reference[key]) for key in sorted(reference)], dtype=np.float64)
    distinct, counts = np.unique(scores, axis=0, return_counts=True)
    means = draw_counts(counts, resamples, np.random.default_rng(seed), lambda drawn: drawn @ distinct / len(scores))
    return PairedDraws(*means.T)


def questions_of(report: Report) -> Set[str]:
    """The ids of the questions; for perplexity the pieces of text with their numbers of tokens."""
    if "pieces" in report.details:
        return {f"{key} ({tokens} tokens)" for key, _, tokens, *_ in report.details["pieces"]}
    return report.per_question.keys()


def perplexity_draws(ours: Report, reference: Report, resamples: int = RESAMPLES, seed: int = 0) -> PairedDraws:
    """Perplexities on resampled pieces of the same text, in the unit of the headline."""
    # Pieces are [key, negative log-likelihood, tokens, bytes, words].
    column = 2 + UNITS.index(ours.details["unit"])
    first, second = (sorted(report.details["pieces"], key=lambda piece: piece[0]) for report in (ours, reference))
    sizes = np.array([piece[column] for piece in second], dtype=np.float64)
    nll = np.array([(piece[1], other[1]) for piece, other in zip(first, second, strict=True)], dtype=np.float64)
    values = draw_counts(
        np.ones(len(nll), dtype=np.int64),
        resamples,
        np.random.default_rng(seed),
        lambda drawn: np.exp(drawn @ nll / np.maximum(drawn @ sizes, 1)[:, None]),
    )
    return PairedDraws(*values.T)


def log_scores(report: Report) -> dict[str, float]:
    """A number for each piece of a perplexity's text: their mean is the log of the headline.

    They are its linear form (delta method), so that their spread is that of the log perplexity over pieces.
    """
    column = 2 + UNITS.index(report.details["unit"])
    pieces = report.details["pieces"]
    sizes = np.array([piece[column] for piece in pieces], dtype=np.float64)
    nll = np.array([piece[1] for piece in pieces], dtype=np.float64)
    log = nll.sum() / sizes.sum()
    values = log + (nll - log * sizes) / sizes.mean()
    return dict(zip((piece[0] for piece in pieces), values.tolist(), strict=True))


def is_mean_of_questions(report: Report) -> bool:
    """Whether the headline is the mean of the questions' scores."""
    scores = report.per_question.values()
    return bool(scores) and abs(sum(scores) / len(scores) - report.headline.value) < 1e-6


def mean_of_draws(draws: Sequence[PairedDraws]) -> PairedDraws:
    """Draws of the mean over benchmarks, which are independent of each other and have equal weight."""
    return PairedDraws(*np.mean([(draw.ours, draw.reference) for draw in draws], axis=0))
