"""What is said of a pair beyond the vote itself: criteria and reasons, undo, the guess which side is the tuned model."""

from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest, chi2_contingency
from sqlmodel import select

from ft.errors import BadInput, Conflict, Refused, UserError
from review.protocol.ballots import Ballot, BlindPair, Receipt
from review.services.comparisons import Comparisons
from storage.database import Database
from storage.tables import Answer, Assignment, Guess, Vote
from tests.judging import House, cast, count, opened, pair
from tests.topical import topical

REASONS = ["wrong fact", "too: vague"]


def ballot(found: BlindPair, choice: Any = "left", key: str = "k", **more: Any) -> Ballot:
    return Ballot(found.assignment, choice, key=key, **more)


def refused(act: Callable[[], object], error: type[UserError] = Refused) -> str:
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)


def until_asked(house: House, reviewer: int = 0) -> tuple[BlindPair, Receipt]:
    """Vote until the question follows."""
    for _ in range(300):
        found = pair(house, reviewer)
        receipt = house.comparisons.vote(house.reviewers[reviewer], ballot(found, key=f"k-{found.assignment}"))
        if receipt.asks:
            return found, receipt
    raise AssertionError("never asked")


# Criteria and reasons


def test_criteria_by_side_and_reasons_of_a_side_are_kept(db: Database) -> None:
    house = opened(db, criteria=["accuracy", "brand voice"], reasons=REASONS)
    found = pair(house)
    assert (found.criteria, found.scale, found.reasons) == (("accuracy", "brand voice"), "sides", tuple(REASONS))
    said = {"criteria": {"accuracy": "left", "brand voice": "same"}, "reasons": ("left: wrong fact", "right: too: vague", "too: vague")}
    house.comparisons.vote(house.reviewers[0], ballot(found, **said))
    with db.session() as session:
        vote = session.exec(select(Vote)).one()
    assert (vote.criteria, tuple(vote.reasons)) == (said["criteria"], said["reasons"])


def test_criteria_in_points_are_kept_and_a_quick_vote_needs_none(db: Database) -> None:
    house = opened(db, criteria=["accuracy"], scale="points")
    found = pair(house)
    assert found.scale == "points"
    house.comparisons.vote(house.reviewers[0], ballot(found, key="a"))
    house.comparisons.vote(house.reviewers[0], ballot(found, key="b", revises=1, criteria={"accuracy": {"left": 5, "right": 1}}))
    voted = house.comparisons.last(house.reviewers[0])
    assert voted is not None
    assert voted.criteria == {"accuracy": {"left": 5, "right": 1}}


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ("points", {"criteria": {"accuracy": "left"}}),
        ("sides", {"criteria": {"accuracy": {"left": 5, "right": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": 6, "right": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": 0, "right": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": True, "right": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": 1.5, "right": 1}}}),
        ("points", {"criteria": {"accuracy": {"left": 1, "right": 1, "base": 1}}}),
        ("points", {"criteria": {"style": {"left": 1, "right": 1}}}),
        ("sides", {"criteria": {"accuracy": "tie"}}),
        ("sides", {"reasons": ("middle: wrong fact",)}),
        ("sides", {"reasons": ("left: left: wrong fact",)}),
        ("sides", {"reasons": ("left: never declared",)}),
        ("sides", {"reasons": ("left: wrong fact", "left: wrong fact")}),
    ],
)
def test_what_the_study_does_not_ask_for_is_refused_in_a_sentence_with_no_row(db: Database, scale: str, said: dict[str, Any]) -> None:
    house = opened(db, criteria=["accuracy"], reasons=REASONS, scale=scale)
    words = refused(lambda: house.comparisons.vote(house.reviewers[0], ballot(pair(house), **said)), BadInput)
    assert words.endswith(".")
    assert count(db, Vote) == 0


# Undo


def test_the_last_vote_can_be_changed_until_the_study_closes(db: Database) -> None:
    house = opened(db, reasons=REASONS)
    me = house.reviewers[0]
    assert house.comparisons.last(me) is None
    cast(house, 0)
    found = cast(house, 0, "right", comment="so", reasons=("wrong fact",))
    voted = house.comparisons.last(me)
    assert voted is not None
    assert (voted.choice, voted.comment, voted.reasons, voted.revision) == ("right", "so", ("wrong fact",), 1)
    assert (voted.pair.assignment, voted.pair.left, voted.pair.right) == (found.assignment, found.left, found.right)
    house.comparisons.vote(me, ballot(found, "tie", key="again", revises=voted.revision))
    changed = house.comparisons.last(me)
    assert changed is not None
    assert (changed.choice, changed.revision) == ("tie", 2)
    assert house.comparisons.last(house.reviewers[1]) is None
    house.studies.close("winter")
    assert house.comparisons.last(me) is None
    refused(lambda: house.comparisons.vote(me, ballot(found, "left", key="late", revises=2)))
    assert count(db, Vote) == 3


