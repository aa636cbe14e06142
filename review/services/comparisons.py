"""The blind comparison: the next pair, the vote, the ideal answer.

A vote is one short write transaction, done once however often it is sent. Before the vote no arm's name leaves this file.
Must not know screens or models.
"""

import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput, Busy, Conflict, NotFound, Refused
from review.protocol.assignment import Candidate, Given, choose, waiting
from review.protocol.ballots import (
    MAX_CORRECTION,
    Ballot,
    BlindPair,
    Guessed,
    Receipt,
    Rest,
    Reveal,
    Voted,
    ballot_problem,
    key_problem,
    text_problem,
)
from review.protocol.blinding import EMPTY, VOIDED, draw_sides, identity_words, new_id, prompt_text, shown_text, telling
from review.services.faults import reading, writing
from review.services.studies import identical_row, live_pairs, record
from storage.database import Database
from storage.errors import Duplicate
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import Assignment, Correction, Study, Vote

USUAL_SECONDS = 30.0  # a reviewer's pace before the first votes tell
REMEMBERED = 20  # votes that the pace is measured on
HELD = 30 * 60.0  # seconds for which a pair somebody is looking at is not given to others
NOT_YOURS = "This pair was not given to you. Load the next pair."
ALREADY = "You have already voted on this pair, perhaps in another tab. Go on with the next pair."


@dataclass(frozen=True, slots=True)
class _Desk:
    """One study as one reviewer finds it."""

    study: Study
    candidates: list[Candidate]
    history: list[Given]
    done: int

    @property
    def remaining(self) -> int:
        return len(waiting(self.candidates, self.history, self.study.votes_per_pair)) + any(g.open for g in self.history)


