"""The three training pairs before a reviewer's first study: which comes next, and what is said to an answer.

Practice votes are kept apart and never counted. Must not know screens or models.
"""

from contextlib import suppress
from dataclasses import dataclass

from ft.errors import BadInput
from review.protocol.ballots import CHOICES, Choice, TrainingPair
from review.protocol.training_pairs import TRAINING_PAIRS
from review.services.casting import check_reviewer
from review.services.faults import reading, writing
from storage.database import Database
from storage.errors import Duplicate
from storage.queries import practice
from storage.tables import PracticeVote


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether the answer was a good one, and why, in words."""

    right: bool
    words: str


class Onboarding:
    def __init__(self, db: Database) -> None:
        self._db = db

    def next(self, reviewer_id: int) -> TrainingPair | None:
        """The first training pair this reviewer has not answered; None when all are done."""
        with reading(self._db) as session:
            check_reviewer(session, reviewer_id)
            done = practice.answered(session, reviewer_id)
        return next((pair for pair in TRAINING_PAIRS if pair.number not in done), None)

    def answer(self, reviewer_id: int, pair: int, choice: Choice) -> Explanation:
        """Keep the first answer to training pair number `pair`, and explain the one given now.

        Raises BadInput for a pair or choice that does not exist, Refused for anyone but a reviewer.
        """
        asked = next((known for known in TRAINING_PAIRS if known.number == pair and not isinstance(pair, bool)), None)
        if asked is None:
            raise BadInput("There is no such training pair. Load the page again.")
        if choice not in CHOICES:
            raise BadInput(f"A vote is one of {', '.join(CHOICES)}. Choose one of them.")
        with suppress(Duplicate):  # another tab was quicker: its answer stays
            self._keep(reviewer_id, asked.number, choice)
        return Explanation(choice in asked.best, asked.explanation)

    def _keep(self, reviewer_id: int, pair: int, choice: Choice) -> None:
        with writing(self._db) as session:
            check_reviewer(session, reviewer_id)
            if pair not in practice.answered(session, reviewer_id):
                session.add(PracticeVote(user_id=reviewer_id, pair=pair, choice=choice))
