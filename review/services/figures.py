"""Figures of votes and ratings that come as a CSV from anywhere: strengths, win rates, agreement. Nothing is stored.

Must not know the database, screens or models.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ft.errors import BadInput
from review.protocol.agreement import krippendorff_alpha
from review.protocol.kappa import cohen_kappa
from review.protocol.ranking import POINTS, Duel, Outcome, Strength, bradley_terry, for_arm, win_rate
from review.services.strict_csv import rows

MAX_ARMS, MAX_CODERS, SHOWN_MISTAKES = 1_000, 1_000, 5
KAPPA_CODERS = 20  # beyond this many coders, pairwise kappas are a wall of numbers
WINNERS: dict[str, Outcome] = {"left": "first", "right": "second", "tie": "tie", "both_bad": "both_bad"}
SIGNATURE = (
    "bradley-terry+win-rate|ties:half|both_bad:apart|scale:natural log, mean 0|separated:half a tie per pair"
    "|ci:95 %, two-way clustered by prompt and reviewer"
)
AGREEMENT_SIGNATURE = "krippendorff-alpha 2011|missing:left out|single-rated units:left out|kappa:Cohen, unweighted"


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """`log_strength`, `low`, `high`: natural log, mean 0 over the arms; None where votes do not join all arms. `share`: the strengths made
    to sum to 1. `win_rate` counts every vote alike, `win_rate_by_opponent` every opponent alike; ties half, both_bad left out of both."""

    arm: str
    log_strength: float | None
    low: float | None
    high: float | None
    share: float | None
    win_rate: float
    win_rate_low: float
    win_rate_high: float
    win_rate_by_opponent: float
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Strongest first. `note` says why there are no strengths; "" when there are."""

    votes: int
    both_bad: int
    prompts: int
    reviewers: int
    arms: tuple[ArmFigures, ...]
    signature: str
    note: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """`units` that several coders rated of all there are. `alpha` by level, None where it cannot be said; `kappa` by pair of coders."""

    ratings: int
    coders: int
    units: int
    units_compared: int
    alpha: dict[str, float | None]
    kappa: dict[str, float | None]
    signature: str
    note: str


def rank_file(path: Path) -> Ranking:
    """Columns left, right, winner and, where known, reviewer and prompt. Raises BadInput (unusable rows by line), NotFound, Unavailable."""
    duels: list[Duel] = []
    wrong: list[str] = []
    prompts: dict[str, int] = {}
    reviewers: dict[str, int] = {}
    for line, row in rows(path, ("left", "right", "winner"), ("reviewer", "prompt")):
        if problem := _vote_problem(row):
            wrong.append(f"line {line} ({problem})")
            continue
        prompt = prompts.setdefault(row.get("prompt") or f"\0{line}", len(prompts))
        reviewer = reviewers.setdefault(row.get("reviewer", ""), len(reviewers))
        duels.append(Duel(prompt, reviewer, row["left"], row["right"], WINNERS[row["winner"]]))
    _refuse(path, wrong)
    return rank(duels)


def rank(duels: Sequence[Duel]) -> Ranking:
    """The figures of every arm that was voted on."""
    arms = sorted({arm for d in duels for arm in (d.first, d.second)})
    if not arms:
        raise BadInput("There are no votes to rank. Add rows of left, right and winner.")
    if len(arms) > MAX_ARMS:
        raise BadInput(f"There are {len(arms):,} arms, more than {MAX_ARMS:,}. Check the columns left and right.")
    strengths, note = _strengths(duels, arms)
    mine: dict[str, list[Duel]] = defaultdict(list)
    for d in duels:
        mine[d.first].append(d)
        mine[d.second].append(d)
    total = sum(math.exp(s.value) for s in strengths.values())
    found = [_figures(arm, mine[arm], strengths.get(arm), total) for arm in arms]
    found.sort(key=lambda f: (-(f.log_strength or 0.0), -f.win_rate, f.arm))
    people, bad = {d.reviewer for d in duels}, sum(d.outcome == "both_bad" for d in duels)
    return Ranking(len(duels), bad, len({d.prompt for d in duels}), len(people), tuple(found), SIGNATURE, note)


def agreement_file(path: Path) -> Agreement:
    """Columns unit, coder, value; an empty value is a missing rating. Raises BadInput with every unusable line, NotFound, Unavailable."""
    ratings: dict[tuple[str, str], str] = {}
    lines: dict[tuple[str, str], int] = {}
    wrong: list[str] = []
    for line, row in rows(path, ("unit", "coder", "value")):
        place = (row["unit"], row["coder"])
        if not all(place):
            wrong.append(f"line {line} (unit and coder must be filled in)")
        elif place in lines:
            wrong.append(f"line {line} ({row['coder']} rated {row['unit']} on line {lines[place]} already)")
        else:
            lines[place] = line
            if row["value"]:
                ratings[place] = row["value"]
    _refuse(path, wrong)
    return agreement(ratings)