class Comparisons:
    """`names`: further names to look for in answers, such as the base model's; `now`: the server's clock, UTC seconds."""

    def __init__(self, db: Database, names: Sequence[str] = (), now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._names = tuple(names)
        self._now = now
        self._rng = random.Random(secrets.randbits(128))
        self._decks: dict[int, tuple[tuple[int, int, int], list[Candidate]]] = {}
        self._telling: dict[int, tuple[str, ...]] = {}

    def next_pair(self, reviewer_id: int) -> BlindPair | Rest:
        """The pair given and not voted on yet, else a new one from the oldest open study. Raises Refused for anyone but a reviewer."""
        for _ in range(1000):
            with reading(self._db) as session:
                found = self._look(session, reviewer_id)
            if not isinstance(found, tuple):
                return found
            desk, candidate = found
            if given := self._give(reviewer_id, desk.study, candidate):
                with reading(self._db) as session:
                    return self._show(session, reviewer_id, desk, given)
        raise Busy("Other reviewers were quicker each time. Try again in a moment.")

    def vote(self, reviewer_id: int, ballot: Ballot) -> Receipt:
        """Record a vote, or give the receipt of the same one sent before. Nothing is stored when this raises.

        Raises BadInput; Refused for a pair that is not this reviewer's, is void, or whose study takes no votes; Conflict for a
        pair already voted on elsewhere, and for a key already used for another vote.
        """
        _refuse(ballot_problem(ballot))
        return self._once(lambda session: self._record_vote(session, reviewer_id, ballot))

    def ahead(self, reviewer_id: int, assignment: str) -> BlindPair | Rest:
        """The pair after this one, once this one is voted on: the page may hold it meanwhile."""
        return self.next_pair(reviewer_id)

    def skip(self, reviewer_id: int, assignment: str, reason: str, key: str) -> Receipt:
        """Leave a pair to others, with the reason; it never comes back to this reviewer."""
        raise Refused("Skipping is not ready yet. Vote on the pair.")

    def guess(self, reviewer_id: int, assignment: str, choice: Guessed) -> None:
        """Keep the answer to "which one is the tuned model?", where the receipt of the vote asked."""

    def last(self, reviewer_id: int) -> Voted | None:
        """The newest vote, while it can still be changed."""
        return None

    def correct(self, reviewer_id: int, assignment: str, text: str, key: str) -> Receipt:
        """Store the ideal answer for a pair this reviewer has voted on; the newest counts. The same key twice is one row."""
        _refuse(key_problem(key) or text_problem("The ideal answer", text, MAX_CORRECTION))
        if not text.strip():
            raise BadInput("The ideal answer is empty. Write it, or go on without one.")
        return self._once(lambda session: self._record_correction(session, reviewer_id, assignment, text, key))

    def starting_text(self, reviewer_id: int, assignment: str) -> str:
        """What to start the ideal answer from: the side voted better, the left one for a tie, nothing where both were bad."""
        with reading(self._db) as session:
            _own(session, reviewer_id, assignment)
            vote = _voted(session, assignment)
            texts = cast.pair_texts(session, assignment)
        return {"left": shown_text(texts.left), "tie": shown_text(texts.left), "right": shown_text(texts.right)}.get(vote.choice, "")

    def reveal(self, reviewer_id: int, assignment: str) -> Reveal:
        """Which arm stood where. Refused before the vote, and before the study is closed unless it reveals after each vote."""
        with reading(self._db) as session:
            given = _own(session, reviewer_id, assignment)
            _voted(session, assignment)
            study = session.get_one(Study, given.study_id)
            if study.state != "closed" and study.reveal != "after_vote":
                raise Refused("This study shows which was which after it is closed. Go on with the next pair.")
            left, right = (cast.arm_of_answer(session, answer) for answer in (given.left_answer_id, given.right_answer_id))
        return Reveal(assignment, left, right)

    def export_votes(self, study: str) -> list[dict[str, Any]]:
        """Every revision of every vote in the order cast, with arms, texts and whether it counts: enough to recompute the board."""
        with reading(self._db) as session:
            found = rows.named(session, study)
            if found is None:
                raise NotFound(f"There is no study “{study}”. See the list of studies.")
            votes = cast.votes(session, found.id or 0)
            names = rows.user_names(session, sorted({row.reviewer_id for row in votes}))
        newest = {row.assignment_id: row.revision for row in sorted(votes, key=lambda row: row.revision)}
        return [_export_row(study, row, names[row.reviewer_id], newest[row.assignment_id]) for row in votes]

    def _look(self, session: Session, reviewer_id: int) -> BlindPair | Rest | tuple[_Desk, Candidate]:
        """What to show; or the candidate to give first."""
        _check_reviewer(session, reviewer_id)
        studies = rows.open_ones(session)
        done = 0
        for study in studies:
            desk = self._desk(session, study, reviewer_id)
            chosen = choose(desk.candidates, desk.history, study.votes_per_pair, self._rng)
            if isinstance(chosen, Given):
                return self._show(session, reviewer_id, desk, chosen.assignment)
            if chosen is not None:
                return desk, chosen
            done += desk.done
        if not studies:
            return Rest("No study is open at the moment. Come back when your team opens one.", 0, 0)
        if any(self._with_others(session, study, reviewer_id) for study in studies):
            return Rest("The last pairs are with other reviewers right now. Come back in half an hour.", done, done)
        return Rest("All done, thank you. Nothing is left to judge.", done, done)

    def _desk(self, session: Session, study: Study, reviewer_id: int, since: float | None = None) -> _Desk:
        study_id = study.id or 0
        taken = cast.taken(session, study_id, self._now() - HELD if since is None else since)
        given = cast.given_to(session, study_id, reviewer_id)
        candidates = [replace(c, taken=taken[c.key]) if c.key in taken else c for c in self._deck(session, study)]
        history = [Given(g.id, g.pair_key, g.prompt_id, open=g.live and not g.voted) for g in given]
        return _Desk(study, candidates, history, done=sum(g.voted for g in given))

    def _deck(self, session: Session, study: Study) -> list[Candidate]:
        """All pairs of a study, read again only when answers came or went."""
        study_id, state = study.id or 0, rows.live_state(session, study)
        held = self._decks.get(study_id)
        if held is None or held[0] != state:
            held = self._decks[study_id] = (state, [Candidate(*pair) for pair in live_pairs(session, study)])
        return held[1]

    def _with_others(self, session: Session, study: Study, reviewer_id: int) -> bool:
        """Pairs that still lack votes, but are on other reviewers' screens."""
        desk = self._desk(session, study, reviewer_id, since=math.inf)
        return bool(waiting(desk.candidates, desk.history, study.votes_per_pair))

    def _show(self, session: Session, reviewer_id: int, desk: _Desk, assignment: str) -> BlindPair:
        texts = cast.pair_texts(session, assignment)
        pace = cast.recent_seconds(session, reviewer_id, REMEMBERED)
        return BlindPair(
            assignment=assignment,
            prompt=prompt_text(texts.instruction, texts.input),
            left=shown_text(texts.left) or EMPTY,
            right=shown_text(texts.right) or EMPTY,
            done=desk.done,
            total=desk.done + desk.remaining,
            seconds_left=round((median(pace) if pace else USUAL_SECONDS) * desk.remaining),
        )

    def _give(self, reviewer_id: int, study: Study, candidate: Candidate) -> str:
        """The id of the new assignment; "" where the texts turned out identical (recorded) or the pair is no longer free: look again."""
        study_id, both = study.id or 0, candidate.answers
        with reading(self._db) as session:
            texts = {i: shown_text(text) for i, text in rows.answer_texts(session, both).items()}
            marked = self._marks(session, study, texts.values())
        with writing(self._db) as session:
            if session.get_one(Study, study_id).state != "open" or len(rows.answer_texts(session, both)) < 2:
                return ""
            if texts[both[0]] == texts[both[1]]:
                if both not in rows.identical_keys(session, study_id):
                    session.add(identical_row(study_id, candidate.prompt, both))
                return ""
            waits = any(given.live and not given.voted for given in cast.given_to(session, study_id, reviewer_id))
            if waits or cast.taken(session, study_id, self._now() - HELD, candidate.key).get(candidate.key, 0) >= study.votes_per_pair:
                return ""
            assignment, (left, right) = new_id(), draw_sides(*both)
            session.add(
                Assignment(
                    id=assignment,
                    study_id=study_id,
                    reviewer_id=reviewer_id,
                    prompt_id=candidate.prompt,
                    left_answer_id=left,
                    right_answer_id=right,
                    pair_key=candidate.key,
                    marked=marked,
                    served_at=self._now(),
                )
            )
        return assignment

    def _marks(self, session: Session, study: Study, texts: Iterable[str]) -> str:
        """The identity words in the two answers, for the record; never shown before the vote."""
        study_id = study.id or 0
        if study_id not in self._telling:
            arms = rows.arms_of(session, study_id)
            given = [*self._names, *(arm.name for arm in arms), *rows.adapter_names(session, [arm.id for arm in arms])]
            names = [part for name in given for part in (name, name.rsplit("/", 1)[-1])]
            self._telling[study_id] = telling(names, rows.subject_texts(session, study))
        return ", ".join(dict.fromkeys(word for text in texts for word in identity_words(text, self._telling[study_id])))

    def _once(self, act: Callable[[Session], Receipt]) -> Receipt:
        """Run `act` in one write transaction; where the same key got in between, run it again: it then finds that row."""
        try:
            with writing(self._db) as session:
                return act(session)
        except Duplicate:
            with writing(self._db) as session:
                return act(session)

    def _record_vote(self, session: Session, reviewer_id: int, ballot: Ballot) -> Receipt:
        _check_reviewer(session, reviewer_id)
        if same := cast.vote_with_key(session, ballot.key):
            return _same_vote(same, reviewer_id, ballot)
        given = _own(session, reviewer_id, ballot.assignment)
        study = session.get_one(Study, given.study_id)
        _check_takes_votes(session, study, ballot)
        latest = cast.latest_vote(session, given.id)
        _check_revision(study, latest.revision if latest else 0, ballot.revises)
        now = self._now()
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
            seconds=max(0.0, now - given.served_at),
            created_at=now,
        )
        session.add(vote)
        return Receipt(vote.id, given.id, vote.revision)

    def _record_correction(self, session: Session, reviewer_id: int, assignment: str, text: str, key: str) -> Receipt:
        _check_reviewer(session, reviewer_id)
        same = cast.correction_with_key(session, key)
        if same and (same.reviewer_id, same.assignment_id, same.text) != (reviewer_id, assignment, text):
            raise Conflict("This was already sent with another text. Load the page again, then save the ideal answer.")
        _own(session, reviewer_id, assignment)
        _voted(session, assignment)
        earlier = cast.corrections_of(session, assignment)
        if same:
            return Receipt(same.id, assignment, [correction.id for correction in earlier].index(same.id) + 1)
        at = max(self._now(), earlier[-1].created_at + 1e-3) if earlier else self._now()  # the newest counts, even if the clock went back
        correction = Correction(id=new_id(), assignment_id=assignment, reviewer_id=reviewer_id, text=text, request_key=key, created_at=at)
        session.add(correction)
        return Receipt(correction.id, assignment, len(earlier) + 1)


