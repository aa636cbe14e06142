"""What a reviewer says of a pair: the vote, the ideal answer, the skip, the guess. One short write transaction each, done once however
often it is sent. Must not know screens or models.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

from sqlmodel import Session

from ft.errors import BadInput, Conflict, Refused
from review.protocol.ballots import (
    GUESSES,
    MAX_CORRECTION,
    MAX_REASON,
    Ballot,
    Guessed,
    Receipt,
    ballot_problem,
    bare_reason,
    criteria_problem,
    key_problem,
    text_problem,
)
from review.protocol.blinding import VOIDED, new_id
from review.services.faults import writing
from storage.database import Database
from storage.errors import Duplicate
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import Assignment, Correction, Guess, Setting, Skip, Study, Vote

ASKED = 32  # of 256: how many votes are followed by the question which side is the tuned model
DRAWN_BY = "review.asking"  # the Setting whose value keeps reviewers from knowing beforehand
NOT_YOURS = "This pair was not given to you. Load the next pair."
ALREADY = "You have already voted on this pair, perhaps in another tab. Go on with the next pair."
SKIPPED = "You skipped this pair, so it is for others now. Go on with the next pair."


class Casting:
    def __init__(self, db: Database, now: Callable[[], float]) -> None:
        self._db = db
        self._now = now

    def vote(self, reviewer_id: int, ballot: Ballot) -> Receipt:
        refuse(ballot_problem(ballot))
        return self._once(lambda session: self._vote(session, reviewer_id, ballot))

    def correct(self, reviewer_id: int, assignment: str, text: str, key: str) -> Receipt:
        refuse(key_problem(key) or text_problem("The ideal answer", text, MAX_CORRECTION))
        if not text.strip():
            raise BadInput("The ideal answer is empty. Write it, or go on without one.")
        return self._once(lambda session: self._correct(session, reviewer_id, assignment, text, key))

    def skip(self, reviewer_id: int, assignment: str, reason: str, key: str) -> Receipt:
        refuse(key_problem(key) or text_problem("The reason", reason, MAX_REASON))
        if not reason.strip():
            raise BadInput("Say in a word or two why you skip this pair. It helps to mend the questions.")
        return self._once(lambda session: self._skip(session, reviewer_id, assignment, reason.strip(), key))

    def guess(self, reviewer_id: int, assignment: str, choice: Guessed) -> None:
        if choice not in GUESSES:
            raise BadInput("Say left, right or unsure.")
        self._once(lambda session: self._guess(session, reviewer_id, assignment, choice))

    def _once(self, act: Callable[[Session], Receipt]) -> Receipt:
        """Run `act` in one write transaction; where the same key got in between, run it again: it then finds that row."""
        try:
            with writing(self._db) as session:
                return act(session)
        except Duplicate:
            with writing(self._db) as session:
                return act(session)

    def _vote(self, session: Session, reviewer_id: int, ballot: Ballot) -> Receipt:
        check_reviewer(session, reviewer_id)
        same = cast.vote_with_key(session, ballot.key)
        if same:
            _check_same(same, reviewer_id, ballot)
        given = own(session, reviewer_id, ballot.assignment)
        study = session.get_one(Study, given.study_id)
        if same:
            return Receipt(same.id, given.id, same.revision, same.revision == 1 and asks(session, study, given))
        _check_takes_votes(session, study, ballot)
        latest = cast.latest_vote(session, given.id)
        _check_revision(study, latest.revision if latest else 0, ballot.revises)
        _keep_secret(session)
        now = self._now()
        seen = max(given.served_at, cast.last_act(session, reviewer_id)) if not latest else given.served_at
        vote = Vote(
            id=new_id(),
            assignment_id=given.id,
            reviewer_id=reviewer_id,
            revision=ballot.revises + 1,
            choice=ballot.choice,
            criteria=dict(ballot.criteria),
            reasons=list(ballot.reasons),
            comment=ballot.comment,
            request_key=ballot.key,
            seconds=max(0.0, now - seen),
            created_at=now,
        )
        session.add(vote)
        return Receipt(vote.id, given.id, vote.revision, not latest and asks(session, study, given))

    def _correct(self, session: Session, reviewer_id: int, assignment: str, text: str, key: str) -> Receipt:
        check_reviewer(session, reviewer_id)
        same = cast.correction_with_key(session, key)
        if same and (same.reviewer_id, same.assignment_id, same.text) != (reviewer_id, assignment, text):
            raise Conflict("This was already sent with another text. Load the page again, then save the ideal answer.")
        own(session, reviewer_id, assignment)
        voted(session, assignment)
        earlier = cast.corrections_of(session, assignment)
        if same:
            return Receipt(same.id, assignment, [correction.id for correction in earlier].index(same.id) + 1)
        at = max(self._now(), earlier[-1].created_at + 1e-3) if earlier else self._now()  # the newest counts, even if the clock went back
        correction = Correction(id=new_id(), assignment_id=assignment, reviewer_id=reviewer_id, text=text, request_key=key, created_at=at)
        session.add(correction)
        return Receipt(correction.id, assignment, len(earlier) + 1)

    def _skip(self, session: Session, reviewer_id: int, assignment: str, reason: str, key: str) -> Receipt:
        check_reviewer(session, reviewer_id)
        same = cast.skip_with_key(session, key)
        if same and (same.reviewer_id, same.assignment_id, same.reason) != (reviewer_id, assignment, reason):
            raise Conflict("This was already sent for another pair. Load the page again.")
        given = own(session, reviewer_id, assignment)
        if same:
            return Receipt(given.id, given.id, 0)
        if cast.skip(session, assignment):
            raise Conflict(SKIPPED)
        if cast.latest_vote(session, assignment):
            raise Conflict(ALREADY)
        _check_open(session.get_one(Study, given.study_id), "the pair was not skipped")
        session.add(Skip(assignment_id=given.id, reviewer_id=reviewer_id, reason=reason, request_key=key, created_at=self._now()))
        return Receipt(given.id, given.id, 0)

    def _guess(self, session: Session, reviewer_id: int, assignment: str, choice: Guessed) -> Receipt:
        check_reviewer(session, reviewer_id)
        given = own(session, reviewer_id, assignment)
        voted(session, assignment)
        study = session.get_one(Study, given.study_id)
        if not asks(session, study, given):
            raise Refused("This was not asked about this pair. Go on with the next pair.")
        known = cast.guess(session, assignment)
        if known and known.choice != choice:
            raise Conflict("You have answered this already. Go on with the next pair.")
        if not known and study.state == "closed":
            raise Refused("This study is closed and its arms are known, so a guess says nothing any more.")
        if not known:
            session.add(Guess(assignment_id=given.id, reviewer_id=reviewer_id, choice=choice, created_at=self._now()))
        return Receipt(given.id, given.id, 0)


def check_reviewer(session: Session, reviewer_id: int) -> None:
    user = rows.user(session, reviewer_id)
    if user is None or user.disabled_at is not None or user.role != "reviewer":
        raise Refused("Only a reviewer may judge pairs. Sign in as one.")


def own(session: Session, reviewer_id: int, assignment: str) -> Assignment:
    """The same refusal for another's pair and for none at all: it tells nothing."""
    given = cast.assignment(session, assignment) if isinstance(assignment, str) else None
    if given is None or given.reviewer_id != reviewer_id:
        raise Refused(NOT_YOURS)
    return given


