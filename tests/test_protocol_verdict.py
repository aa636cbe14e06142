"""The decision rule, and the tally that feeds it."""

import json
import random
from dataclasses import asdict, replace
from typing import Any

import pytest

from review.protocol.ranking import Duel, first_decisive, win_rate
from review.protocol.tally import VoteRecord, agreement, counted, current, tally
from review.protocol.verdict import Rule, Verdict, decide

RULE = Rule(min_win_rate=0.55, max_both_bad=0.3, min_votes=20, min_reviewers=2)


def verdict(wins: int, losses: int = 0, ties: int = 0, bad: int = 0, rule: Rule = RULE, reviewers: int = 2) -> Verdict:
    outcomes = ["first"] * wins + ["second"] * losses + ["tie"] * ties + ["both_bad"] * bad
    random.Random(1).shuffle(outcomes)
    duels = [Duel(i, i % reviewers, "new", "base", outcome) for i, outcome in enumerate(outcomes)]  # type: ignore[arg-type]
    return decide(rule, win_rate(duels, "new"), *first_decisive(duels, "new"))


def test_a_clear_winner_ships() -> None:
    found = verdict(45, 10, 5)
    assert found.kind == "ship"
    assert "79 %" in found.words
    assert found.votes_needed == 0


def test_a_clear_loser_is_held() -> None:
    assert verdict(10, 45).kind == "hold"


def test_a_winner_whose_answers_are_often_both_bad_is_held() -> None:
    found = verdict(45, 5, bad=80)
    assert found.kind == "hold"
    assert "both answers were bad" in found.words


def test_a_clear_loser_is_held_even_while_both_bad_is_unclear() -> None:
    assert verdict(2, 45, bad=22).kind == "hold"


def test_better_but_not_by_what_was_asked_is_held_once_that_is_clear() -> None:
    assert verdict(1200, 900, rule=replace(RULE, min_win_rate=0.7)).kind == "hold"
    assert verdict(42, 20, rule=replace(RULE, min_win_rate=0.7)).kind == "more"


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (19, 0)])
def test_below_the_fewest_votes_nothing_is_decided(wins: int, losses: int) -> None:
    found = verdict(wins, losses)
    assert (found.kind, found.votes_needed) == ("more", 20 - wins - losses)
    assert str(20 - wins - losses) in found.words


def test_too_few_reviewers_are_asked_for_by_number() -> None:
    found = verdict(45, 5, reviewers=1)
    assert found.kind == "more"
    assert "1 more reviewer" in found.words


def test_the_number_of_votes_still_needed_is_about_right() -> None:
    found = verdict(24, 14)
    assert found.kind == "more"
    scale = (38 + found.votes_needed) / 38
    assert verdict(round(24 * scale * 1.1), round(14 * scale)).kind == "ship"
    assert found.votes_needed > verdict(28, 12).votes_needed > 0


def test_equal_arms_are_said_to_be_about_equal() -> None:
    found = verdict(50, 50)
    assert found.kind == "more"
    assert "about equal" in found.words


def test_words_are_plain() -> None:
    for found in (
        verdict(45, 10),
        verdict(10, 45),
        verdict(5),
        verdict(24, 14),
        verdict(50, 50),
        verdict(45, 5, bad=80),
        verdict(20, 9, bad=14),
    ):
        assert not [w for w in ("e-value", "interval", "martingale", "null", "p-value", "nan") if w in found.words.lower()], found.words
        assert found.words.endswith(".")


def test_a_rule_lists_every_problem_and_refuses_unknown_names() -> None:
    assert len(Rule(0.2, 2, 0, 0, 0).problems()) == 5
    assert len(Rule("much", None, 1.5, True, float("nan")).problems()) == 5  # type: ignore[arg-type]
    assert Rule().problems() == []
    assert Rule.from_dict(json.loads(json.dumps(Rule().to_dict()))) == Rule()
    with pytest.raises(ValueError, match="min_rate"):
        Rule.from_dict({"min_rate": 0.5})


def vote(n: int, choice: str = "left", **more: Any) -> VoteRecord:
    given = VoteRecord(f"a{n}", 1, f"p{n}", n, n % 3, "new", "base", choice)
    return replace(given, **more)


def test_only_the_newest_revision_of_real_unmarked_live_pairs_counts() -> None:
    records = [vote(1), vote(1, "right", revision=2), vote(2, marked=True), vote(3, voided=True), vote(4, kind="repeat"), vote(5)]
    assert [(r.assignment, r.choice) for r in counted(records)] == [("a1", "right"), ("a5", "left")]
    assert len(current(records)) == 5
    found = tally(records, ["base", "new"], "base", RULE)
    assert (found.votes, found.marked, found.voided) == (2, 1, 1)


def test_sides_do_not_matter_to_the_tally() -> None:
    records = [vote(n, "left" if n % 4 else "right") for n in range(40)]
    swap = {"left": "right", "right": "left"}
    turned = [replace(r, left_arm=r.right_arm, right_arm=r.left_arm, choice=swap[r.choice]) if r.prompt % 2 else r for r in records]
    as_given, as_turned = (tally(votes, ["base", "new"], "base", RULE) for votes in (records, turned))
    assert replace(as_given, side=as_turned.side) == as_turned


def test_with_three_arms_the_verdict_is_on_the_best_challenger_against_the_arm_to_beat() -> None:
    records = []
    for n in range(60):
        records += [
            vote(n, "left" if n % 5 else "right", assignment=f"x{n}"),
            vote(n, "left" if n % 2 else "right", assignment=f"y{n}", left_arm="other"),
            vote(n, "right", assignment=f"z{n}", left_arm="other", right_arm="new"),
        ]
    found = tally(records, ["base", "new", "other"], "base", RULE)
    assert (found.best, found.verdict.kind) == ("new", "ship")
    base, new, other = found.arms
    assert base.verdict is None
    assert new.versus is not None
    assert new.versus.votes == 60
    assert new.votes == 120
    assert new.strength is not None
    assert other.strength is not None
    assert new.strength.value > other.strength.value
    assert other.verdict is not None
    assert other.verdict.kind == "more"


def test_a_verdict_that_hangs_on_one_reviewer_says_on_whom() -> None:
    records = [vote(n, "left" if n % 3 == 0 or n % 2 else "right") for n in range(90)]
    found = tally(records, ["base", "new"], "base", RULE)
    assert found.verdict.kind == "ship"
    assert found.flips == (0,)
    assert tally([vote(n) for n in range(90)], ["base", "new"], "base", RULE).flips == ()


def test_agreement_is_about_arms_not_sides() -> None:
    left = [vote(n, "left" if n % 2 else "right", reviewer=0) for n in range(10)]
    right = [
        replace(
            r, assignment=r.assignment + "'", reviewer=1, left_arm="base", right_arm="new", choice="right" if r.choice == "left" else "left"
        )
        for r in left
    ]
    assert agreement([*left, *right]) == 1
    assert agreement(left) is None


def test_the_tally_of_nothing_asks_for_votes_and_can_be_written_as_json() -> None:
    found = tally([], ["base", "new"], "base", RULE)
    assert found.verdict.kind == "more"
    assert "NaN" not in json.dumps(asdict(found))
