"""BLEU, chrF, ROUGE, METEOR and exact match: each score a value, a 95 % interval and a signature saying exactly what was computed.

Light: importing this imports numpy and no metric library. Must not know reviewers, the database or the screens.
"""

from collections.abc import Sequence

from ft import wordnet
from ft.errors import BadInput
from ft.metrics.intervals import RESAMPLES, SEED, Difference, Scored, interval, paired, value_of
from ft.metrics.texts import statistics
from ft.metrics.words import (
    CAUTION_WORDS,
    EXACT,
    INTERVAL_WORDS,
    METRIC_SCALE,
    METRIC_TITLES,
    METRIC_WORDS,
    METRICS,
    STEM_METEOR,
)

__all__ = [
    "CAUTION_WORDS",
    "EXACT",
    "INTERVAL_WORDS",
    "METRICS",
    "METRIC_SCALE",
    "METRIC_TITLES",
    "METRIC_WORDS",
    "STEM_METEOR",
    "Difference",
    "Scored",
    "available",
    "interval",
    "paired",
    "score",
    "value_of",
]


def available() -> tuple[str, ...]:
    """METRICS as this machine can compute them: without WordNet, METEOR is another metric under another name."""
    return METRICS if wordnet.find() else tuple(STEM_METEOR if name == "meteor" else name for name in METRICS)


def score(metric: str, answers: Sequence[str], references: Sequence[str], seed: int = SEED, resamples: int = RESAMPLES) -> Scored:
    """The metric of answers against references, pair by pair; each answer may be empty, each reference should not.

    Raises BadInput for an unknown metric, no pairs or unequal lengths; Unavailable for "meteor" without WordNet.
    """
    if metric not in METRIC_TITLES:
        raise BadInput(f"Unknown metric {metric!r}. Known metrics: {', '.join(METRIC_TITLES)}.")
    if not answers or len(answers) != len(references):
        raise BadInput(f"{len(answers)} answers cannot be scored against {len(references)} references. Give one reference an answer.")
    rows, signature = statistics(metric, answers, references)
    low, high = interval(metric, rows, seed, resamples)
    return Scored(value_of(metric, rows), low, high, len(rows), f"{signature}|bs:{resamples}|rs:{seed}", rows)
