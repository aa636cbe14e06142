"""A reviewer's ten minutes: what they settled and how far they agree with others, without a word on who was who.

Must not know screens or models.
"""

import time
from collections.abc import Callable, Iterator

from sqlmodel import Session

from review.protocol.ballots import Reward
from review.protocol.settled import Judged, agreement, told
from review.services.casting import check_reviewer
from review.services.faults import reading
from review.services.ledger import Ledger, Ledgers
from review.services.shelves import Entry
from storage.database import Database
from storage.queries import ledger as news
from storage.tables import Study


class Sessions:
    """`ledgers`: what is known of the studies in use; a house shares one. `now`: the server's clock, UTC seconds."""

    def __init__(self, db: Database, now: Callable[[], float] = time.time, ledgers: Ledgers | None = None) -> None:
        self._db = db
        self._now = now
        self._ledgers = ledgers or Ledgers()

    def reward(self, reviewer_id: int, since: float) -> Reward:
        """What the votes cast since `since` (UTC seconds) did. Raises Refused for anyone but a reviewer."""
        with self._ledgers.lock, reading(self._db) as session:
            check_reviewer(session, reviewer_id)
            ledgers = list(self._used(session, reviewer_id, since))
            entries = [e for ledger in ledgers for e in ledger.shelves[reviewer_id].entries if e.choice and e.cast >= since]
            if not entries:
                return Reward((), 0, 0, None)
            lines = [line for ledger in ledgers for line in told(_judged(ledger, reviewer_id, since))]
            agreed = _agreement(ledgers, reviewer_id, since)
        began = max(since, min(entry.served for entry in entries))
        minutes = max(1, round((max(entry.cast for entry in entries) - began) / 60))
        return Reward(tuple(lines), len(entries), minutes, agreed)

    def _used(self, session: Session, reviewer_id: int, since: float) -> Iterator[Ledger]:
        for study_id in news.studies_judged_since(session, reviewer_id, since):
            study = session.get_one(Study, study_id)
            ledger = self._ledgers.of(study)
            ledger.refresh(session, study, self._now())
            yield ledger


def _counts(entry: Entry) -> bool:
    return bool(entry.choice) and entry.kind == "real" and not entry.marked


def _judged(ledger: Ledger, reviewer_id: int, since: float) -> list[Judged]:
    entries = sorted((e for e in ledger.entries.values() if _counts(e)), key=lambda e: e.cast)
    return [
        Judged(subjects, meeting, ledger.points(e), e.reviewer == reviewer_id and e.cast >= since)
        for e in entries
        if (subjects := ledger.labels.get(e.prompt, ())) and (meeting := ledger.meeting(e))
    ]


def _agreement(ledgers: list[Ledger], reviewer_id: int, since: float) -> float | None:
    mine: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for ledger in ledgers:
        held = [e for e in ledger.shelves[reviewer_id].entries if _counts(e) and e.cast >= since]
        mine |= {f"{ledger.study_id} {e.pair}": e.better for e in held}
        pairs = {e.pair for e in held}
        others += [
            (f"{ledger.study_id} {e.pair}", e.better)
            for e in ledger.entries.values()
            if e.pair in pairs and e.reviewer != reviewer_id and _counts(e)
        ]
    return agreement(mine, others)
