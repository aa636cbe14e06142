"""Arm integrity: looks at the base and the adapters in memory now and then, and tells what was found and what was taken back.

Must not know torch, screens or HTTP.
"""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from ft.engine import Check, Engine, Identity
from ft.errors import Unavailable, UserError
from ft.specs import digest
from ft.versions import library_versions
from review.services import proofs
from review.services.adapters import Adapters
from review.services.answers import Answers
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.queries import integrity as rows
from storage.queries.integrity import Voided
from storage.tables import Adapter

log = logging.getLogger(__name__)
EVERY = 15 * 60.0  # seconds between two looks at everything
FINGERPRINTS = "base_fingerprints"  # setting: of a base as loaded in one way -> of its tensors
SHOWN = 100


@dataclass(frozen=True, slots=True)
class CheckView:
    """One look. `adapter` is "" for a look at the base; `voided`: answers it took back."""

    at: float
    kind: str
    adapter: str
    ok: bool
    words: str
    voided: int
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArmState:
    """What is known of the base or of an adapter now. `proof`: good | bad | unknown; `at`: of the last look."""

    name: str
    kind: str
    fingerprint: str
    where: str
    proof: str
    words: str
    at: float | None


@dataclass(frozen=True, slots=True)
class IntegrityView:
    """The whole page. `waiting`: answers taken back that are still to be made again, as (arm, set, split)."""

    arms: tuple[ArmState, ...]
    checks: tuple[CheckView, ...]
    voided: tuple[Voided, ...]
    waiting: tuple[tuple[str, str, str], ...]
    every: float = EVERY


