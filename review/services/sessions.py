"""A reviewer's ten minutes: what they settled and how far they agree with others, without a word on who was who.

Must not know screens or models.
"""

from review.protocol.ballots import Reward
from storage.database import Database


class Sessions:
    def __init__(self, db: Database) -> None:
        self._db = db

    def reward(self, reviewer_id: int, since: float) -> Reward:
        """What the votes cast since `since` (UTC seconds) did."""
        return Reward((), 0, 0, None)
