"""The blind comparison as a screen uses it: the next pair, the vote, the ideal answer, what was which.

`handing_out` finds the pair, `casting` writes what is said of it. Before the vote no arm's name leaves this file. Must not know screens
or models.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from ft.errors import Refused
from review.protocol.ballots import Ballot, BlindPair, Choice, Guessed, Receipt, Rest, Reveal, Voted
from review.protocol.blinding import shown_text
from review.services.casting import ALREADY, NOT_YOURS, Casting, asks, check_reviewer, own, voted
from review.services.faults import reading
from review.services.handing_out import HandingOut
from review.services.ledger import HELD, Ledgers
from review.services.vote_export import exported_votes
from storage.database import Database
from storage.queries import votes as stored
from storage.tables import Study

__all__ = ["ALREADY", "HELD", "NOT_YOURS", "Comparisons"]


class Comparisons:
    """`names`: further names to look for in answers, such as the base model's; `now`: the server's clock, UTC seconds.

    `ledgers`: what is known of the studies in use; a house shares one.
    """

    def __init__(
        self, db: Database, names: Sequence[str] = (), now: Callable[[], float] = time.time, ledgers: Ledgers | None = None
    ) -> None:
        self._db = db
        self._handing_out = HandingOut(db, ledgers or Ledgers(), names, now)
        self._casting = Casting(db, now)

    def next_pair(self, reviewer_id: int) -> BlindPair | Rest:
        """The pair given and not voted on yet, else a new one from the oldest open study. Raises Refused for anyone but a reviewer."""
        return self._handing_out.next_pair(reviewer_id)

    def ahead(self, reviewer_id: int, assignment: str) -> BlindPair | Rest:
        """The pair after this one, once this one is voted on or skipped: the page may hold it meanwhile.

        How long its reader took is counted from when they could first have seen it: after the last thing they said of the pair before.
        """
        with reading(self._db) as session:
            own(session, reviewer_id, assignment)
            if stored.skip(session, assignment) is None:
                voted(session, assignment)
        return self._handing_out.next_pair(reviewer_id)

    def vote(self, reviewer_id: int, ballot: Ballot) -> Receipt:
        """Record a vote, or give the receipt of the same one sent before. Nothing is stored when this raises.

        Raises BadInput; Refused for a pair that is not this reviewer's, is void or skipped, or whose study takes no votes; Conflict for a
        pair already voted on elsewhere, and for a key already used for another vote.
        """
        return self._casting.vote(reviewer_id, ballot)

    def correct(self, reviewer_id: int, assignment: str, text: str, key: str) -> Receipt:
        """Store the ideal answer for a pair this reviewer has voted on; the newest counts. The same key twice is one row."""
        return self._casting.correct(reviewer_id, assignment, text, key)

    def skip(self, reviewer_id: int, assignment: str, reason: str, key: str) -> Receipt:
        """Leave a pair to others, with the reason; it never comes back to this reviewer. The same key twice is one row."""
        return self._casting.skip(reviewer_id, assignment, reason, key)

    def guess(self, reviewer_id: int, assignment: str, choice: Guessed) -> None:
        """Keep the answer to "which one is the tuned model?", where the receipt of the vote asked. The first answer stays."""
        self._casting.guess(reviewer_id, assignment, choice)

    def last(self, reviewer_id: int) -> Voted | None:
        """This reviewer's newest vote, while it can still be changed: in an open study that has not shown its arms."""
        with reading(self._db) as session:
            check_reviewer(session, reviewer_id)
            vote = stored.last_vote(session, reviewer_id)
            if vote is None:
                return None
            study = session.get_one(Study, own(session, reviewer_id, vote.assignment_id).study_id)
        pair = self._handing_out.again(reviewer_id, study, vote.assignment_id)
        return Voted(pair, cast(Choice, vote.choice), vote.comment, tuple(vote.reasons), dict(vote.criteria), vote.revision)

    def starting_text(self, reviewer_id: int, assignment: str) -> str:
        """What to start the ideal answer from: the side voted better, the left one for a tie, nothing where both were bad."""
        with reading(self._db) as session:
            own(session, reviewer_id, assignment)
            vote = voted(session, assignment)
            texts = stored.pair_texts(session, assignment)
        return {"left": shown_text(texts.left), "tie": shown_text(texts.left), "right": shown_text(texts.right)}.get(vote.choice, "")

    def reveal(self, reviewer_id: int, assignment: str) -> Reveal:
        """Which arm stood where. Refused before the vote, and before the study is closed unless it reveals after each vote; where the
        question which one is the tuned model was asked, its answer comes first. Refused too while another study compares these answers
        blind: a name told here would be known there."""
        with reading(self._db) as session:
            given = own(session, reviewer_id, assignment)
            voted(session, assignment)
            study = session.get_one(Study, given.study_id)
            if study.state != "closed" and study.reveal != "after_vote":
                raise Refused("This study shows which was which after it is closed. Go on with the next pair.")
            if study.state != "closed" and asks(session, study, given) and not stored.guess(session, assignment):
                raise Refused("Say first which one you think is the tuned model; “unsure” is an answer too.")
            if stored.blind_elsewhere(session, given):
                raise Refused("These answers are also judged blind in another study, so their names wait until that one is closed.")
            left, right = (stored.arm_of_answer(session, answer) for answer in (given.left_answer_id, given.right_answer_id))
        return Reveal(assignment, left, right)

    def export_votes(self, study: str) -> list[dict[str, Any]]:
        """Every revision of every vote in the order cast, with arms, texts and whether it counts: enough to recompute the board."""
        with reading(self._db) as session:
            return exported_votes(session, study)
