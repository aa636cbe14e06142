"""Values, 95 % intervals and paired differences from per-prompt sufficient statistics: a resample re-adds rows, it re-scores no text.

Percentile bootstrap over prompts, seeded. It understates the uncertainty of very few prompts (below about 20) and knows nothing of prompts
that resemble each other. Pure numpy. Must not know texts, the database or the screens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ft.errors import BadInput
from ft.metrics.words import METRIC_SCALE

Rows = Sequence[Sequence[float]]
Array = NDArray[np.float64]
RESAMPLES = 1000
SEED = 12345
_AT_ONCE = 2_000_000  # drawn counts held at a time


@dataclass(frozen=True, slots=True)
class Scored:
    """One metric over `n` prompts. `statistics` has one row a prompt, in the order given, and is what `paired` takes."""

    value: float
    low: float
    high: float
    n: int
    signature: str
    statistics: list[list[float]] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first arm's value minus the second's on the same `n` prompts; clear of zero when `low` and `high` have one sign."""

    value: float
    low: float
    high: float
    n: int = 0

    @property
    def clear(self) -> bool:
        return self.low > 0 or self.high < 0


def _bleu(totals: Array, n: int) -> Array:
    """sacreBLEU's corpus BLEU (exponential smoothing) of many summed statistics at once: [sys_len, ref_len, matches 1-4, totals 1-4]."""
    system, reference, matches, counts = totals[:, 0], totals[:, 1], totals[:, 2:6], totals[:, 6:10]
    missed = (matches == 0) & (counts > 0)
    smoothing = 2.0 ** np.cumsum(missed, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(missed, 100.0 / (smoothing * counts), 100.0 * matches / counts)
        brevity = np.where(system < reference, np.exp(1 - reference / system), 1.0)
        score = brevity * np.exp(np.log(precision).sum(axis=1) / 4)
    return np.where((counts > 0).all(axis=1) & (matches > 0).any(axis=1), score, 0.0)


def _chrf(totals: Array, n: int) -> Array:
    """sacreBLEU's corpus chrF2 of many summed statistics at once: six times [hypothesis, reference, matches]."""
    hypothesis, reference, matches = totals[:, 0::3], totals[:, 1::3], totals[:, 2::3]
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision = np.where(used, matches / np.maximum(hypothesis, 1), 0).sum(axis=1) / orders
    recall = np.where(used, matches / np.maximum(reference, 1), 0).sum(axis=1) / orders
    weighted = 4 * precision + recall
    return np.where(weighted > 0, 100 * 5 * precision * recall / np.where(weighted > 0, weighted, 1), 0.0)


def _mean(totals: Array, n: int) -> Array:
    return totals[:, 0] / n


_FORMULA: dict[str, Callable[[Array, int], Array]] = {"bleu": _bleu, "chrf": _chrf}
_WIDTH = {"bleu": 10, "chrf": 18}


def _array(metric: str, rows: Rows) -> Array:
    if metric not in METRIC_SCALE:
        raise BadInput(f"Unknown metric {metric!r}. Known metrics: {', '.join(METRIC_SCALE)}.")
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or not len(array) or array.shape[1] != _WIDTH.get(metric, 1):
        raise BadInput(f"There is nothing to compute {metric} from. Score at least one prompt that has an answer and a reference.")
    return array


def value_of(metric: str, rows: Rows) -> float:
    """The corpus score of per-prompt statistics. Raises BadInput for an unknown metric or no rows."""
    array = _array(metric, rows)
    return float(_FORMULA.get(metric, _mean)(array.sum(axis=0, keepdims=True), len(array))[0])


def _resampled(metric: str, arrays: Sequence[Array], seed: int, resamples: int) -> list[Array]:
    """Scores of the same resamples of prompts for each array."""
    n = len(arrays[0])
    draw = np.random.default_rng(seed)
    formula = _FORMULA.get(metric, _mean)
    parts: list[list[Array]] = [[] for _ in arrays]
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        counts = draw.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start)).astype(np.float64)
        for part, array in zip(parts, arrays, strict=True):
            part.append(formula(counts @ array, n))
    return [np.concatenate(part) for part in parts]


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def interval(metric: str, rows: Rows, seed: int = SEED, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval. Of one prompt nothing is known: the whole scale."""
    array = _array(metric, rows)
    if len(array) == 1:
        return 0.0, METRIC_SCALE[metric]
    return _percentiles(_resampled(metric, [array], seed, resamples)[0])


def paired(metric: str, first: Rows, second: Rows, seed: int = SEED, resamples: int = RESAMPLES) -> Difference:
    """First minus second, both scored on the same prompts in the same order. Raises BadInput when the rows do not match."""
    ours, theirs = _array(metric, first), _array(metric, second)
    if len(ours) != len(theirs):
        raise BadInput(f"{len(ours)} and {len(theirs)} prompts cannot be paired. Compare both arms on the same prompts.")
    value = value_of(metric, first) - value_of(metric, second)
    if len(ours) == 1:
        return Difference(value, -METRIC_SCALE[metric], METRIC_SCALE[metric], 1)
    one, other = _resampled(metric, [ours, theirs], seed, resamples)
    return Difference(value, *_percentiles(one - other), n=len(ours))
