"""Agreement against published figures, and the marks of reviewers who do not review."""

import csv
import json
import math
from typing import Any

import numpy as np
import pytest

from review.protocol.agreement import doubts, krippendorff_alpha, self_consistency, side_bias, too_fast
from review.protocol.tally import VoteRecord, reviewer_doubts
from tests.conftest import shared


def expected() -> dict[str, Any]:
    return json.loads(shared("expected.json").read_text())


@pytest.mark.parametrize("level", ["nominal", "interval"])
def test_alpha_with_missing_values_is_the_published_one(level: Any) -> None:
    case = expected()["krippendorff_wikipedia"]
    assert krippendorff_alpha(case["coders_by_unit"], level) == pytest.approx(case["computed"][level], abs=1e-5)
    assert round(krippendorff_alpha(case["coders_by_unit"], level), 3) == case["published"][level]


def test_alpha_of_krippendorffs_example_c() -> None:
    with shared("agreement_bt", "codings.csv").open() as file:
        coders = [[int(cell) if cell else None for cell in row] for row in csv.reader(file)]
    assert krippendorff_alpha(coders) == pytest.approx(expected()["krippendorff_2011_C"]["computed"], abs=1e-5)
    # Krippendorff (2011), section D: the same data, ordinal and interval.
    assert krippendorff_alpha(coders, "ordinal") == pytest.approx(0.815, abs=1e-3)
    assert krippendorff_alpha(coders, "interval") == pytest.approx(0.849, abs=1e-3)


def test_units_rated_once_are_left_out() -> None:
    triples = expected()["krippendorff_small"]["triples"]
    units = sorted({u for _, u, _ in triples})
    coders = [[next((v for c, u, v in triples if (c, u) == (coder, unit)), None) for unit in units] for coder in ("c1", "c2", "c3")]
    assert krippendorff_alpha(coders) == pytest.approx(-1 / 3, abs=1e-5)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_agrees_with_evalica_on_random_ratings(level: Any) -> None:
    import evalica
    import pandas as pd

    rng = np.random.default_rng(8)
    ratings = rng.integers(1, 6, (4, 60)).astype(float)
    ratings[:, ::2] = ratings[0, ::2]
    ratings[rng.random(ratings.shape) < 0.2] = np.nan
    coders = [[None if math.isnan(v) else int(v) for v in row] for row in ratings]
    oracle = evalica.alpha(pd.DataFrame(ratings), distance=level).alpha
    assert krippendorff_alpha(coders, level) == pytest.approx(oracle, abs=1e-9)


def test_alpha_is_one_for_perfect_agreement_and_unknown_without_overlap_or_variation() -> None:
    assert krippendorff_alpha([["a", "b", "a"], ["a", "b", "a"]]) == 1
    assert math.isnan(krippendorff_alpha([["a", None], [None, "b"]]))
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))
    assert math.isnan(krippendorff_alpha([]))


def test_side_bias_counts_only_votes_for_a_side() -> None:
    bias = side_bias(["left"] * 18 + ["right"] * 2 + ["tie"] * 30)
    assert (bias.left, bias.right, bias.share) == (18, 2, 0.9)
    assert bias.p < 0.001
    assert side_bias(["tie"]).p == 1


def test_a_repeated_pair_with_sides_swapped_agrees_when_the_choice_swaps() -> None:
    assert self_consistency([("left", "right"), ("tie", "tie"), ("left", "left"), ("both_bad", "tie")]) == 0.5
    assert math.isnan(self_consistency([]))


def test_reading_time_depends_on_the_words() -> None:
    assert too_fast(2.9, 10)
    assert not too_fast(3, 10)
    assert too_fast(9, 150)
    assert not too_fast(10, 150)


def test_control_pairs_and_repeats_raise_doubts_only_with_enough_of_them() -> None:
    honest = ["left", "right"] * 25
    assert doubts(honest, 0) == ()
    assert doubts(honest, 0, obvious=[True, True, False]) == ()
    assert doubts(honest, 0, obvious=[False, False]) != ()
    assert doubts(honest, 0, obvious=[False]) == ()
    assert doubts(honest, 0, repeats=[("left", "left")] * 4) != ()
    assert doubts(honest, 0, repeats=[("left", "left")] * 2 + [("left", "right")]) == ()
    assert doubts([], 0) == ()


# T26: always-left and hasty votes show in the votes alone; a random voter needs repeats or control pairs.


def simulated(seed: int, votes: int = 50) -> tuple[list[VoteRecord], set[int], set[int]]:
    """Votes of 12 honest reviewers and three bots; every fourth pair comes back with its sides swapped."""
    rng = np.random.default_rng(seed)
    records = []
    for reviewer in range(15):
        for pair in range(votes):
            better = rng.random() < 0.7
            for kind in ("real", "repeat") if pair % 4 == 0 else ("real",):
                arms = ("a", "b") if rng.random() < 0.5 else ("b", "a")
                if kind == "repeat":
                    arms = (records[-1].right_arm, records[-1].left_arm)
                records.append(
                    VoteRecord(
                        assignment=f"{reviewer}/{pair}/{kind}",
                        revision=1,
                        pair=str(pair),
                        prompt=pair,
                        reviewer=reviewer,
                        left_arm=arms[0],
                        right_arm=arms[1],
                        choice=vote_of(reviewer, rng, arms, better),
                        kind=kind,
                        seconds=1.5 if reviewer == 14 else float(rng.lognormal(3.3, 0.5)),
                        characters=600,
                    )
                )
    return records, {12, 13, 14}, set(range(12))


def vote_of(reviewer: int, rng: np.random.Generator, arms: tuple[str, str], better: bool) -> str:
    if reviewer == 12:
        return "left"
    if reviewer == 13:
        return str(rng.choice(["left", "right", "tie", "both_bad"]))
    if rng.random() < 0.15:
        return "tie"
    return "left" if (arms[0] == "a") == (better if rng.random() < 0.95 else not better) else "right"


def test_bots_are_doubted_and_honest_reviewers_hardly_ever() -> None:
    caught, accused = {12: 0, 13: 0, 14: 0}, 0
    for seed in range(20):
        records, bots, honest = simulated(seed)
        doubted = set(reviewer_doubts(records))
        for bot in bots & doubted:
            caught[bot] += 1
        accused += len(honest & doubted)
    assert caught[12] == caught[14] == 20
    assert caught[13] >= 15
    assert accused <= 0.05 * 12 * 20
