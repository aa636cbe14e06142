"""Figures of votes and ratings that come as a CSV from anywhere: strengths, win rates, agreement. Nothing is stored.

Must not know the database, screens or models.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from ft.errors import BadInput
from review.protocol.agreement import Level, alpha_interval, alpha_of_units, ordered
from review.protocol.kappa import cohen_kappa, fleiss_kappa, full_agreement
from review.protocol.ranking import POINTS, Duel, Outcome, Strength, bradley_terry, for_arm, win_rate
from review.services.csv_columns import table
from review.services.vote_words import choice_of

MAX_ARMS, MAX_CODERS, SHOWN_MISTAKES = 1_000, 1_000, 5
KAPPA_CODERS = 20  # beyond this many coders, pairwise kappas are a wall of numbers
WINNERS: dict[str, Outcome] = {"left": "first", "right": "second", "tie": "tie", "both_bad": "both_bad"}
SIGNATURE = (
    "bradley-terry+win-rate|ties:half|both_bad:apart|scale:natural log, mean 0|separated:half a tie per pair"
    "|ci:95 %, two-way clustered by prompt and reviewer"
)
AGREEMENT_SIGNATURE = (
    "krippendorff-alpha 2011|missing:left out|single-rated units:left out|ci:95 %, bootstrap over units, seeded"
    "|kappa:Cohen, unweighted, and Fleiss"
)
VOTE_COLUMNS = {
    "left": ("model_a", "arm_a", "a", "first"),
    "right": ("model_b", "arm_b", "b", "second"),
    "winner": ("choice", "vote", "preference", "label"),
    "reviewer": ("judge", "annotator", "rater", "worker", "user"),
    "prompt": ("prompt_id", "question_id", "question", "instruction", "task"),
}
RATING_COLUMNS = {
    "unit": ("item", "task", "prompt", "question_id"),
    "coder": ("rater", "annotator", "reviewer", "judge", "worker"),
    "value": ("rating", "label", "score", "choice", "winner"),
}
MISSING = ("na", "n/a", "nan", "null", "none", "-", "?")  # no rating, where all others are numbers
PLACES = {"left": "first", "right": "second"}
VOTE_VALUES = {"first", "second", "tie", "same", "both_bad"}


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
    """`units_compared` of the `units` were rated by several coders. `alpha` by level with its `interval`, None where it cannot be said;
    `kappa` by pair of coders; `fleiss_kappa` where all units have as many ratings; `full_agreement`: share of the units compared on which
    all agree."""

    ratings: int
    coders: int
    units: int
    units_compared: int
    alpha: dict[str, float | None]
    kappa: dict[str, float | None]
    signature: str
    note: str
    interval: dict[str, tuple[float, float] | None]
    fleiss_kappa: float | None
    full_agreement: float | None


def rank_file(path: Path) -> Ranking:
    """Columns left, right, winner and, where known, reviewer and prompt. Raises BadInput (unusable rows by line), NotFound, Unavailable."""
    votes = table(path, ("left", "right", "winner"), ("reviewer", "prompt"), VOTE_COLUMNS)
    duels: list[Duel] = []
    wrong: list[str] = []
    prompts: dict[str, int] = {}
    reviewers: dict[str, int] = {}
    for line, row in votes.rows:
        choice = choice_of(row["winner"], row["left"], row["right"])
        if problem := _vote_problem(row, choice):
            wrong.append(f"line {line} ({problem})")
            continue
        prompt = prompts.setdefault(row.get("prompt") or f"\0{line}", len(prompts))
        reviewer = reviewers.setdefault(row.get("reviewer", ""), len(reviewers))
        duels.append(Duel(prompt, reviewer, row["left"], row["right"], WINNERS[choice]))
    _refuse(path, wrong)
    found = rank(duels)
    return replace(found, note=" ".join(filter(None, (found.note, *_file_notes(duels, [row for _, row in votes.rows], votes.ignored)))))


def _file_notes(duels: Sequence[Duel], rows: Sequence[dict[str, str]], ignored: Sequence[str]) -> Iterable[str]:
    if ignored:
        yield f"Columns not used: {', '.join(ignored)[:300]}."
    nobody = sum(not row["reviewer"] for row in rows if "reviewer" in row)
    if 0 < nobody < len(rows):
        yield f"{nobody:,} votes name no reviewer; they are taken for one more reviewer's."
    unnamed = sum(not row["prompt"] for row in rows if "prompt" in row)
    if 0 < unnamed < len(rows):
        yield f"{unnamed:,} votes name no prompt; each is taken for a prompt of its own."
    if rows and "reviewer" in rows[0] and "prompt" in rows[0]:
        seen = Counter((d.prompt, d.reviewer, *sorted((d.first, d.second))) for d in duels)
        if again := sum(seen.values()) - len(seen):
            yield f"{again:,} votes are by a reviewer who has judged that pair before; all are counted."


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
    given = table(path, ("unit", "coder", "value"), (), RATING_COLUMNS)
    ratings: dict[tuple[str, str], str] = {}
    lines: dict[tuple[str, str], int] = {}
    wrong: list[str] = []
    for line, row in given.rows:
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
    found = agreement(ratings)
    unused = f"Columns not used: {', '.join(given.ignored)[:300]}." if given.ignored else ""
    return replace(found, note=" ".join(filter(None, (found.note, unused))))


def agreement(ratings: dict[tuple[str, str], str]) -> Agreement:
    """`ratings`: (unit, coder) -> value. Interval needs numbers throughout, ordinal needs numbers or the words of a vote."""
    values, numeric, missing = _values(ratings)
    if not values:
        raise BadInput("There are no ratings to compare. Add rows of unit, coder and value.")
    coders = list(dict.fromkeys(c for _, c in values))
    if len(coders) > MAX_CODERS:
        raise BadInput(f"There are {len(coders):,} coders, more than {MAX_CODERS:,}. Check which column says who rated.")
    by_unit: dict[str, dict[str, Any]] = defaultdict(dict)
    for (unit, coder), value in values.items():
        by_unit[unit][coder] = value
    units = [list(rated.values()) for rated in by_unit.values()]
    ranks = ordered(units) if numeric or {v for unit in units for v in unit} <= VOTE_VALUES else None
    by_level: dict[Level, list[list[Any]]] = {"nominal": units, "ordinal": ranks or [], "interval": units if numeric else []}
    alpha = {str(level): _finite(alpha_of_units(found, level)) for level, found in by_level.items()}
    compared = sum(len(unit) > 1 for unit in units)
    return Agreement(
        ratings=len(values), coders=len(coders), units=len(units), units_compared=compared, alpha=alpha,
        kappa=_kappas(coders, [[rated.get(coder) for rated in by_unit.values()] for coder in coders[: KAPPA_CODERS + 1]]),
        signature=AGREEMENT_SIGNATURE, note=_agreement_note(numeric, ranks is not None, compared, alpha["nominal"], missing),
        interval={str(level): alpha_interval(found, level) for level, found in by_level.items()},
        fleiss_kappa=_finite(fleiss_kappa(units)), full_agreement=_finite(full_agreement(units)),
    )  # fmt: skip


def _values(ratings: dict[tuple[str, str], str]) -> tuple[dict[tuple[str, str], Any], bool, int]:
    """(values, whether all are numbers, how many are words for a missing rating). Words of a vote are spelt one way."""
    numbers = {place: number for place, value in ratings.items() if (number := _number(value)) is not None}
    words = {place: value for place, value in ratings.items() if place not in numbers}
    if numbers and all(value.casefold() in MISSING for value in words.values()):
        return numbers, True, len(words)
    lower = {place: value.casefold().replace(" ", "_") for place, value in ratings.items()}
    if set(lower.values()) <= {*VOTE_VALUES, *PLACES}:
        return {place: PLACES.get(value, value) for place, value in lower.items()}, False, 0
    return dict(ratings), False, 0


def _vote_problem(row: dict[str, str], choice: str) -> str:
    if not row["left"] or not row["right"]:
        return "left and right must be filled in"
    if row["left"] == row["right"]:
        return f"{row['left']} cannot meet itself"
    return "" if choice else f"winner is {row['winner'][:40]!r}, not {', '.join(WINNERS)}"


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


def _agreement_note(numeric: bool, ranked: bool, compared: int, nominal: float | None, missing: int) -> str:
    notes = [
        (not numeric and not ranked, "Some values are not numbers, so there is only the nominal alpha."),
        (not numeric and ranked, "The ordinal alpha takes a tie as standing between the two sides and leaves both_bad out."),
        (missing > 0, f"{missing:,} values that say there is no rating (such as NA) are left out."),
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
