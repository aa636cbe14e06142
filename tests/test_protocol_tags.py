"""The rule's look at each tag, why a verdict is what it is, and that looking every day does not make a difference out of none."""

from dataclasses import replace

import numpy as np
import pytest

from review.protocol.ranking import Duel
from review.protocol.records import VoteRecord
from review.protocol.tags import tag_results
from review.protocol.tally import tally
from review.protocol.verdict import Rule

ARMS = ("base", "new")


def votes(wins: int, losses: int, *tags: str, start: int = 0, ties: int = 0) -> list[VoteRecord]:
    """`new` against `base`, each on a prompt of its own, by three reviewers, sides alternating."""
    said = ["new"] * wins + ["base"] * losses + ["tie"] * ties
    found = []
    for at, winner in enumerate(said, start=start):
        left, right = ARMS if at % 2 else ARMS[::-1]
        choice = "tie" if winner == "tie" else "left" if winner == left else "right"
        found.append(VoteRecord(f"a{at}", 1, f"p{at}", at, at % 3, left, right, choice, tags=tags))
    return found


def test_an_arm_that_wins_overall_is_held_where_it_is_clearly_worse_on_one_tag() -> None:
    records = [*votes(90, 10, "login"), *votes(2, 22, "refunds", start=100)]
    found = tally(records, ARMS, "base", Rule())
    assert found.verdict.kind == "hold"
    assert "clearly worse on “refunds” (8 %)" in found.verdict.words
    assert [(t.tag, t.votes, t.worse, t.too_few) for t in found.tags] == [("login", 100, False, False), ("refunds", 24, True, False)]
    unmet = {c.setting for c in found.conditions if not c.met}
    assert unmet == {"no_worse_tag"}
    assert tally(records, ARMS, "base", Rule(no_worse_tag=False)).verdict.kind == "ship"


def test_a_tag_with_too_few_votes_to_tell_says_so_and_does_not_hold() -> None:
    found = tally([*votes(60, 10, "login"), *votes(0, 4, "refunds", start=100)], ARMS, "base", Rule())
    assert found.verdict.kind == "ship"
    assert [(t.tag, t.worse, t.too_few, t.words) for t in found.tags][1] == ("refunds", False, True, "too few votes to tell")


def test_a_prompt_with_several_tags_counts_in_each_and_one_without_in_none() -> None:
    found = tally([*votes(5, 5, "a", "b"), *votes(5, 5, start=20)], ARMS, "base", Rule())
    assert [(t.tag, t.votes) for t in found.tags] == [("a", 10), ("b", 10)]
    assert found.votes == 20


def test_the_more_tags_are_looked_at_the_more_evidence_each_needs() -> None:
    duels = [Duel(n, 0, "new", "base", "second") for n in range(12)]
    alone = tag_results([(d, ["refunds"]) for d in duels], "new", "base", 20)
    among = tag_results(
        [(d, ["refunds"]) for d in duels] + [(Duel(100 + n, 0, "new", "base", "tie"), [f"t{n}"]) for n in range(50)], "new", "base", 20
    )
    assert alone[0].worse
    assert not among[0].worse


def test_conditions_say_of_each_setting_what_was_asked_for_and_what_is() -> None:
    found = tally(votes(20, 12, "login", ties=2), ARMS, "base", Rule(min_votes=30, min_reviewers=4, min_win_rate=0.6))
    told = {c.setting: (c.met, c.words) for c in found.conditions}
    assert told["min_votes"] == (True, "34 votes; at least 30 asked for.")
    assert told["min_reviewers"] == (False, "3 reviewers; at least 4.")
    assert told["min_win_rate"][0]
    assert not told["e_value"][0]
    assert told["no_worse_tag"] == (True, "Clearly worse on no tag.")
    assert found.verdict.kind == "more"


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_setting_is_true_or_false(value: object) -> None:
    assert "no_worse_tag" in " ".join(replace(Rule(), no_worse_tag=value).problems())  # type: ignore[arg-type]


def test_looking_again_and_again_ships_or_holds_equal_arms_at_most_once_in_twenty() -> None:
    """Equal arms, twelve tags, 120 votes, six looks at the verdict: any Ship and any tag called worse is a false one."""
    rng, wrong, studies = np.random.default_rng(11), 0, 120
    tags = [f"tag {n}" for n in range(12)]
    for _ in range(studies):
        outcomes = rng.choice(["first", "second", "tie"], size=120, p=[0.42, 0.42, 0.16])
        records = [
            VoteRecord(f"a{n}", 1, f"p{n}", n, n % 5, *(ARMS if n % 2 else ARMS[::-1]), {"first": "left", "second": "right"}.get(o, "tie"),
                       tags=(tags[n % 12],))
            for n, o in enumerate(outcomes)
        ]  # fmt: skip
        for upto in range(20, 121, 20):
            found = tally(records[:upto], ARMS, "base", Rule(min_win_rate=0.5))
            if found.verdict.kind != "more":
                wrong += 1
                break
    assert wrong <= 0.05 * studies + 3


def test_a_flip_without_one_reviewer_sees_the_tags_too() -> None:
    """Only reviewer 0 found the tag worse; without these votes the study would ship."""
    bad = [replace(v, reviewer=0) for v in votes(0, 14, "refunds", start=300)]
    good = [replace(v, reviewer=1 + n // 2 % 2) for n, v in enumerate(votes(80, 10, "login"))]
    found = tally([*good, *bad], ARMS, "base", Rule())
    assert (found.verdict.kind, found.flips) == ("hold", (0,))