def _check_reviewer(session: Session, reviewer_id: int) -> None:
    user = rows.user(session, reviewer_id)
    if user is None or user.disabled_at is not None or user.role != "reviewer":
        raise Refused("Only a reviewer may judge pairs. Sign in as one.")


def _own(session: Session, reviewer_id: int, assignment: str) -> Assignment:
    """The same refusal for another's pair and for none at all: it tells nothing."""
    given = cast.assignment(session, assignment) if isinstance(assignment, str) else None
    if given is None or given.reviewer_id != reviewer_id:
        raise Refused(NOT_YOURS)
    return given


def _voted(session: Session, assignment: str) -> Vote:
    vote = cast.latest_vote(session, assignment)
    if vote is None:
        raise Refused("Vote on this pair first.")
    return vote


def _same_vote(vote: Vote, reviewer_id: int, ballot: Ballot) -> Receipt:
    sent = (reviewer_id, ballot.assignment, ballot.choice, ballot.comment, list(ballot.reasons), dict(ballot.criteria))
    if sent != (vote.reviewer_id, vote.assignment_id, vote.choice, vote.comment, list(vote.reasons), dict(vote.criteria)):
        raise Conflict("Another vote was sent under this key, so this one was not stored. Load the page again and vote once more.")
    return Receipt(vote.id, vote.assignment_id, vote.revision)


