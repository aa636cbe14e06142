"""The next pair: balance, no repeats but the one that is wanted, the checks in their places."""

import random
from collections import Counter
from itertools import combinations

import pytest
from scipy.stats import chisquare

from review.protocol.assignment import (
    APART,
    EARLY,
    EARLY_BLOCK,
    SETTLING_IN,
    Candidate,
    Mine,
    Pool,
    block_at,
    due,
    pair_key,
    planned_checks,
)
from review.protocol.uncertainty import gains

BOTH = ("repeat", "gold")


def deck(prompts: int = 6, arms: int = 2) -> list[Candidate]:
    return [
        Candidate(prompt, (prompt * 10 + a, prompt * 10 + b), (a, b)) for prompt in range(prompts) for a, b in combinations(range(arms), 2)
    ]


def simulate(prompts: int, arms: int, reviewers: int, votes_needed: int, turns: int, seed: int = 1) -> list[tuple[int, Candidate]]:
    """Reviewers in random order take and judge pairs."""
    rng = random.Random(seed)
    pool, mine = Pool(deck(prompts, arms), votes_needed), [Mine() for _ in range(reviewers)]
    log = []
    for _ in range(turns):
        reviewer = rng.randrange(reviewers)
        if chosen := pool.choose(mine[reviewer], rng):
            log.append((reviewer, chosen))
            mine[reviewer].add(chosen.key, chosen.prompt, chosen.meeting)
            pool.take(chosen.key)
    return log


def kinds(length: int, planned: int = 10_000, seed: int = 1, checks: tuple[str, ...] = BOTH) -> list[str]:
    rng, found = random.Random(seed), []
    for _ in range(length):
        found.append(due(found, checks, planned, rng))
    return found


def test_the_key_of_a_pair_does_not_depend_on_its_sides() -> None:
    assert pair_key(10, 9) == pair_key(9, 10) == "9-10"


def test_the_same_random_source_gives_the_same_pair() -> None:
    assert Pool(deck(), 1).choose(Mine(), random.Random(5)) == Pool(deck(), 1).choose(Mine(), random.Random(5))
    assert len({Pool(deck(), 1).choose(Mine(), random.Random(i)) for i in range(50)}) > 1


@pytest.mark.parametrize("seed", range(5))
def test_no_reviewer_gets_a_pair_twice_and_none_more_often_than_needed(seed: int) -> None:
    log = simulate(prompts=12, arms=3, reviewers=4, votes_needed=2, turns=500, seed=seed)
    assert max(Counter((reviewer, c.key) for reviewer, c in log).values()) == 1
    assert set(Counter(c.key for _, c in log).values()) == {2}
    assert len(log) == 12 * 3 * 2


def test_at_every_moment_prompts_and_arm_pairs_are_balanced_for_all_and_for_each() -> None:
    log = simulate(prompts=12, arms=3, reviewers=4, votes_needed=2, turns=500)
    meetings = list(combinations(range(3), 2))
    for upto in range(1, 60):
        by_arms = Counter(c.meeting for _, c in log[:upto])
        assert max(by_arms.values()) - min(by_arms[m] for m in meetings) <= 3, (upto, by_arms)
        for reviewer in range(4):
            mine = Counter(c.meeting for r, c in log[:upto] if r == reviewer)
            assert max(mine.values(), default=0) - min(mine[m] for m in meetings) <= 5
    first = Counter(c.key for _, c in log[:36])
    assert max(first.values()) <= 2
    assert len(first) >= 33
    prompts = Counter(c.prompt for reviewer, c in log[:40] if reviewer == 0)
    assert max(prompts.values()) <= 2


def test_every_pair_is_judged_once_before_any_is_judged_twice() -> None:
    log = simulate(prompts=40, arms=2, reviewers=5, votes_needed=3, turns=40)
    assert max(Counter(c.key for _, c in log).values()) == 1


def test_pairs_that_have_all_votes_are_not_given_and_nothing_is_left_at_the_end() -> None:
    pool = Pool(deck(), 1)
    for candidate in deck():
        pool.take(candidate.key)
    assert (pool.choose(Mine(), random.Random(1)), pool.waiting) == (None, 0)
    pool.take("0-1", -1)
    assert (pool.choose(Mine(), random.Random(1)), pool.waiting) == (deck()[0], 1)
    assert pool.left_for({"0-1"}) == 0
    assert Pool((), 1).choose(Mine(), random.Random(1)) is None


