"""Bang's blinding index against its published worked example, and the interval's coverage."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from review.protocol.blinding_index import bang, blinding, tuned_side
from review.protocol.records import Beside, VoteRecord
from review.protocol.tally import tally
from review.protocol.verdict import Rule


@pytest.mark.parametrize(("right", "wrong", "unsure", "index", "low", "high"),
                         [(82, 25, 170, 0.21, 0.15, 0.26), (29, 27, 83, 0.01, -0.07, 0.10)])  # fmt: skip
def test_the_index_is_that_of_the_crisp_trial(right: int, wrong: int, unsure: int, index: float, low: float, high: float) -> None:
    """Bang, Ni and Davis (2004), table 7: treatment and placebo arm, with one-sided 95 % limits."""
    found = bang(right, wrong, unsure)
    assert found.index is not None
    assert found.error is not None
    assert round(found.index, 2) == index
    assert (round(found.index - 1.645 * found.error, 2), round(found.index + 1.645 * found.error, 2)) == (low, high)


@pytest.mark.parametrize("truth", [(1 / 3, 1 / 3), (0.5, 0.1), (0.05, 0.05)])
@pytest.mark.parametrize("n", [8, 40])
def test_the_interval_holds_the_truth_nineteen_times_in_twenty(truth: tuple[float, float], n: int) -> None:
    rng, held = np.random.default_rng(3), 0
    for right, wrong, unsure in rng.multinomial(n, (*truth, 1 - sum(truth)), size=1000):
        found = bang(int(right), int(wrong), int(unsure))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth[0] - truth[1] <= found.high
    assert held >= 920


def test_words_say_what_the_index_means() -> None:
    assert "Nobody was asked" in blinding([]).words
    assert "no better than chance" in bang(10, 10, 5).words
    assert "the blinding failed" in bang(30, 2, 5).words
    assert "one arm for the other" in bang(2, 30, 5).words


def test_only_guesses_at_pairs_with_one_tuned_model_count() -> None:
    assert tuned_side("base", "v3", ["v3"]) == "right"
    assert tuned_side("v2", "v3", ["v2", "v3"]) == tuned_side("base", "human", ["v3"]) == ""
    votes = [
        VoteRecord(f"a{n}", 1, f"p{n}", n, n % 2, *arms, "tie") for n, arms in enumerate([("base", "v3"), ("v3", "base"), ("base", "x")])
    ]
    found = tally(votes, ["base", "v3", "x"], "base", Rule(), Beside({"a0": "right", "a1": "right", "a2": "left"}, tuned=frozenset({"v3"})))
    assert (found.blinding.asked, found.blinding.right, found.blinding.wrong) == (2, 1, 1)
    assert "NaN" not in json.dumps(asdict(found.blinding))
