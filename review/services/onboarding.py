"""The three training pairs before a reviewer's first study: which comes next, and what is said to an answer.

Practice votes are kept apart and never counted. Must not know screens or models.
"""

from dataclasses import dataclass

from review.protocol.ballots import Choice
from review.protocol.training_pairs import TrainingPair
from storage.database import Database


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
        return None

    def answer(self, reviewer_id: int, pair: int, choice: Choice) -> Explanation:
        """Keep the answer to training pair number `pair` and explain it."""
        return Explanation(True, "")