def test_a_reviewer_who_saw_all_but_one_of_many_gets_that_one() -> None:
    mine, pool = Mine(), Pool(deck(3000), 2)
    for candidate in deck(3000)[:-1]:
        mine.add(candidate.key, candidate.prompt, candidate.meeting)
    assert pool.choose(mine, random.Random(1)) == deck(3000)[-1]
    assert pool.left_for(mine.seen) == 1


# More than two arms: the uncertain first


def test_arms_that_never_met_and_arms_that_are_close_tell_most() -> None:
    points = {(1, 2): (30.0, 30.0), (1, 3): (58.0, 2.0), (2, 3): (57.0, 3.0)}
    told = gains((1, 2, 3, 4), points)
    assert all(told[1, 2] > told[arms] for arms in ((1, 3), (2, 3)))
    assert min(told[arms] for arms in told if 4 in arms) > max(told[arms] for arms in told if 4 not in arms)
    busy = gains((1, 2, 3, 4), points, {(1, 4): 50, (2, 4): 50, (3, 4): 50})
    assert busy[3, 4] < told[3, 4] / 3, "votes on their way count as told"


def test_uncertain_arms_first_sharpens_the_order_of_close_arms_faster_than_all_alike() -> None:
    truth = {0: -1.5, 1: -0.1, 2: 0.1, 3: 1.5}

    def spread(informed: bool, seed: int) -> float:
        """Variance of the difference of the two close arms after 300 votes."""
        rng, points = random.Random(seed), {arms: [0.0, 0.0] for arms in combinations(truth, 2)}
        for turn in range(300):
            told = gains(tuple(truth), {k: (a, b) for k, (a, b) in points.items()})
            arms = max(told, key=lambda a: told[a]) if informed else list(points)[turn % len(points)]
            wins = rng.random() < 1 / (1 + 2.718281828 ** (truth[arms[1]] - truth[arms[0]]))
            points[arms][not wins] += 1
        return gains(tuple(truth), {k: (a, b) for k, (a, b) in points.items()})[1, 2]

    assert sum(spread(True, s) for s in range(3)) < 0.9 * sum(spread(False, s) for s in range(3))


def test_what_a_vote_tells_decides_which_arms_meet() -> None:
    pool = Pool(deck(20, 3), 1)
    told = {(0, 1): 0.1, (0, 2): 0.3, (1, 2): 0.2}
    assert {pool.choose(Mine(), random.Random(i), told).meeting for i in range(20)} == {(0, 2)}


# Checks


@pytest.mark.parametrize("seed", range(20))
def test_each_block_holds_one_repeat_and_one_plain_pair_and_both_are_at_least_five_in_a_hundred(seed: int) -> None:
    found = kinds(410, seed=seed)
    position = 0
    while position + block_at(position)[1] <= len(found):
        start, length = block_at(position)
        assert Counter(found[start : start + length]) == {"real": length - 2, "repeat": 1, "gold": 1}, start
        position = start + length
    assert "gold" not in found[:SETTLING_IN]
    for length in (50, 100, 410):
        assert all(0.05 <= found[:length].count(kind) / length <= 0.1 for kind in BOTH)


def test_checks_stand_anywhere_in_their_block() -> None:
    places = Counter(
        place - EARLY for seed in range(600) for place, kind in enumerate(kinds(EARLY + 18, seed=seed)) if place >= EARLY and kind == "gold"
    )
    assert set(places) == set(range(18))
    assert chisquare([places[i] for i in range(1, 16)]).pvalue > 0.001


def test_no_more_checks_come_than_were_planned_and_none_where_none_are_wanted() -> None:
    assert Counter(kinds(200, planned=3))["real"] == 197
    assert set(kinds(200, checks=())) == {"real"}
    assert Counter(kinds(EARLY, checks=("repeat",))) == {"real": EARLY - EARLY // EARLY_BLOCK, "repeat": EARLY // EARLY_BLOCK}


@pytest.mark.parametrize("real", [0, 7, 8, 9, 40, 41, 55, 56, 57, 500])
def test_the_plan_is_what_comes_after_that_many_pairs(real: int) -> None:
    planned = planned_checks(real, 2)
    found = kinds(real + planned, planned=planned)
    assert found.count("real") == real
    assert planned_checks(real, 0) == 0


def test_a_repeat_is_eight_pairs_away_at_least() -> None:
    assert APART >= 8
