"""Agreement against published figures, of votes and criteria in terms of arms, with intervals."""

import csv
import json
import math
from typing import Any

import numpy as np
import pytest

from review.protocol.agreement import agreements, alpha_interval, alpha_of_units, krippendorff_alpha
from review.protocol.kappa import fleiss_kappa, full_agreement
from review.protocol.records import VoteRecord
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


def pandalm_units() -> list[list[str]]:
    rows = json.loads(shared("pandalm", "testset-v1.json").read_text())
    return [[str(row[f"annotator{rater}"]) for rater in (1, 2, 3)] for row in rows]


def test_pandalms_raters_have_the_published_fleiss_kappa_and_share_of_full_agreement() -> None:
    figures = expected()["pandalm"]
    assert fleiss_kappa(pandalm_units()) == pytest.approx(figures["fleiss_kappa"], abs=1e-5)
    assert full_agreement(pandalm_units()) == pytest.approx(figures["full_agreement_share"], abs=1e-5)


def test_fleiss_kappa_is_that_of_his_worked_example() -> None:
    """Fleiss (1971), as worked on Wikipedia: 14 raters, 10 subjects, 5 categories, kappa 0.210."""
    counts = [(0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1), (7, 7, 0, 0, 0), (3, 2, 6, 3, 0),
              (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)]  # fmt: skip
    units = [[value for value, count in enumerate(row) for _ in range(count)] for row in counts]
    assert fleiss_kappa(units) == pytest.approx(0.210, abs=5e-4)
    assert math.isnan(fleiss_kappa([["a", "b"], ["a"]]))
    assert math.isnan(fleiss_kappa([]))


def test_the_interval_of_alpha_holds_the_truth_nineteen_times_in_twenty() -> None:
    """Units drawn from PandaLM's own: its alpha is the truth."""
    units = pandalm_units()
    truth, rng, held = alpha_of_units(units), np.random.default_rng(4), 0
    for _ in range(200):
        low, high = alpha_interval([units[i] for i in rng.integers(0, len(units), 200)]) or (math.nan, math.nan)
        held += low <= truth <= high
    assert 180 <= held <= 198


def test_the_interval_is_the_same_each_time_and_unknown_for_one_unit() -> None:
    units = [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]] * 5
    assert alpha_interval(units) == alpha_interval(units)
    assert alpha_interval([["a", "b"]]) is None
    assert alpha_interval([]) is None


def record(pair: int, reviewer: int, choice: str, turned: bool = False, **criteria: Any) -> VoteRecord:
    """`choice` and marks are about the first of the two arms: left, unless the pair is turned."""
    swap = {"left": "right", "right": "left"} if turned else {}
    left, right = ("b", "a") if turned else ("a", "b")

    def seen(mark: Any) -> Any:
        return {swap.get(side, side): points for side, points in mark.items()} if isinstance(mark, dict) else swap.get(mark, mark)

    marks = {name: seen(mark) for name, mark in criteria.items()}
    return VoteRecord(f"{pair}/{reviewer}", 1, str(pair), pair, reviewer, left, right, seen(choice), criteria=marks)


def test_votes_and_criteria_agree_in_terms_of_arms_whichever_side_they_stood_on() -> None:
    said = ["left", "right", "tie", "left", "both_bad", "right"]
    records = [record(n, who, choice, turned=(n + who) % 2 == 0, accuracy="same" if choice == "tie" else "left" if n % 2 else "right",
                      tone={"left": 1 + n % 5, "right": 5 - n % 3})
               for n, choice in enumerate(said) for who in (1, 2)]  # fmt: skip
    found = {one.criterion: one for one in agreements(records, ["accuracy", "tone", "never"])}
    assert (found["vote"].nominal, found["vote"].ordinal, found["vote"].units) == (1, 1, 6)
    assert (found["accuracy"].nominal, found["accuracy"].ordinal) == (1, 1)
    assert (found["tone"].nominal, found["tone"].ordinal, found["tone"].units) == (1, 1, 12)
    assert (found["never"].nominal, found["never"].units) == (None, 0)


def test_a_tie_is_nearer_to_either_side_than_the_sides_are_to_each_other() -> None:
    near = [record(n, 1, side) for n, side in enumerate(["left", "right"] * 5)] + [record(n, 2, "tie") for n in range(10)]
    far = [record(n, 1, side) for n, side in enumerate(["left", "right"] * 5)] + [
        record(n, 2, side) for n, side in enumerate(["right", "left"] * 5)
    ]
    assert (agreements(near)[0].ordinal or 0) > (agreements(far)[0].ordinal or 0)


def test_both_bad_has_no_place_in_the_order_but_counts_in_the_nominal_alpha() -> None:
    records = [record(n, who, "left" if n % 2 else "right") for n in range(8) for who in (1, 2)]
    with_bad = [*records, record(9, 1, "both_bad"), record(9, 2, "left"), record(10, 1, "both_bad"), record(10, 2, "both_bad")]
    plain, bad = agreements(records)[0], agreements(with_bad)[0]
    assert (plain.nominal, plain.ordinal, bad.ordinal) == (1, 1, 1)
    assert bad.nominal is not None
    assert bad.nominal < 1
    assert bad.units == 10