class Integrity:
    """`look` is called often by the caretaker and does something every quarter of an hour."""

    def __init__(self, db: Database, engine: Engine, adapters: Adapters, answers: Answers) -> None:
        self._db, self._engine, self._adapters, self._answers = db, engine, adapters, answers
        self._next = 0.0
        self._broken = ""

    def look(self) -> None:
        """Look at everything when it is time; have what was taken back answered again once that can be done."""
        status = self._engine.status()
        if status.state == "failed":
            self._say_broken()
        if status.state != "ready":
            return
        if time.monotonic() >= self._next:
            self.check()
        self._answer_again()

    def check(self) -> bool:
        """Look at the base and at each adapter in memory now; whether all is good. Raises Unavailable where no model runs."""
        self._engine.wait_ready(120)
        self._next = time.monotonic() + EVERY
        base = self._known_base(self._engine.check())
        if not base.ok:
            proofs.record(self._db, base)
            return False
        resident = self._engine.adapters()
        with reading(self._db) as session:
            here = [row for row in queries.adapters(session) if row.content_hash in resident and row.status == "registered"]
        found = {row.id or 0: self._look_at(row) for row in here}
        good = tuple(number for number, proof in found.items() if proof)
        words = f"The base and {len(good)} adapter{'s' if len(good) != 1 else ''} in memory compute what they did when loaded."
        proofs.record(self._db, Check("base", True, words if good else base.words, base.detail), seen=good)
        return False not in found.values()

    def view(self) -> IntegrityView:
        with reading(self._db) as session:
            checks = tuple(
                CheckView(row.at, row.kind, name, row.ok, row.words, row.voided, dict(row.detail))
                for row, name in rows.newest(session, SHOWN)
            )
            adapters = queries.adapters(session)
            voided = tuple(rows.voided(session))
            waiting = tuple((str(a), str(b), str(c)) for a, b, c in queries.setting(session, proofs.AGAIN) or [])
            good = {row.id: rows.last_good(session, row.id) for row in adapters}
        arms = (self._base_state(checks), *(_adapter_state(row, checks, good[row.id]) for row in adapters))
        return IntegrityView(arms, checks, voided, waiting)

    def _look_at(self, row: Adapter) -> bool | None:
        """Whether it is good, None where it left memory meanwhile. Only a bad look gets a row of its own; good ones are told together."""
        try:
            check = self._engine.check(row.content_hash)
        except Unavailable:
            gone = self._engine.status().state == "ready" and row.content_hash not in self._engine.adapters()
            return None if gone else False
        if not check.ok:
            proofs.record(self._db, check, row)
            self._engine.unload(row.content_hash)
        return check.ok

    def _known_base(self, check: Check) -> Check:
        """The tensors of a base are the same each time it is loaded in the same way; where they are not, it answers nothing."""
        found = str(check.detail.get("tensors", ""))
        if not check.ok or not found:
            return check
        identity = self._engine.identity()
        loaded_as = digest([identity.base_hash, identity.dtype, identity.quantisation, identity.device, library_versions()])
        with writing(self._db) as session:
            known = dict(queries.setting(session, FINGERPRINTS) or {})
            if loaded_as not in known:
                queries.put_setting(session, FINGERPRINTS, known | {loaded_as: found})
        if known.get(loaded_as, found) == found:
            self._adapters.distrust("")
            return check
        words = "The base in memory is not what it was at its last start, though its files are. Check the machine's memory, then restart."
        self._adapters.distrust(words)
        return Check("base", False, words, check.detail | {"expected": known[loaded_as]})

    def _say_broken(self) -> None:
        """A base found changed while adapters came or went: once."""
        try:
            check = self._engine.check()
        except UserError:
            return
        if not check.ok and check.words != self._broken:
            self._broken = check.words
            with reading(self._db) as session:
                newest = rows.newest(session, 1)
            if not newest or newest[0][0].ok or newest[0][0].words != check.words:
                proofs.record(self._db, check)

    def _answer_again(self) -> None:
        """Queue what was taken back, for the arms that can answer again."""
        with reading(self._db) as session:
            waiting = queries.setting(session, proofs.AGAIN)
        if not waiting:
            return
        usable = {arm.name for arm in self._answers.arms() if arm.usable}
        ready = [tuple(one) for one in waiting if one[0] in usable]
        for set_name, split in sorted({(one[1], one[2]) for one in ready}):
            arms = sorted(one[0] for one in ready if (one[1], one[2]) == (set_name, split))
            try:
                self._answers.start(set_name, split, arms, None)
            except UserError as error:
                log.warning("answers taken back were not asked for again: %s", error)
        with writing(self._db) as session:
            now = queries.setting(session, proofs.AGAIN) or []
            queries.put_setting(session, proofs.AGAIN, [one for one in now if tuple(one) not in ready] or None)

    def _base_state(self, checks: tuple[CheckView, ...]) -> ArmState:
        identity = self._identity()
        fingerprint, where = (identity.base_hash, "in memory") if identity else ("", "not loaded in this program")
        last = next((check for check in checks if check.kind == "base"), None)
        return ArmState("base", "base", fingerprint, where, *_proof(last))

    def _identity(self) -> Identity | None:
        return self._engine.identity() if self._engine.status().state == "ready" else None


def _adapter_state(row: Adapter, checks: tuple[CheckView, ...], good_at: float | None) -> ArmState:
    where = "in memory" if row.resident else "on disk"
    if row.status == "quarantined":
        bad_at = next((check.at for check in checks if check.adapter == row.name and not check.ok), None)
        return ArmState(row.name, "adapter", row.content_hash, "set aside", "bad", row.status_reason, bad_at)
    if good_at is None:
        return ArmState(
            row.name, "adapter", row.content_hash, where, "unknown", "Not looked at yet; it is when it comes into memory.", None
        )
    return ArmState(row.name, "adapter", row.content_hash, where, "good", "Beside the base it computes what it does alone.", good_at)


def _proof(last: CheckView | None) -> tuple[str, str, float | None]:
    if last is None:
        return "unknown", "Not looked at yet; it is when the app has loaded it.", None
    return ("good" if last.ok else "bad"), last.words, last.at