def agreement(ratings: dict[tuple[str, str], str]) -> Agreement:
    """`ratings`: (unit, coder) -> value. Ordinal and interval need numbers throughout."""
    if not ratings:
        raise BadInput("There are no ratings to compare. Add rows of unit, coder and value.")
    numbers = {place: number for place, value in ratings.items() if (number := _number(value)) is not None}
    numeric = len(numbers) == len(ratings)
    values: dict[tuple[str, str], Any] = dict(numbers if numeric else ratings)
    units, coders = list(dict.fromkeys(u for u, _ in values)), list(dict.fromkeys(c for _, c in values))
    if len(coders) > MAX_CODERS:
        raise BadInput(f"There are {len(coders):,} coders, more than {MAX_CODERS:,}. Check which column says who rated.")
    table = [[values.get((unit, coder)) for unit in units] for coder in coders]
    compared = sum(sum(row[at] is not None for row in table) > 1 for at in range(len(units)))
    alpha: dict[str, float | None] = {"nominal": _finite(krippendorff_alpha(table, "nominal")), "ordinal": None, "interval": None}
    if numeric:
        alpha |= {"ordinal": _finite(krippendorff_alpha(table, "ordinal")), "interval": _finite(krippendorff_alpha(table, "interval"))}
    return Agreement(
        ratings=len(values), coders=len(coders), units=len(units), units_compared=compared, alpha=alpha,
        kappa=_kappas(coders, table), signature=AGREEMENT_SIGNATURE, note=_agreement_note(numeric, compared, alpha["nominal"]),
    )  # fmt: skip


def _vote_problem(row: dict[str, str]) -> str:
    if not row["left"] or not row["right"]:
        return "left and right must be filled in"
    if row["left"] == row["right"]:
        return f"{row['left']} cannot meet itself"
    return "" if row["winner"] in WINNERS else f"winner is {row['winner'][:40]!r}, not {', '.join(WINNERS)}"


def _strengths(duels: Sequence[Duel], arms: Sequence[str]) -> tuple[dict[str, Strength], str]:
    if all(d.outcome == "both_bad" for d in duels):
        return {}, "Every vote says both bad, so there is no strength to tell."
    try:
        return {s.arm: s for s in bradley_terry(duels, arms)}, ""
    except ValueError as error:
        return {}, f"{error} So there is no common strength; the win rates hold."


def _figures(arm: str, duels: Sequence[Duel], strength: Strength | None, total: float) -> ArmFigures:
    rate = win_rate(duels, arm)
    against: dict[str, list[float]] = defaultdict(list)
    for d in for_arm(duels, arm):
        if d.outcome != "both_bad":
            against[d.second].append(POINTS[d.outcome])
    means = [sum(points) / len(points) for points in against.values()]
    return ArmFigures(
        arm=arm,
        log_strength=strength.value if strength else None,
        low=strength.low if strength else None,
        high=strength.high if strength else None,
        share=math.exp(strength.value) / total if strength else None,
        win_rate=rate.value,
        win_rate_low=rate.low,
        win_rate_high=rate.high,
        win_rate_by_opponent=sum(means) / len(means) if means else 0.5,
        votes=rate.votes,
        wins=rate.wins,
        losses=rate.losses,
        ties=rate.ties,
        both_bad=rate.both_bad,
    )


def _kappas(coders: Sequence[str], table: Sequence[Sequence[Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for one, other in combinations(range(len(coders) if len(coders) <= KAPPA_CODERS else 0), 2):
        both = [(a, b) for a, b in zip(table[one], table[other], strict=True) if a is not None and b is not None]
        found[f"{coders[one]}-{coders[other]}"] = _finite(cohen_kappa([a for a, _ in both], [b for _, b in both]))
    return found


def _agreement_note(numeric: bool, compared: int, nominal: float | None) -> str:
    notes = [
        (not numeric, "Some values are not numbers, so there is only the nominal alpha."),
        (not compared, "No unit was rated by two coders, so nothing can be compared."),
        (bool(compared) and nominal is None, "All compared ratings are the same value: alpha is undefined without variation."),
    ]
    return " ".join(words for holds, words in notes if holds)


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        more = f" and {len(wrong) - SHOWN_MISTAKES:,} more" if len(wrong) > SHOWN_MISTAKES else ""
        raise BadInput(f"{path.name} cannot be used: {'; '.join(wrong[:SHOWN_MISTAKES])}{more}. Mend or remove these rows.")


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def ratings_of(votes: Iterable[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Exported votes that count, as ratings: (pair, reviewer) -> which of its two arms, in the order of their names, was voted better."""
    found = {}
    for vote in votes:
        if vote["counts"]:
            first = min(vote["left_arm"], vote["right_arm"])
            side = vote["choice"] if vote["choice"] not in ("left", "right") else "first" if vote["winner"] == first else "second"
            found[vote["pair_key"], vote["reviewer"]] = side
    return found