def voted(session: Session, assignment: str) -> Vote:
    vote = cast.latest_vote(session, assignment)
    if vote is None:
        raise Refused("Vote on this pair first.")
    return vote


def asks(session: Session, study: Study, given: Assignment) -> bool:
    """Whether the vote on this pair is followed by "which one is the tuned model?": drawn once, by a secret of this installation."""
    secret = session.get(Setting, DRAWN_BY)
    if secret is None or not study.checks or given.kind != "real" or given.marked:
        return False
    drawn = hmac.new(str(secret.value).encode(), given.id.encode(), hashlib.sha256).digest()[0] < ASKED
    return drawn and cast.arm_kinds(session, (given.left_answer_id, given.right_answer_id)).count("adapter") == 1


def _keep_secret(session: Session) -> None:
    if session.get(Setting, DRAWN_BY) is None:
        session.add(Setting(key=DRAWN_BY, value=secrets.token_hex(32)))
        session.flush()


def refuse(problem: str) -> None:
    if problem:
        raise BadInput(problem)


def _check_same(vote: Vote, reviewer_id: int, ballot: Ballot) -> None:
    sent = (reviewer_id, ballot.assignment, ballot.choice, ballot.comment, list(ballot.reasons), dict(ballot.criteria))
    if sent != (vote.reviewer_id, vote.assignment_id, vote.choice, vote.comment, list(vote.reasons), dict(vote.criteria)):
        raise Conflict("Another vote was sent under this key, so this one was not stored. Load the page again and vote once more.")


def _check_open(study: Study, so: str) -> None:
    if study.state != "open":
        state = "closed" if study.state == "closed" else "paused"
        raise Refused(f"This study is {state}, so {so}. Go on with the next pair.")


def _check_takes_votes(session: Session, study: Study, ballot: Ballot) -> None:
    _check_open(study, "the vote was not stored")
    if not cast.pair_texts(session, ballot.assignment).live:
        raise Refused(VOIDED)
    if cast.skip(session, ballot.assignment):
        raise Refused(SKIPPED)
    if unknown := sorted({*ballot.criteria} - {*study.criteria}) + sorted({*map(bare_reason, ballot.reasons)} - {*study.reasons}):
        raise BadInput(f"This study does not ask for {', '.join(unknown)[:200]}. Load the page again and vote once more.")
    refuse(criteria_problem(dict(ballot.criteria), study.scale))


def _check_revision(study: Study, latest: int, revises: int) -> None:
    if latest and revises == 0:
        raise Conflict(ALREADY)
    if latest != revises:
        raise Conflict("This vote was changed meanwhile, perhaps in another tab. Load the page again before you change it.")
    if revises and study.reveal == "after_vote":
        raise Refused("The arms of this pair were shown after your vote, so it stands. Go on with the next pair.")
