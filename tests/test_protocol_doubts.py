"""Reviewers who do not review: each mark by itself, all together, and how rarely honest people are accused (T26)."""

import math
from collections import Counter
from dataclasses import replace
from statistics import mean

import pytest

from review.protocol.agreement import agreement
from review.protocol.doubts import doubts, repeats_of, reviewer_doubts, self_consistency, sides_drawn, too_fast
from review.protocol.records import Beside, VoteRecord
from review.protocol.shares import exact_side, wilson
from review.protocol.tally import tally
from review.protocol.verdict import Rule
from tests.simulated_reviewers import ALWAYS_LEFT, CLEAR, FAST, HARD, RANDOM, Crowd, Noise


def test_side_bias_counts_only_votes_for_a_side_with_an_exact_interval() -> None:
    side = exact_side(18, 2)
    assert (side.left, side.right, side.share) == (18, 2, 0.9)
    assert side.p < 0.001
    # Clopper and Pearson (1934): 18 of 20 at 95 %.
    assert (side.low, side.high) == (pytest.approx(0.6830, abs=1e-4), pytest.approx(0.9877, abs=1e-4))
    assert exact_side(0, 0).share is None


def test_wilsons_interval_is_that_of_newcombe() -> None:
    """Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    share = wilson(81, 263)
    assert (share.low, share.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert (wilson(0, 20).low, wilson(0, 20).high) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert wilson(0, 0).share is None


def test_a_repeated_pair_with_sides_swapped_agrees_when_the_choice_swaps() -> None:
    assert self_consistency([("left", "right"), ("tie", "tie"), ("left", "left"), ("both_bad", "tie")]) == 0.5
    assert math.isnan(self_consistency([]))


def test_reading_time_depends_on_the_words() -> None:
    assert too_fast(2.9, 10)
    assert not too_fast(3, 10)
    assert too_fast(9, 150)
    assert not too_fast(10, 150)


def test_plain_pairs_and_repeats_raise_doubts_only_with_enough_of_them() -> None:
    honest = ["left", "right"] * 25
    assert doubts(honest, 0) == ()
    assert doubts(honest, 0, obvious=[True, True, False]) == ()
    assert doubts(honest, 0, obvious=[False, False]) != ()
    assert doubts(honest, 0, obvious=[False]) == ()
    assert doubts(honest, 0, repeats=[("left", "left")] * 4) != ()
    assert doubts(honest, 0, repeats=[("left", "left")] * 2 + [("left", "right")]) == ()
    assert doubts([], 0) == ()


def vote(n: int, choice: str, reviewer: int = 0, first: str = "base", second: str = "new", **more: object) -> VoteRecord:
    return replace(VoteRecord(f"{n}/{reviewer}", 1, f"p{n}", n, reviewer, first, second, choice), **more)  # type: ignore[arg-type]


def test_where_one_arm_always_stands_left_liking_it_is_no_preference_for_a_side() -> None:
    """Many published sets name the arms in one order; their votes are about the arms."""
    fixed = [vote(n, "left") for n in range(60)]
    assert not sides_drawn(fixed)
    assert reviewer_doubts(fixed) == {}
    three = [vote(n, "left", first=first, second=second) for n, (first, second) in enumerate([("a", "b"), ("c", "a"), ("b", "c")] * 20)]
    assert not sides_drawn(three)
    drawn = [vote(n, "left", first=("new", "base")[n % 2], second=("base", "new")[n % 2]) for n in range(60)]
    assert sides_drawn(drawn)
    assert "left side 60 times" in reviewer_doubts(drawn)[0][0]


def test_votes_that_nobody_timed_are_not_called_hasty() -> None:
    votes = [vote(n, ("left", "right")[n % 2]) for n in range(20)]
    assert reviewer_doubts(votes) == {}
    assert "20 of 20" in reviewer_doubts([replace(v, seconds=1.0) for v in votes])[0][0]


def test_a_repeat_is_compared_with_the_same_reviewers_real_vote_however_the_sides_stand() -> None:
    real = vote(1, "left")
    again = replace(real, assignment="again", kind="repeat", left_arm="new", right_arm="base", choice="right")
    same_sides = replace(real, assignment="same", kind="repeat", choice="left")
    others = replace(again, assignment="other", reviewer=9)
    assert [self_consistency(pairs) for pairs in repeats_of([real, again, same_sides, others]).values()] == [1.0]


def test_votes_of_the_doubted_stay_out_until_somebody_decides() -> None:
    records = [
        vote(n, "left" if n % 2 else "right", who, *(("new", "base") if n % 2 else ("base", "new"))) for n in range(40) for who in (1, 2)
    ]
    fast = [vote(n, "right" if n % 2 else "left", 3, *(("new", "base") if n % 2 else ("base", "new")), seconds=1.0) for n in range(40)]
    rule, arms = Rule(min_votes=10), ("base", "new")
    found = tally([*records, *fast], arms, "base", rule)
    assert (found.votes, found.aside, found.aside_votes, found.verdict.kind) == (80, (3,), 40, "ship")
    counted = tally([*records, *fast], arms, "base", rule, Beside(decisions={3: True}))
    assert (counted.votes, counted.aside) == (120, ())
    out = tally(records, arms, "base", rule, Beside(decisions={1: False}))
    assert (out.votes, out.aside, out.aside_votes) == (40, (1,), 40)
    elsewhere = tally([*records, *fast], arms, "base", rule, Beside(doubted_aside=False))
    assert (elsewhere.votes, elsewhere.aside) == (120, ())


# T26: twenty crowds of twelve honest reviewers and three bots, fifty votes each, 8 % repeats and 8 % plain pairs.


def alike(records: list[VoteRecord], honest: int) -> float:
    """How often two honest votes on one pair are the same."""
    said: dict[str, list[str]] = {}
    for r in records:
        if r.kind == "real" and r.reviewer < honest:
            said.setdefault(r.pair, []).append(r.side)
    pairs = [one == other for sides in said.values() for at, one in enumerate(sides) for other in sides[:at]]
    return mean(pairs)


@pytest.mark.parametrize(("noise", "level"), [(CLEAR, 0.91), (HARD, 0.67)])
def test_simulated_honest_reviewers_agree_as_those_of_pandalm_and_mt_bench_do(noise: Noise, level: float) -> None:
    crowds = [Crowd(seed, noise).records() for seed in range(10)]
    assert mean(alike(records, 12) for records in crowds) == pytest.approx(level, abs=0.02)
    if noise is CLEAR:
        alphas = [agreement([r for r in records if r.kind == "real" and r.reviewer < 12]) or 0.0 for records in crowds]
        assert mean(alphas) == pytest.approx(0.86, abs=0.03)


@pytest.mark.parametrize(("noise", "each"), [(CLEAR, 3), (HARD, 3), (CLEAR, 15), (HARD, 15)])
def test_three_bots_among_twelve_honest_reviewers_are_doubted_within_fifty_votes(noise: Noise, each: int) -> None:
    caught: Counter[str] = Counter()
    accused = 0
    for seed in range(20):
        crowd = Crowd(seed, noise, each=each)
        doubted = reviewer_doubts(crowd.records())
        caught.update(kind for who, kind in crowd.bots.items() if who in doubted)
        accused += sum(who < crowd.honest for who in doubted)
    assert caught == {ALWAYS_LEFT: 20, RANDOM: 20, FAST: 20}
    assert accused <= 0.02 * 12 * 20


def test_looking_after_every_vote_accuses_hardly_more_honest_reviewers() -> None:
    accused = 0
    for seed in range(5):
        crowd = Crowd(seed, HARD)
        records = crowd.records()
        people = crowd.honest + len(crowd.bots)
        ever = {who for upto in range(14, 51, 4) for who in reviewer_doubts(records[: upto * people]) if who < crowd.honest}
        accused += len(ever)
    assert accused <= 0.05 * 12 * 5


def test_where_people_agree_on_nothing_nobody_is_accused_of_it() -> None:
    """Two arms about equal: honest votes look like coins, and only plain pairs and repeats tell."""
    accused = 0
    for seed in range(20):
        crowd = Crowd(seed, Noise(taste=1.5, moment=0.3, tie=0.3))
        accused += sum(who < crowd.honest for who in reviewer_doubts(crowd.records()))
    assert accused <= 0.05 * 12 * 20