def test_nothing_can_be_changed_where_arms_are_shown_after_each_vote_or_an_answer_was_taken_back(db: Database) -> None:
    shown = opened(db, reveal="after_vote")
    found = cast(shown, 0)
    assert shown.comparisons.last(shown.reviewers[0]) is None
    refused(lambda: shown.comparisons.vote(shown.reviewers[0], ballot(found, "tie", key="again", revises=1)))


def test_a_vote_on_an_answer_taken_back_is_not_offered_for_change(db: Database) -> None:
    house = opened(db)
    found = cast(house, 0)
    with db.write() as session:
        given = session.get(Assignment, found.assignment)
        session.get(Answer, given.left_answer_id).voided_at = 1.0
    assert house.comparisons.last(house.reviewers[0]) is None


# The question which side is the tuned model


def test_about_one_vote_in_eight_is_followed_by_the_question_and_the_receipt_stays_the_same(db: Database) -> None:
    house = topical(db, prompts=130, reviewers=1)
    asked, real = 0, 0
    for _ in range(120):
        found = pair(house)
        sent = ballot(found, key=f"k-{found.assignment}")
        receipt = house.comparisons.vote(house.reviewers[0], sent)
        with db.session() as session:
            kind = session.get(Assignment, found.assignment).kind
        assert not receipt.asks or kind == "real"
        real, asked = real + (kind == "real"), asked + receipt.asks
        if receipt.asks:
            assert Comparisons(db, now=house.clock).vote(house.reviewers[0], sent) == receipt
    assert binomtest(asked, real, 1 / 8).pvalue > 0.001


def test_without_a_tuned_model_among_the_two_or_without_checks_nothing_is_asked(db: Database) -> None:
    both = topical(db, prompts=60, arms=("tuned-v3", "tuned-v4"), reviewers=1)
    assert not any(
        both.comparisons.vote(both.reviewers[0], ballot(found, key=found.assignment)).asks for found in (pair(both) for _ in range(50))
    )


def test_a_guess_is_kept_once_and_only_where_it_was_asked(db: Database) -> None:
    house = topical(db, prompts=200, reviewers=2)
    me, other = house.reviewers
    unasked = pair(house)
    refused(lambda: house.comparisons.guess(me, unasked.assignment, "left"))
    found, _ = until_asked(house)
    assert "Say left" in refused(lambda: house.comparisons.guess(me, found.assignment, "base"), BadInput)  # type: ignore[arg-type]
    refused(lambda: house.comparisons.guess(other, found.assignment, "left"))
    for _ in range(2):
        house.comparisons.guess(me, found.assignment, "left")
    refused(lambda: house.comparisons.guess(me, found.assignment, "right"), Conflict)
    assert count(db, Guess) == 1


def test_a_guess_comes_before_the_arms_are_known(db: Database) -> None:
    house = topical(db, prompts=200, reviewers=1)
    found, _ = until_asked(house)
    house.studies.close("winter")
    assert "closed" in refused(lambda: house.comparisons.guess(house.reviewers[0], found.assignment, "left"))
    assert count(db, Guess) == 0


def test_where_arms_are_shown_after_each_vote_the_guess_comes_first(db: Database) -> None:
    house = topical(db, prompts=200, reviewers=1, reveal="after_vote")
    me = house.reviewers[0]
    found, _ = until_asked(house)
    assert "first" in refused(lambda: house.comparisons.reveal(me, found.assignment))
    house.comparisons.guess(me, found.assignment, "unsure")
    assert {"base", "tuned-v3"} == {
        house.comparisons.reveal(me, found.assignment).left,
        house.comparisons.reveal(me, found.assignment).right,
    }


# T16, for checks


def test_sides_of_repeats_and_plain_pairs_are_a_fair_coin_against_parity_reviewer_and_previous_side(db: Database) -> None:
    house = topical(db, prompts=60, reviewers=3, votes_per_pair=3)
    for reviewer in range(3):
        for _ in range(60):
            cast(house, reviewer)
    with db.session() as session:
        arm = {answer.id: answer.arm_id for answer in session.exec(select(Answer))}
        prompt = {answer.id: answer.prompt_id for answer in session.exec(select(Answer))}
        given = session.exec(select(Assignment).order_by(Assignment.served_at)).all()
    repeats = [(arm[a.left_answer_id] == 1, place % 2, a.reviewer_id) for place, a in enumerate(given) if a.kind == "repeat"]
    plain = [(prompt[a.left_answer_id] == a.prompt_id, place % 2, a.reviewer_id) for place, a in enumerate(given) if a.kind == "gold"]
    for rows in (repeats, plain):
        assert len(rows) >= 12
        assert binomtest(sum(row[0] for row in rows), len(rows)).pvalue > 0.001
        for feature in (1, 2):
            values = sorted({row[feature] for row in rows})
            table = [[1 + sum(row[0] == side and row[feature] == value for row in rows) for value in values] for side in (True, False)]
            assert chi2_contingency(table).pvalue > 0.001
