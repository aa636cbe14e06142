"""How far reviewers agree: Krippendorff's alpha, nominal and ordinal, of the vote and of each criterion, with intervals over the units.

After K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), by the coincidence matrix. A unit is a pair of answers (or, for
points, each answer of it). Its values are told in terms of arms, so that the side an answer stood on is no disagreement. The order of a
vote is: first arm better, tie, second arm better; "both bad" has no place in that order and is left out of the ordinal alpha, but is a
value of its own in the nominal one. Intervals: 95 % percentile bootstrap over units, seeded. Pure. Must not know the database, the models
or the screens.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from review.protocol.records import VoteRecord

Level = Literal["nominal", "ordinal", "interval"]
VOTE = "vote"
ORDER = {"first": 0, "tie": 1, "same": 1, "second": 2}
DRAWS, SEED = 1_000, 20_260_101
Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the vote (`criterion` "vote") or of a criterion. `units` were judged by several; None where alpha cannot be told, for want of
    them or of variation. `low`..`high` is the nominal alpha's interval."""

    criterion: str
    nominal: float | None
    low: float | None
    high: float | None
    ordinal: float | None
    ordinal_low: float | None
    ordinal_high: float | None
    units: int


def krippendorff_alpha(coders: Sequence[Sequence[Hashable | None]], level: Level = "nominal") -> float:
    """Alpha over `coders` x units, None where a coder did not rate; units rated once are left out. NaN without overlap or variation.

    Values must sort for "ordinal" and be numbers for "interval".
    """
    if len({len(row) for row in coders}) > 1:
        raise ValueError("Every coder needs one entry for each unit, None where missing.")
    return alpha_of_units([[value for value in unit if value is not None] for unit in zip(*coders, strict=True)], level)


def alpha_of_units(units: Iterable[Sequence[Hashable]], level: Level = "nominal") -> float:
    """The same from each unit's values, whoever gave them."""
    values, patterns, times = _patterns(units, level)
    if len(values) < 2:
        return math.nan
    return float(_alphas(values, np.asarray(times, dtype=float)[None, :] @ patterns, level)[0])


def alpha_interval(units: Iterable[Sequence[Hashable]], level: Level = "nominal") -> tuple[float, float] | None:
    """95 % by drawing units again; None below two units or where hardly any draw has variation."""
    values, patterns, times = _patterns(units, level)
    count = sum(times)
    if len(values) < 2 or count < 2:
        return None
    draws = np.random.default_rng(SEED).multinomial(count, np.asarray(times) / count, size=DRAWS).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        alphas = _alphas(values, draws @ patterns, level)
    alphas = alphas[np.isfinite(alphas)]
    if len(alphas) < DRAWS / 2:
        return None
    low, high = np.percentile(alphas, [2.5, 97.5])
    return float(low), float(high)


def _patterns(units: Iterable[Sequence[Hashable]], level: Level) -> tuple[list[Any], Array, list[int]]:
    """(values, coincidences of each different unit as a row, how often it is there): thousands of units are a few dozen patterns."""
    several = [tuple(unit) for unit in units if len(unit) > 1]
    values = sorted({value for unit in several for value in unit}, key=None if level != "nominal" else repr)  # type: ignore[type-var, arg-type]
    place = {value: i for i, value in enumerate(values)}
    seen = Counter(tuple(sorted(place[value] for value in unit)) for unit in several)
    rows = []
    for unit in seen:
        counts = np.bincount(unit, minlength=len(values)).astype(float)
        rows.append(((np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)).ravel())
    return values, np.array(rows).reshape(len(seen), len(values) ** 2), list(seen.values())


def _alphas(values: Sequence[Any], coincidences: Array, level: Level) -> Array:
    """One alpha for each row of (draws, values x values)."""
    k = len(values)
    found = coincidences.reshape(-1, k, k)
    totals = found.sum(axis=1)
    distance = _DISTANCES[level](values, totals)
    expected = totals[:, :, None] * totals[:, None, :] - totals[:, :, None] * np.eye(k)
    expected /= (totals.sum(axis=1) - 1)[:, None, None]
    return np.asarray(1 - (found * distance).sum(axis=(1, 2)) / (expected * distance).sum(axis=(1, 2)))


def _nominal(values: Sequence[Any], totals: Array) -> Array:
    return 1.0 - np.eye(len(values))


def _ordinal(values: Sequence[Any], totals: Array) -> Array:
    middles = np.cumsum(totals, axis=1) - totals / 2
    return np.asarray((middles[:, :, None] - middles[:, None, :]) ** 2)


def _interval(values: Sequence[Any], totals: Array) -> Array:
    numbers = np.array(values, dtype=float)
    return np.asarray(np.subtract.outer(numbers, numbers) ** 2)


_DISTANCES: dict[Level, Callable[[Sequence[Any], Array], Array]] = {"nominal": _nominal, "ordinal": _ordinal, "interval": _interval}


def agreements(records: Sequence[VoteRecord], criteria: Sequence[str] = ()) -> tuple[Agreement, ...]:
    """Of the vote, then of each criterion. `records` are those that count, one for each reviewer and pair."""
    found = [_agreement(VOTE, ((r.pair, r.side) for r in records))]
    found += [_agreement(name, (rating for r in records for rating in _marks(r, name))) for name in criteria]
    return tuple(found)


def agreement(records: Sequence[VoteRecord]) -> float | None:
    """The nominal alpha of the vote alone; None without overlap or variation."""
    return _finite(alpha_of_units(_units((r.pair, r.side) for r in records)))


def _marks(record: VoteRecord, criterion: str) -> Iterator[tuple[Hashable, Hashable]]:
    """(unit, value): one for the pair, or one for each answer where points were given."""
    mark = record.criteria.get(criterion)
    if isinstance(mark, Mapping):
        for side in ("left", "right"):
            if isinstance(points := mark.get(side), int | float):
                yield (record.pair, record.turned(side)), points
    elif isinstance(mark, str):
        yield record.pair, record.turned("same" if mark == "tie" else mark)
    elif mark is not None:
        yield record.pair, mark


def _units(ratings: Iterable[tuple[Hashable, Hashable]]) -> list[list[Hashable]]:
    found: dict[Hashable, list[Hashable]] = {}
    for unit, value in ratings:
        found.setdefault(unit, []).append(value)
    return list(found.values())


def ordered(units: Iterable[Sequence[Hashable]]) -> list[list[int | float]] | None:
    """The units' values in their order: numbers as they are, words of a vote as `ORDER` says without those that have no place in it. None
    where there are words that have no order."""
    known: set[Hashable] = {*ORDER, "both_bad"}
    found = []
    for unit in units:
        if any(not isinstance(value, int | float) and value not in known for value in unit):
            return None
        found.append([value if isinstance(value, int | float) else ORDER[str(value)] for value in unit if value != "both_bad"])
    return found


def _agreement(criterion: str, ratings: Iterable[tuple[Hashable, Hashable]]) -> Agreement:
    units = _units(ratings)
    ranks = ordered(units) or []
    low, high = alpha_interval(units) or (None, None)
    ordinal_low, ordinal_high = alpha_interval(ranks, "ordinal") or (None, None)
    return Agreement(
        criterion, _finite(alpha_of_units(units)), low, high, _finite(alpha_of_units(ranks, "ordinal")), ordinal_low, ordinal_high,
        sum(len(unit) > 1 for unit in units),
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
