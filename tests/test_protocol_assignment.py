"""The next pair: balance, no repeats, resumption."""

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

from review.protocol.assignment import Candidate, Given, choose, pair_key, waiting


def pool(prompts: int = 6, arms: int = 2) -> list[Candidate]:
    return [
        Candidate(prompt, (prompt * 10 + a, prompt * 10 + b), (a, b)) for prompt in range(prompts) for a, b in combinations(range(arms), 2)
    ]


def simulate(prompts: int, arms: int, reviewers: int, votes_needed: int, turns: int, seed: int = 1) -> list[tuple[int, Candidate]]:
    """Reviewers in random order take and judge pairs."""
    rng = random.Random(seed)
    candidates = pool(prompts, arms)
    history: dict[int, list[Given]] = {reviewer: [] for reviewer in range(reviewers)}
    log = []
    for _ in range(turns):
        reviewer = rng.randrange(reviewers)
        chosen = choose(candidates, history[reviewer], votes_needed, rng)
        if chosen is None:
            continue
        assert isinstance(chosen, Candidate)
        log.append((reviewer, chosen))
        history[reviewer].append(Given(f"{len(log)}", chosen.key, chosen.prompt, open=False))
        candidates = [replace(c, taken=c.taken + (c.key == chosen.key)) for c in candidates]
    return log


def test_the_key_of_a_pair_does_not_depend_on_its_sides() -> None:
    assert pair_key(10, 9) == pair_key(9, 10) == "9-10"


def test_an_open_assignment_is_resumed_before_anything_new() -> None:
    waits = Given("a1", "0-1", 0, open=True)
    assert all(choose(pool(), [Given("a0", "10-11", 1, open=False), waits], 1, random.Random(i)) == waits for i in range(20))


def test_the_same_random_source_gives_the_same_pair() -> None:
    assert choose(pool(), [], 1, random.Random(5)) == choose(pool(), [], 1, random.Random(5))
    assert len({choose(pool(), [], 1, random.Random(i)) for i in range(50)}) > 1


def test_no_reviewer_gets_a_pair_twice_and_none_more_often_than_needed() -> None:
    log = simulate(prompts=12, arms=3, reviewers=4, votes_needed=2, turns=500)
    assert max(Counter((reviewer, c.key) for reviewer, c in log).values()) == 1
    assert set(Counter(c.key for _, c in log).values()) == {2}
    assert len(log) == 12 * 3 * 2


def test_at_every_moment_prompts_and_arm_pairs_are_balanced() -> None:
    log = simulate(prompts=12, arms=3, reviewers=4, votes_needed=2, turns=500)
    for upto in range(6, len(log)):
        by_arms = Counter({(0, 1): 0, (0, 2): 0, (1, 2): 0}) + Counter(c.arms for _, c in log[:upto])
        assert max(by_arms.values()) - min(by_arms.values()) <= 3, (upto, by_arms)
    first = Counter(c.key for _, c in log[:36])
    assert max(first.values()) <= 2
    assert len(first) >= 34


def test_pairs_that_have_all_votes_are_not_given_and_nothing_is_left_at_the_end() -> None:
    candidates = [replace(c, taken=1) for c in pool()]
    assert choose(candidates, [], 1, random.Random(1)) is None
    assert choose([], [], 1, random.Random(1)) is None
    assert len(waiting(candidates, [], 2)) == 6
