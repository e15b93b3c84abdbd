"""Rules that say how right an answer is; each gives a number in [0, 1]."""

import math
from collections.abc import Callable, Sequence

Box = tuple[float, float, float, float]


def best(rule: Callable[[str, str], float], said: str, references: Sequence[str]) -> float:
    """The best score over several references."""
    return max(float(rule(reference, said)) for reference in references)


def normalise(text: str) -> str:
    """Lower case, without surrounding blanks and one final full stop."""
    return text.strip().lower().removesuffix(".").strip()


def exact(reference: str, said: str) -> bool:
    """Equality without case and outer blanks: OCR-VQA's rule in Qwen-VL (evaluate_exact_match_accuracy)."""
    return reference.strip().lower() == said.strip().lower()


def relaxed_correctness(target: str, prediction: str, max_relative_change: float = 0.05) -> bool:
    """ChartQA's rule, which Qwen-VL calls relaxed accuracy: numbers may be off by 5% of the TARGET, words may not.

    "12%" is the number 0.12. If the target is zero, or either side is not a number, the two must be equal without case
    and outer blanks. Qwen-VL's own call swaps the two arguments, so its tolerance is a share of the prediction; this
    is the rule as ChartQA states it.
    """
    target, prediction = target.strip(), prediction.strip()
    wanted, given = _number(target), _number(prediction)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= max_relative_change
    return target.lower() == prediction.lower()


def _number(text: str) -> float | None:
    """A finite number or a percentage; Python also reads "nan", "infinity" and "1_000", which are words here."""
    scale = 1.0
    if text.endswith("%"):
        text, scale = text.rstrip("%"), 100.0
    try:
        number = float(text) / scale
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def anls(reference: str, said: str, threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity of one pair, as the public harnesses compute it for DocVQA.

    Both sides lose case, outer and doubled blanks before their distance is taken; the distance is divided by the
    longer of the two RAW strings. Similarities below the threshold are 0.
    """
    first, second = (" ".join(text.lower().split()) for text in (reference, said))
    longest = max(len(reference), len(said))
    similarity = 1 - levenshtein(first, second) / longest if longest else 1.0
    return max(0.0, similarity) if similarity >= threshold else 0.0


def levenshtein(first: str, second: str) -> int:
    """Insertions, deletions and substitutions that turn one text into the other."""
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); areas without +1; 0 if both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [max(0.0, x2 - x1) * max(0.0, y2 - y1) for x1, y1, x2, y2 in (first, second)]
    union = sum(areas) - shared
    # Rounding may lift the ratio of equal boxes over 1 by a hair.
    return min(1.0, shared / union) if union > 0 else 0.0


def harmonic_mean(values: Sequence[float], offset: float = 1e-10) -> float:
    """Harmonic mean of values + offset, as TDIUC's script takes it, so that a zero does not divide."""
    return len(values) / sum(1 / (value + offset) for value in values)
