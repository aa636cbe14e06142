"""What was given out and said in a study, held in memory so that the next pair costs a few milliseconds however many votes there are.

The database is the truth: a ledger only ever reads rows that it has not read yet (and all of them at first), so several processes may
share a database. Whoever gives out a pair checks once more in the transaction that writes it. Must not know screens or models.
"""

import heapq
import random
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from sqlmodel import Session

from review.protocol.assignment import Arms, Candidate, Pool
from review.protocol.plain_pairs import Candidate as Plain
from review.protocol.plain_pairs import plain_pairs
from review.protocol.uncertainty import gains
from review.services.shelves import Entry, Shelf
from storage.queries import ledger as news
from storage.queries import studies as rows
from storage.tables import Study

HELD = 30 * 60.0  # seconds for which a pair somebody is looking at is not given to others
PLAIN_PAIRS = 100  # prepared for a study
POINTS = {"tie": (0.5, 0.5), "both_bad": (0.0, 0.0)}


@dataclass
class Ledger:
    """One study. Every use is inside the lock of `Ledgers`, taken before the transaction it is refreshed from begins."""

    study_id: int
    needed: int
    tags: frozenset[str] = frozenset()
    reviewers: frozenset[int] = frozenset()
    arms: tuple[int, ...] = ()
    pool: Pool = field(default_factory=lambda: Pool((), 1))
    entries: dict[str, Entry] = field(default_factory=dict)
    shelves: dict[int, Shelf] = field(default_factory=lambda: defaultdict(Shelf))
    live: dict[int, int] = field(default_factory=dict)  # answer -> arm
    labels: dict[int, tuple[str, ...]] = field(default_factory=dict)  # prompt -> what it is about
    plain: list[tuple[int, int, int]] = field(default_factory=list)  # (prompt, good answer, bad answer)
    dead: set[str] = field(default_factory=set)  # plain pairs given, of which an answer was taken back
    marks: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    _state: tuple[int, int, int] = (-1, -1, -1)
    _taken: Counter[str] = field(default_factory=Counter)
    _points: dict[Arms, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    _on_the_way: Counter[Arms] = field(default_factory=Counter)  # votes expected from pairs on somebody's screen
    _arm: dict[int, int] = field(default_factory=dict)  # of every answer ever seen
    _holds: list[tuple[float, str]] = field(default_factory=list)

    def refresh(self, session: Session, study: Study, now: float) -> None:
        """Read what came since the last time."""
        if not self.arms:
            self.arms = news.study_arms(session, self.study_id)
            self.reviewers = news.named_reviewers(session, self.study_id)
        state = news.deck_state(session, self.study_id, self.arms)
        if state != self._state:
            self._deal(session, study)
            self._state = state
        given_mark, cast_mark, skip_mark = self.marks
        for given in news.given_after(session, self.study_id, given_mark):
            self._give(given, now)
            given_mark = max(given_mark, given.at)
        for cast in news.cast_after(session, self.study_id, cast_mark):
            self._cast(cast)
            cast_mark = max(cast_mark, cast.at)
        for at, assignment in news.skipped_after(session, skip_mark):
            self._skip(assignment)
            skip_mark = max(skip_mark, at)
        self.marks = (given_mark, cast_mark, skip_mark)
        self._let_go(now)

    def gains(self) -> dict[Arms, float] | None:
        """What a vote on each two arms would tell; None with two arms, where there is nothing to choose."""
        if len(self.arms) < 3:
            return None
        points = {arms: (one, other) for arms, (one, other) in self._points.items()}
        return gains(self.arms, points, self._on_the_way)

    def with_others(self, shelf: Shelf) -> bool:
        """Whether pairs that still lack votes are on other reviewers' screens."""
        held = (self.entries[assignment] for _, assignment in self._holds)
        return any(e.counted and e.open and e.pair not in shelf.seen and e.pair in self.pool for e in held)

    def meeting(self, entry: Entry) -> Arms | None:
        one, other = self._arm.get(entry.left), self._arm.get(entry.right)
        return None if one is None or other is None else (min(one, other), max(one, other))

    def points(self, entry: Entry) -> tuple[float, float]:
        """Of the entry's two arms in their order."""
        if entry.choice in POINTS:
            return POINTS[entry.choice]
        won = self._arm.get(entry.left if entry.choice == "left" else entry.right)
        return (1.0, 0.0) if (meeting := self.meeting(entry)) and won == meeting[0] else (0.0, 1.0)

    def is_live(self, entry: Entry) -> bool:
        if entry.kind == "gold":  # may show an answer of another arm
            return entry.id not in self.dead
        return entry.left in self.live and entry.right in self.live

    def _deal(self, session: Session, study: Study) -> None:
        """The deck anew: answers came or went."""
        dealt = [d for d in news.deck(session, study) if not self.tags or self.tags.intersection(d.subjects)]
        self.live = {d.answer: d.arm for d in dealt}
        self._arm |= self.live
        self.labels = {d.prompt: d.subjects for d in dealt}
        self.pool = Pool(_pairs(dealt, rows.identical_keys(session, self.study_id)), self.needed)
        for key, count in self._taken.items():
            self.pool.take(key, count)
        self.plain = _plain(session, dealt) if study.checks else []

    def _give(self, given: news.Given, now: float) -> None:
        if given.id in self.entries:
            return
        entry = self.entries[given.id] = self._entry(given)
        shelf = self.shelves[entry.reviewer]
        shelf.given(entry)
        if entry.kind == "real":
            shelf.add(entry.pair, entry.prompt, self.meeting(entry))
            if entry.served > now - HELD:
                self._count(entry, True)
                heapq.heappush(self._holds, (entry.served, entry.id))

    def _entry(self, given: news.Given) -> Entry:
        """With the pool's own key and numbers and one word for each kind: a study may have a hundred thousand of them."""
        pair, prompt, left, right = given.pair, given.prompt, given.left, given.right
        if found := self.pool.candidate(pair):
            pair, prompt, (one, other) = found.key, found.prompt, found.answers
            left, right = (one, other) if left == one else (other, one)
        return Entry(given.id, given.reviewer, pair, prompt, left, right, sys.intern(given.kind), bool(given.marked), given.served)

    def _cast(self, cast: news.Cast) -> None:
        entry, choice = self.entries.get(cast.assignment), sys.intern(cast.choice)
        if entry is None or cast.revision <= entry.revision:
            return
        if not entry.choice:
            shelf = self.shelves[entry.reviewer]
            shelf.voted(cast.seconds, cast.created)
            shelf.open.pop(entry.id, None)
            entry.cast = cast.created
            self._count(entry, False)
            entry.choice = choice
            self._count(entry, entry.kind == "real")
        else:
            self._tell(entry, -1)
        entry.choice, entry.revision = choice, cast.revision
        self._tell(entry, 1)

    def _skip(self, assignment: str) -> None:
        entry = self.entries.get(assignment)
        if entry and not entry.skipped:
            self._count(entry, False)
            entry.skipped = True
            self.shelves[entry.reviewer].open.pop(entry.id, None)

    def _let_go(self, now: float) -> None:
        """Pairs held too long without a vote are free again; those voted on are held no more."""
        while self._holds and ((entry := self.entries[self._holds[0][1]]).served <= now - HELD or not entry.open):
            heapq.heappop(self._holds)
            if entry.open:
                self._count(entry, False)

    def _count(self, entry: Entry, counted: bool) -> None:
        if counted != entry.counted:
            entry.counted = counted
            change = 1 if counted else -1
            self._taken[entry.pair] += change
            self.pool.take(entry.pair, change)
            if entry.open and (meeting := self.meeting(entry)):
                self._on_the_way[meeting] += change

    def _tell(self, entry: Entry, sign: int) -> None:
        if entry.choice and entry.kind == "real" and not entry.marked and (meeting := self.meeting(entry)):
            for side, points in enumerate(self.points(entry)):
                self._points[meeting][side] += sign * points


def _pairs(dealt: Iterable[news.Dealt], identical: set[tuple[int, int]]) -> list[Candidate]:
    """Every two answers to one prompt, identical ones left out."""
    by_prompt: dict[int, list[news.Dealt]] = defaultdict(list)
    for d in dealt:
        by_prompt[d.prompt].append(d)
    return [
        Candidate(prompt, (one.answer, other.answer), (one.arm, other.arm))
        for prompt, answers in by_prompt.items()
        for one, other in combinations(answers, 2)
        if (min(one.answer, other.answer), max(one.answer, other.answer)) not in identical
    ]


def _plain(session: Session, dealt: list[news.Dealt]) -> list[tuple[int, int, int]]:
    """Plain pairs of a study, from a fixed random part of its answers: the same ones whenever the deck is the same. What the human agent
    wrote may be the good answer, whether or not the study compares it."""
    rng = random.Random(len(dealt))
    some = rng.sample(dealt, min(len(dealt), 4 * PLAIN_PAIRS))
    bads = [Plain(*row) for row in news.topics(session, [d.answer for d in some])]
    human = news.human_answers(session, sorted({d.prompt for d in some}))
    goods = [*(Plain(*row) for row in news.topics(session, human)), *bads]
    rng.shuffle(goods)
    return [(good.prompt, good.answer, bad.answer) for good, bad in plain_pairs(goods, bads, PLAIN_PAIRS)]


class Ledgers:
    """The ledgers of the studies in use, one for all services of a house. Hold `lock` from before the read transaction on: a ledger must
    never know more than the transaction that is asked about it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._held: dict[int, Ledger] = {}

    def of(self, study: Study) -> Ledger:
        """A study's ledger as it was last read; its user refreshes it."""
        study_id = study.id or 0
        with self.lock:
            if study_id not in self._held:
                self._held[study_id] = Ledger(study_id, study.votes_per_pair, frozenset(study.tags))
            return self._held[study_id]

    def forget(self, study_id: int) -> None:
        """Read everything anew next time."""
        with self.lock:
            self._held.pop(study_id, None)

    def keep_only(self, study_ids: Iterable[int]) -> None:
        """Let go of studies that are not in use any more."""
        with self.lock:
            for gone in self._held.keys() - set(study_ids):
                del self._held[gone]
