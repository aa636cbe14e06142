"""The three training pairs before a reviewer's first study."""

from typing import Any

import pytest

from ft.errors import BadInput, Refused
from review.protocol.ballots import CHOICES
from review.protocol.blinding import identity_words
from review.protocol.training_pairs import TRAINING_PAIRS
from review.services.onboarding import Onboarding
from storage.database import Database
from storage.tables import PracticeVote, Vote
from tests.judging import count, furnish

WORDS_A_MINUTE = 238  # silent reading of English non-fiction: Brysbaert, 2019


def test_three_pairs_come_in_order_each_explained_and_are_never_counted(db: Database) -> None:
    house = furnish(db)
    desk, me = Onboarding(db), house.reviewers[0]
    for expected in TRAINING_PAIRS:
        assert desk.next(me) == expected
        told = desk.answer(me, expected.number, expected.best[0])
        assert (told.right, told.words) == (True, expected.explanation)
    assert desk.next(me) is None
    assert desk.next(house.reviewers[1]) == TRAINING_PAIRS[0]
    assert (count(db, PracticeVote), count(db, Vote)) == (3, 0)


def test_a_poor_answer_is_explained_too_and_the_first_one_stays(db: Database) -> None:
    house = furnish(db)
    desk, me, first = Onboarding(db), house.reviewers[0], TRAINING_PAIRS[0]
    poor = next(choice for choice in CHOICES if choice not in first.best)
    assert not desk.answer(me, first.number, poor).right
    assert desk.answer(me, first.number, first.best[0]).right
    with db.session() as session:
        assert [vote.choice for vote in session.query(PracticeVote)] == [poor]


@pytest.mark.parametrize(
    ("pair", "choice"), [(0, "left"), (4, "left"), (True, "left"), ("1", "left"), (None, "left"), (1, "base"), (1, None)]
)
def test_what_is_no_pair_or_no_vote_is_refused(db: Database, pair: Any, choice: Any) -> None:
    house = furnish(db)
    with pytest.raises(BadInput):
        Onboarding(db).answer(house.reviewers[0], pair, choice)
    assert count(db, PracticeVote) == 0


def test_only_a_reviewer_is_trained(db: Database) -> None:
    house = furnish(db)
    with pytest.raises(Refused):
        Onboarding(db).next(house.engineer)
    with pytest.raises(Refused):
        Onboarding(db).answer(house.engineer, 1, "left")


def test_the_three_pairs_teach_three_different_votes_and_name_no_model() -> None:
    assert [pair.number for pair in TRAINING_PAIRS] == [1, 2, 3]
    assert len({pair.best for pair in TRAINING_PAIRS}) == 3
    for pair in TRAINING_PAIRS:
        assert not identity_words(" ".join((pair.prompt, pair.left, pair.right, pair.explanation)))


def test_the_three_pairs_are_read_in_less_than_three_quarters_of_a_minute() -> None:
    words = sum(len(" ".join((pair.prompt, pair.left, pair.right, pair.explanation)).split()) for pair in TRAINING_PAIRS)
    assert words / WORDS_A_MINUTE < 0.75