def _check_takes_votes(session: Session, study: Study, ballot: Ballot) -> None:
    if study.state != "open":
        state = "closed" if study.state == "closed" else "paused"
        raise Refused(f"This study is {state}, so the vote was not stored. Go on with the next pair.")
    if not cast.pair_texts(session, ballot.assignment).live:
        raise Refused(VOIDED)
    if unknown := sorted({*ballot.criteria} - {*study.criteria}) + sorted({*ballot.reasons} - {*study.reasons}):
        raise BadInput(f"This study does not ask for {', '.join(unknown)[:200]}. Load the page again and vote once more.")


def _check_revision(study: Study, latest: int, revises: int) -> None:
    if latest and revises == 0:
        raise Conflict(ALREADY)
    if latest != revises:
        raise Conflict("This vote was changed meanwhile, perhaps in another tab. Load the page again before you change it.")
    if revises and study.reveal == "after_vote":
        raise Refused("The arms of this pair were shown after your vote, so it stands. Go on with the next pair.")


def _refuse(problem: str) -> None:
    if problem:
        raise BadInput(problem)


def _export_row(study: str, row: cast.VoteRow, reviewer: str, newest: int) -> dict[str, Any]:
    vote = record(row)
    counts = row.revision == newest and row.kind == "real" and not row.marked and not row.voided
    return {"study": study, "reviewer": reviewer, **asdict(row), "winner": vote.winner, "characters": vote.characters, "counts": counts}
