"""Studies of a crowd: many people with few votes each, many arms, as published arenas have them."""

import random
import time

from review.protocol.tally import WEIGHTY, tally
from review.protocol.verdict import Rule
from tests.test_protocol_verdict import vote

ARMS = [f"model {n}" for n in range(20)]


def test_a_crowd_of_hundreds_and_twenty_arms_is_counted_in_seconds() -> None:
    """Without each of 600 people in turn, every arm anew, it took three quarters of a minute."""
    rng = random.Random(1)
    records = []
    for n in range(3_000):
        one, other = rng.sample(range(20), 2)
        better = "left" if rng.random() < 1 / (1 + 2.7 ** (0.15 * (other - one))) else "right"
        records.append(vote(n, better, left_arm=ARMS[one], right_arm=ARMS[other], reviewer=rng.randrange(600)))
    begun = time.process_time()
    found = tally(records, ARMS, ARMS[0], Rule())
    assert time.process_time() - begun < 5
    assert found.verdict.kind == "ship"
    assert len(found.arms) == 20


def test_one_whose_votes_carry_the_verdict_is_named_among_many() -> None:
    """A heavy voter, and so many others with one vote each that not all of them are looked at."""
    records = [vote(n, "left", assignment=f"a{n}", reviewer=0) for n in range(40)]
    records += [vote(n, "left" if n % 2 else "right", assignment=f"b{n}", reviewer=n) for n in range(40, 40 + 2 * WEIGHTY)]
    found = tally(records, ["base", "new"], "base", Rule())
    assert found.verdict.kind == "ship"
    assert found.flips == (0,)
