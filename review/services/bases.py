"""The base model of this data folder: what it is, what another one would mean, and the change itself.

A change retires the arms of the base before: their answers, votes and studies stay as they are, and they give no more answers. What runs
already has the old base, so it answers nothing until it is started again. Must not know torch, screens or HTTP.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session

from ft.adapters import vet
from ft.base_cards import BaseCard, base_card
from ft.engine import Engine
from ft.errors import BadInput, Conflict, Refused
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.queries.people import audit
from storage.tables import Adapter

__all__ = ["BaseCard", "BaseState", "Bases", "Swap", "chosen_base"]

VARIABLE = "TIEBREAK_BASE"
EARLIER = "the earlier base"


@dataclass(frozen=True, slots=True)
class BaseState:
    """The base now. `running` is what the engine says of itself, empty where it is not loaded; `waiting`: chosen, and not started yet."""

    card: BaseCard
    running: dict[str, str]
    waiting: str
    fixed_by: str


@dataclass(frozen=True, slots=True)
class Swap:
    """Another base, and what it would mean. `fits` and `misfits` are adapters' names; `unknown`: only a start can tell."""

    card: BaseCard
    fits: tuple[str, ...]
    misfits: tuple[str, ...]
    unknown: tuple[str, ...]
    consequences: tuple[str, ...]


def chosen_base(db: Database, given: str) -> str:
    """The base to start with: the environment's if it names one, else the one chosen here, else `given`."""
    if os.environ.get(VARIABLE):
        return given
    with reading(db) as session:
        return queries.base_now(session) or given


class Bases:
    def __init__(self, db: Database, home: Path, base: str, engine: Engine) -> None:
        self._db, self._home, self._base, self._engine = db, home, base, engine

    def state(self) -> BaseState:
        """What there is now. Reads the base's files; loads nothing."""
        with reading(self._db) as session:
            now = queries.base_now(session)
        running: dict[str, str] = {}
        if self._engine.status().state == "ready":
            identity = self._engine.identity()
            running = {"device": identity.device, "dtype": identity.dtype, "quantisation": identity.quantisation, **identity.reasons}
        waiting = now if now and now != self._base else ""
        return BaseState(self._card(self._base), running, waiting, VARIABLE if os.environ.get(VARIABLE) else "")

    def check(self, candidate: str) -> Swap:
        """What another base would mean. Changes nothing. Raises BadInput for no name."""
        if not candidate.strip():
            raise BadInput("No base model is named. Give a folder, a GGUF file, a hub id such as owner/name, or “embedded”.")
        card = self._card(candidate.strip())
        with reading(self._db) as session:
            adapters = [row for row in queries.adapters(session) if row.status == "registered"]
            studies = queries.open_studies(session)
            answers = queries.answers_of_models(session)
        fits, misfits, unknown = self._sort(adapters, card)
        return Swap(card, fits, misfits, unknown, tuple(_consequences(self._base, card, fits, misfits, unknown, studies, answers)))

    def use(self, candidate: str, by: int | None) -> None:
        """Change the base of this data folder, for the next start. Raises BadInput, Refused, Conflict."""
        swap = self.check(candidate)
        name = swap.card.name
        if not swap.card.ok:
            raise BadInput(" ".join(swap.card.reasons))
        set_to = os.environ.get(VARIABLE, "")
        if set_to and set_to != name:
            raise Refused(f"{VARIABLE} is set to {set_to}, and would win over a choice made here. Unset it, or set it to {name} first.")
        with writing(self._db) as session:
            if (queries.base_now(session) or ("" if set_to else self._base)) == name:
                raise Conflict(f"{name} is the base already. Nothing was changed.")
            self._retire(session, name, EARLIER if set_to else self._base)
            audit(session, time.time(), by, "base changed", base=name, before=self._base)

    def _retire(self, session: Session, name: str, before: str) -> None:
        """The arms of the base before keep what they have; those of the new one, from an earlier time, come back."""
        known: dict[str, Any] = queries.setting(session, queries.BASES) or {}
        arms: dict[str, list[int]] = {key: list(value) for key, value in known.get("arms", {}).items()}
        owned = {arm for ids in arms.values() for arm in ids}
        mine = [arm.id for arm, _ in queries.arms(session) if arm.kind in ("base", "adapter") and arm.id and arm.id not in owned]
        arms.setdefault(known.get("now") or before, []).extend(mine)
        queries.put_setting(session, queries.BASES, {"now": name, "arms": arms})
        queries.put_setting(session, "in_use", None)
        for row in queries.adapters(session):
            row.wanted, row.pinned = False, False
            session.add(row)

    def _sort(self, adapters: list[Adapter], card: BaseCard) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Adapters that would fit the new base's layers, would not, and of which only a start can tell."""
        if card.shape is None or not card.shape.linears:
            return (), (), tuple(row.name for row in adapters)
        good = {row.name for row in adapters if vet(self._home / "adapters" / row.folder, card.shape).ok}
        return tuple(sorted(good)), tuple(row.name for row in adapters if row.name not in good), ()

    def _card(self, base: str) -> BaseCard:
        return base_card(base, self._home / "bases")


def _consequences(
    now: str, card: BaseCard, fits: tuple[str, ...], misfits: tuple[str, ...], unknown: tuple[str, ...], studies: list[str], answers: int
) -> list[str]:
    """In words, what a change would do."""
    said = [f"It takes effect when the app is started again. Until then nothing is answered; reviewers go on with stored answers on {now}."]
    if answers:
        said.append(
            f"The {answers} answers stored so far stay, with their votes and scores. They belong to the arms of {now}, which give no more."
        )
    said.append("The new base is an arm of its own, with no answers yet: let it answer your prompt sets before you compare.")
    if misfits:
        said.append(f"These adapters do not fit it and cannot be used with it: {', '.join(misfits)}.")
    if fits:
        said.append(f"These adapters have its shape but were trained on other weights, so their arms stay with {now}: {', '.join(fits)}.")
    if unknown:
        said.append(f"Whether these adapters fit shows only when it has loaded: {', '.join(unknown)}.")
    if studies:
        said.append(f"Open studies go on with the answers they have: {', '.join(studies)}.")
    said.append("On boards, evaluations of earlier arms are marked with their base; compare across bases with care.")
    if not card.here:
        said.append("It is not on this machine yet, so the first start takes longer.")
    said.append(f"Changing back to {now} brings its arms back as they were.")
    return said
