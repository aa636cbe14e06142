"""How far reviewers differ, and what the verdict makes of it: no "Ship" that another reviewer would undo, and no words that promise more
than the range beside them."""

import math
import random
from collections import Counter

import pytest

from review.protocol.ranking import Duel, first_decisive, win_rate
from review.protocol.spread import Spread, spread
from review.protocol.tally import tally
from review.protocol.verdict import Condition, Rule, Verdict, conditions, decide
from tests.test_protocol_verdict import vote

RULE = Rule()


def crowd(*shares: float, prompts: int = 60, seed: int = 1) -> list[Duel]:
    """Each of so many reviewers judges all prompts and prefers the new arm in the given share of them."""
    rng = random.Random(seed)
    found = [
        Duel(prompt, reviewer, "new", "base", "first" if rng.random() < share else "second")
        for prompt in range(prompts)
        for reviewer, share in enumerate(shares)
    ]
    rng.shuffle(found)
    return found


def told(duels: list[Duel]) -> tuple[Verdict, Condition]:
    rate, counts, apart = win_rate(duels, "new"), first_decisive(duels, "new"), spread(duels, "new")
    return decide(RULE, rate, *counts, None, apart), conditions(RULE, rate, *counts, None, apart)[-1]


def test_two_reviewers_who_disagree_heavily_do_not_ship_and_it_is_said_why() -> None:
    found, why = told(crowd(0.95, 0.45))
    assert found.kind == "more"
    assert "reviewers are divided: 43 % to 95 %" in found.words
    assert "more reviewers" in found.words
    assert found.votes_needed > 0
    assert (why.setting, why.met) == ("reviewers", False)


def test_where_no_few_more_reviewers_would_settle_it_agreement_is_asked_for() -> None:
    found, _ = told(crowd(0.97, 0.03, 0.97))
    assert found.kind == "more"
    assert "more than 20 more reviewers" in found.words
    assert "Agree first" in found.words


def test_reviewers_who_all_prefer_it_ship_but_the_words_say_how_open_it_is_for_others() -> None:
    duels = crowd(0.97, 0.65)
    found, why = told(duels)
    assert win_rate(duels, "new").low < 0.5
    assert found.kind == "ship"
    assert "these 2 reviewers" in found.words
    assert "how others would judge is open" in found.words
    assert "They differ among themselves (70 % to 97 %)" in found.words
    assert (why.met, "all lean the same way" in why.words) == (True, True)


def test_reviewers_who_judge_alike_ship_without_a_doubt_in_the_words() -> None:
    found, why = told(crowd(0.75, 0.72, 0.78))
    assert found.words.endswith("very unlikely to be chance.")
    assert "no more apart than by chance" in why.words


def test_the_words_name_a_single_reviewer() -> None:
    assert "of one reviewer's votes" in told(crowd(0.85))[0].words


def test_a_held_arm_that_some_prefer_is_said_to_divide_reviewers() -> None:
    found, _ = told(crowd(0.02, 0.65, 0.02))
    assert found.kind == "hold"
    assert "reviewers are divided" in found.words


def test_one_dissenter_among_many_does_not_stop_what_most_are_sure_of() -> None:
    found, why = told(crowd(0.9, 0.85, 0.9, 0.8, 0.85, 0.9, 0.4, 0.85, 0.9))
    assert found.kind == "ship"
    assert why.met


def test_reviewers_with_a_handful_of_votes_divide_nobody() -> None:
    duels = [*crowd(0.8), *(Duel(prompt, 9, "new", "base", "second") for prompt in range(4))]
    assert spread(duels, "new") == Spread(1)
    assert told(duels)[1].setting != "reviewers"


def test_ties_and_the_side_of_the_arm_are_taken_into_the_shares() -> None:
    duels = [Duel(n, 0, "base", "new", "second" if n % 2 else "tie") for n in range(12)]
    duels += [Duel(n, 1, "new", "base", "first" if n % 3 else "both_bad") for n in range(12)]
    assert spread(duels, "new") == Spread(2, 0.75, 1.0, False, spread(duels, "new").more)


def test_the_tally_tells_it_for_the_arm_it_speaks_of() -> None:
    records = [vote(n, "left" if n % 40 else "right", assignment=f"a{n}", reviewer=1) for n in range(60)]
    records += [vote(n, "left" if n % 3 == 0 else "right", assignment=f"b{n}", reviewer=2) for n in range(60)]
    found = tally(records, ["base", "new"], "base", RULE)
    assert found.verdict.kind == "more"
    assert [one.setting for one in found.conditions if not one.met] == ["reviewers"]


@pytest.mark.parametrize(("people", "most"), [(3, 0.09), (5, 0.04), (8, 0.03)])
def test_people_of_very_different_taste_seldom_ship_an_arm_that_people_in_general_do_not_prefer(people: int, most: float) -> None:
    """Equal arms in the eyes of people in general, tastes one log-odds apart, every pair judged twice. In 500 such studies the evidence
    alone shipped 9 % (three people), 6 % (five) and 3 % (eight); with the look at how people differ 7 %, 2 % and 2 %."""
    rng = random.Random(7)
    said: Counter[str] = Counter()
    for _ in range(300):
        tastes = [rng.gauss(0, 1) for _ in range(people)]
        duels = [
            Duel(prompt, one, "new", "base", "first" if rng.random() < 1 / (1 + math.exp(-tastes[one])) else "second")
            for prompt in range(80)
            for one in rng.sample(range(people), 2)
        ]
        said[told(duels)[0].kind] += 1
    assert said["ship"] / 300 <= most
