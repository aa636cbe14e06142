"""What follows from a look at an arm: it is written down; a bad one sets the adapter aside and takes back the answers made since.

Must not know engines, screens or when to look.
"""

import time

from sqlmodel import Session

from ft.engine import Check
from review.services.faults import writing
from storage.database import Database
from storage.queries import arms, integrity
from storage.queries.people import audit
from storage.tables import Adapter, IntegrityCheck

AGAIN = "answer_again"  # setting: what was taken back and waits to be answered again
SET_ASIDE = "set aside on its check"


def record(db: Database, check: Check, adapter: Adapter | None = None, seen: tuple[int, ...] = ()) -> int:
    """Write a look down; returns how many answers it took back. `seen`: adapters that a good look at the base included."""
    detail: dict[str, object] = {**check.detail, **({"adapters": list(seen)} if seen else {})}
    with writing(db) as session:
        taken = [] if check.ok else _take_back(session, check, adapter)
        row = IntegrityCheck(
            kind=check.kind, adapter_id=adapter.id if adapter else None, ok=check.ok, words=check.words, detail=detail, voided=len(taken)
        )
        integrity.add(session, row)
        if not check.ok:
            name = adapter.name if adapter else "base"
            audit(session, time.time(), None, "integrity check failed", arm=name, words=check.words, voided=len(taken))
    return len(taken)


def _take_back(session: Session, check: Check, adapter: Adapter | None) -> list[tuple[str, str, str]]:
    """Set the adapter aside and void what the arms concerned answered since they were last found good."""
    whole = check.kind == "base"
    if adapter is not None and not whole:
        stored = session.get(Adapter, adapter.id)
        if stored is not None and stored.status == "registered":
            stored.status, stored.status_reason, stored.wanted = "quarantined", check.words, False
            session.add(stored)
    since = integrity.last_good(session, None if whole or adapter is None else adapter.id)
    if since is None:
        return []  # it never was found good here: what is stored came from elsewhere
    concerned = integrity.adapter_ids(session) if whole else [adapter.id if adapter else None]
    if check.kind == "pair":
        concerned = [*concerned, None]  # the base's rows shared its batches
    taken = integrity.void(session, concerned, since, time.time(), check.words)
    if taken:
        waiting = arms.setting(session, AGAIN) or []
        arms.put_setting(session, AGAIN, sorted({*(tuple(one) for one in waiting), *taken}))
    return taken
