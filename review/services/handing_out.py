"""The next pair for a reviewer: one given before and not judged yet, else a new one from the oldest open study that is theirs.

Real pairs, repeats with the sides flipped and plain pairs leave by the same door and look the same. No arm's name is in this file.
Must not know screens or models.
"""

import hashlib
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from ft.errors import Busy
from review.protocol.assignment import APART, Kind, due, pair_key, planned_checks
from review.protocol.ballots import BlindPair, Rest
from review.protocol.blinding import EMPTY, draw_sides, identity_words, new_id, prompt_text, shown_text, telling
from review.services.casting import check_reviewer
from review.services.faults import reading, writing
from review.services.ledger import HELD, Ledger, Ledgers
from review.services.shelves import Shelf
from review.services.studies import identical_row
from storage.database import Database
from storage.errors import Duplicate
from storage.queries import ledger as news
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import Assignment, Study

REMEMBERED_LOOKS = 50_000
NO_STUDY = "No study is open at the moment. Come back when your team opens one."
NOT_NAMED = "No open study asks for you at the moment. Come back when your team opens one."
WITH_OTHERS = "The last pairs are with other reviewers right now. Come back in half an hour."
ALL_DONE = "All done, thank you. Nothing is left to judge."


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a reviewer stands in a study, in numbers that are the same whatever kind of pair comes next."""

    done: int
    total: int
    seconds_left: int
    session_done: int
    session_total: int


@dataclass(frozen=True, slots=True)
class _Offer:
    """A pair to give. `sides` are drawn already for a repeat; `mark` and `known` tell whether another one was given meanwhile."""

    study: Study
    kind: Kind
    prompt: int
    answers: tuple[int, int]
    sides: tuple[int, int] | None
    progress: Progress
    mark: float
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Waiting:
    study: Study
    assignment: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Look:
    """Of an answer: what it is compared by, and the words in it that name a model. Recorded, never shown before the vote."""

    digest: bytes
    tells: tuple[str, ...]


class HandingOut:
    """`names`: further names to look for in answers, such as the base model's."""

    def __init__(self, db: Database, ledgers: Ledgers, names: Sequence[str], now: Callable[[], float]) -> None:
        self._db = db
        self._ledgers = ledgers
        self._names = tuple(names)
        self._now = now
        self._rng = random.Random(secrets.randbits(128))
        self._telling: dict[int, tuple[str, ...]] = {}
        self._seen: dict[tuple[int, int], _Look] = {}

    def next_pair(self, reviewer_id: int) -> BlindPair | Rest:
        for attempt in range(1, 1000):
            with self._ledgers.lock, reading(self._db) as session:
                check_reviewer(session, reviewer_id)
                found = self._look(session, reviewer_id)
            if isinstance(found, Rest):
                return found
            given = found.assignment if isinstance(found, _Waiting) else self._give(reviewer_id, found)
            if given:
                with reading(self._db) as session:
                    if isinstance(found, _Offer) or self._still_waits(session, found):
                        return show(session, found.study, given, found.progress)
            elif attempt % 20 == 0:
                self._ledgers.forget(found.study.id or 0)
        raise Busy("Other reviewers were quicker each time. Try again in a moment.")

    def again(self, reviewer_id: int, study: Study, assignment: str) -> BlindPair:
        """A pair given before, as it is shown now."""
        with self._ledgers.lock, reading(self._db) as session:
            ledger = self._ledgers.of(study)
            ledger.refresh(session, study, self._now())
            shelf = ledger.shelves[reviewer_id]
            progress = self._progress(ledger, shelf, _checks(study, ledger), ledger.pool.left_for(shelf.seen))
            return show(session, study, assignment, progress)

    def _look(self, session: Session, reviewer_id: int) -> Rest | _Waiting | _Offer:
        studies = rows.open_ones(session)
        self._ledgers.keep_only(study.id or 0 for study in studies)
        done, asked, with_others = 0, False, False
        for study in studies:
            ledger = self._ledgers.of(study)
            ledger.refresh(session, study, self._now())
            if ledger.reviewers and reviewer_id not in ledger.reviewers:
                continue
            asked, shelf = True, ledger.shelves[reviewer_id]
            if found := self._waiting(study, ledger, shelf) or self._offer(study, ledger, shelf):
                return found
            done += shelf.done
            with_others = with_others or ledger.with_others(shelf)
        if not asked:
            return Rest(NOT_NAMED if studies else NO_STUDY, 0, 0)
        return Rest(WITH_OTHERS if with_others else ALL_DONE, done, done)

    def _waiting(self, study: Study, ledger: Ledger, shelf: Shelf) -> _Waiting | None:
        entry = next((entry for entry in shelf.open.values() if ledger.is_live(entry)), None)
        if entry is None:
            return None
        left = ledger.pool.left_for(shelf.seen)
        return _Waiting(study, entry.id, self._progress(ledger, shelf, _checks(study, ledger), left))

    def _offer(self, study: Study, ledger: Ledger, shelf: Shelf) -> _Offer | None:
        checks = _checks(study, ledger)
        left = ledger.pool.left_for(shelf.seen)
        planned = planned_checks(shelf.real + left, len(checks))
        first = due(shelf.kinds, checks, planned, self._rng)
        owed = len(shelf.kinds) - shelf.real < planned
        for kind in (first, "real", *(checks if owed and not left else ())):
            if made := self._make(kind, ledger, shelf):
                prompt, answers, sides = made
                known = frozenset(entry.id for entry in shelf.entries[-50:])
                return _Offer(study, kind, prompt, answers, sides, self._progress(ledger, shelf, checks, left), ledger.marks[0], known)
        return None

    def _make(self, kind: Kind, ledger: Ledger, shelf: Shelf) -> tuple[int, tuple[int, int], tuple[int, int] | None] | None:
        if kind == "real":
            found = ledger.pool.choose(shelf, self._rng, ledger.gains())
            return (found.prompt, found.answers, None) if found else None
        if kind == "repeat":
            earlier = [
                entry
                for entry in shelf.entries[: max(0, len(shelf.entries) - APART + 1)]
                if entry.kind == "real" and entry.choice and not entry.marked and entry.pair not in shelf.repeated and ledger.is_live(entry)
            ]
            entry = self._rng.choice(earlier) if earlier else None
            return (entry.prompt, (entry.left, entry.right), (entry.right, entry.left)) if entry else None
        recent = {entry.prompt for entry in shelf.entries[-APART:]}
        plain = [pair for pair in ledger.plain if pair[0] not in recent and pair_key(*pair[1:]) not in shelf.repeated]
        known = [pair for pair in plain if shelf.prompts[pair[0]]]  # a question met before gives nothing new away
        chosen = self._rng.choice(known or plain) if plain else None
        return (chosen[0], (chosen[1], chosen[2]), None) if chosen else None

    def _progress(self, ledger: Ledger, shelf: Shelf, checks: Sequence[Kind], left: int) -> Progress:
        """Checks count like any other pair, and are planned for, so that no number moves when one comes."""
        real_open = sum(e.kind == "real" and ledger.is_live(e) for e in shelf.open.values())
        check_open = sum(e.kind != "real" and ledger.is_live(e) for e in shelf.open.values())
        owed = planned_checks(shelf.real + left, len(checks)) - (len(shelf.kinds) - shelf.real - check_open)
        remaining = left + real_open + max(owed, check_open)
        session_done, session_total = shelf.session(self._now())
        return Progress(shelf.done, shelf.done + remaining, round(shelf.pace * remaining), session_done, session_total)

    def _give(self, reviewer_id: int, offer: _Offer) -> str:
        """The id of the new assignment; "" where the texts turned out identical (recorded) or the pair is no longer free: look again."""
        study_id, key = offer.study.id or 0, pair_key(*offer.answers)
        looks = self._looks(offer)
        if len(looks) < 2:
            return ""
        try:
            with writing(self._db) as session:
                if session.get_one(Study, study_id).state != "open" or not cast.is_live(session, offer.answers):
                    return ""
                if len({look.digest for look in looks}) == 1:
                    if (min(offer.answers), max(offer.answers)) not in rows.identical_keys(session, study_id):
                        session.add(identical_row(study_id, offer.prompt, offer.answers))
                    return ""
                if self._not_free(session, reviewer_id, offer, key):
                    return ""
                assignment, (left, right) = new_id(), offer.sides or draw_sides(*offer.answers)
                session.add(
                    Assignment(
                        id=assignment,
                        study_id=study_id,
                        reviewer_id=reviewer_id,
                        prompt_id=offer.prompt,
                        left_answer_id=left,
                        right_answer_id=right,
                        pair_key=key,
                        kind=offer.kind,
                        marked=_joined(word for look in looks for word in look.tells),
                        served_at=self._now(),
                    )
                )
        except Duplicate:  # the same pair, given to the same reviewer a moment ago
            return ""
        return assignment

    def _still_waits(self, session: Session, found: _Waiting) -> bool:
        """Not judged, skipped or voided in a way that the ledger missed; it learns what it missed."""
        study_id = found.study.id or 0
        if cast.latest_vote(session, found.assignment) or cast.skip(session, found.assignment):
            self._ledgers.forget(study_id)
            return False
        if not cast.pair_texts(session, found.assignment).live:
            with self._ledgers.lock:
                self._ledgers.of(found.study).dead.add(found.assignment)
            return False
        return True

    def _not_free(self, session: Session, reviewer_id: int, offer: _Offer, key: str) -> bool:
        study_id = offer.study.id or 0
        if any(given.id not in offer.known for given in news.given_after(session, study_id, offer.mark, reviewer_id)):
            return True
        since = self._now() - HELD
        return offer.kind == "real" and cast.taken(session, study_id, offer.prompt, key, since) >= offer.study.votes_per_pair

    def _looks(self, offer: _Offer) -> list[_Look]:
        """What the two answers look like; read once, for an answer never changes. Fewer than two where one was taken back."""
        study_id = offer.study.id or 0
        wanted = [answer for answer in offer.answers if (study_id, answer) not in self._seen]
        if wanted:
            with reading(self._db) as session:
                names = self._names_of(session, offer.study)
                texts = {answer: shown_text(text) for answer, text in rows.answer_texts(session, wanted).items()}
            if len(self._seen) > REMEMBERED_LOOKS:
                self._seen.clear()
            for answer, text in texts.items():
                self._seen[study_id, answer] = _Look(hashlib.sha256(text.encode()).digest(), identity_words(text, names))
        return [self._seen[study_id, answer] for answer in offer.answers if (study_id, answer) in self._seen]

    def _names_of(self, session: Session, study: Study) -> tuple[str, ...]:
        """The names whose mention would tell an arm of this study."""
        study_id = study.id or 0
        if study_id not in self._telling:
            arms = rows.arms_of(session, study_id)
            ids = [arm.id for arm in arms]
            given = [*self._names, *(arm.name for arm in arms), *rows.adapter_names(session, ids), *rows.model_names(session, ids)]
            names = [part for name in given for part in (name, name.rsplit("/", 1)[-1])]
            self._telling[study_id] = telling(names, rows.subject_texts(session, study))
        return self._telling[study_id]


def show(session: Session, study: Study, assignment: str, progress: Progress) -> BlindPair:
    texts = cast.pair_texts(session, assignment)
    return BlindPair(
        assignment=assignment,
        prompt=prompt_text(texts.instruction, texts.input, texts.history),
        left=shown_text(texts.left) or EMPTY,
        right=shown_text(texts.right) or EMPTY,
        done=progress.done,
        total=progress.total,
        seconds_left=progress.seconds_left,
        criteria=tuple(study.criteria),
        scale="points" if study.scale == "points" else "sides",
        reasons=tuple(study.reasons),
        session_done=progress.session_done,
        session_total=progress.session_total,
        reveals=study.reveal == "after_vote",
    )


def _checks(study: Study, ledger: Ledger) -> tuple[Kind, ...]:
    if not study.checks:
        return ()
    return ("repeat", "gold") if ledger.plain else ("repeat",)


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
