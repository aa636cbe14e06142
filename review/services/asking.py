"""Asking one arm by name, for programs: what answers here, and one answer as a stream from the engine's common queue.

Must not know HTTP, keys, torch or screens.
"""

import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft.engine import BASE, Engine, Event, Message, Request
from ft.errors import BadInput, Busy, NotFound, Unavailable
from ft.specs import DecodeSpec
from ft.template import with_system
from review.services.adapters import Adapters
from review.services.answers import Answers
from review.services.faults import reading
from review.services.remotes import Remotes
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Adapter, Arm

DEFAULT = "default"
MAX_WAITING = 256  # rows in the engine's queue before programs are told to come back later


@dataclass(frozen=True, slots=True)
class ModelView:
    """What answers. `root`: the base's name, or an adapter's content hash; `parent`: the model an adapter sits on, "" for others."""

    name: str
    kind: str
    root: str
    parent: str
    created_at: float
    in_use: bool
    context: int


@dataclass(frozen=True, slots=True)
class Asked:
    """An arm that has begun to answer. `fingerprint` says which weights it is."""

    arm: str
    fingerprint: str
    stream: Generator[Event, None, None]


class Asking:
    def __init__(self, db: Database, engine: Engine, adapters: Adapters, answers: Answers, remotes: Remotes) -> None:
        self._db, self._engine, self._adapters, self._answers, self._remotes = db, engine, adapters, answers, remotes

    def models(self) -> list[ModelView]:
        """Every arm that can be asked, the base first; and `default`, which stands for the arm in use."""
        usable = self._usable()
        in_use = self._adapters.in_use()
        context, base = self._about_base()
        below = next((arm.name for arm, _ in usable.values() if arm.kind == "base"), "")
        found = [self._view(arm, adapter, in_use, context, base, below) for arm, adapter in usable.values()]
        if DEFAULT not in usable:
            standing_for = next((view for view in found if view.in_use), None)
            if standing_for:
                found.append(ModelView(DEFAULT, standing_for.kind, standing_for.name, "", standing_for.created_at, True, context))
        return found

    def model(self, name: str) -> ModelView:
        """Raises NotFound."""
        found = next((view for view in self.models() if view.name == name), None)
        if found is None:
            raise _unknown(name)
        return found

    def ask(self, model: str, messages: Sequence[Message], changes: Mapping[str, Any], background: bool = False) -> Asked:
        """Have an arm answer; `changes` are decoding settings other than the arm's own. Brings its adapter in where it is not in memory.

        Raises NotFound, BadInput, Refused, Busy, Unavailable before the stream begins.
        """
        arm, adapter = self._named(model)
        decode = DecodeSpec.from_dict(arm.decode).with_(**changes)
        if decode.temperature > 0 and "seed" not in changes:
            decode = decode.with_(seed=secrets.randbelow(2**31))
        if problems := decode.problems():
            raise BadInput(" ".join(problems))
        engine = self._remotes.engine(arm) if arm.kind == "remote" else self._engine
        self._must_be_free(engine)
        where = self._adapters.bring(adapter.id) if adapter and adapter.id else BASE
        request = Request(secrets.token_hex(12), with_system(messages, arm.system_prompt), where, decode, background)
        fingerprint = f"{engine.identity().base_hash}-{'base' if where == BASE else where[:16]}"
        return Asked(arm.name, fingerprint, engine.generate([request]))

    @staticmethod
    def _must_be_free(engine: Engine) -> None:
        status = engine.status()
        if status.state != "ready":
            raise Unavailable(f"The model cannot answer now: {status.message} Try again in a moment.")
        if engine.activity().waiting >= MAX_WAITING:
            raise Busy("Too many questions are waiting for the model. Try again in a moment.")

    def _named(self, model: str) -> tuple[Arm, Adapter | None]:
        usable = self._usable()
        if model in usable:
            return usable[model]
        if model == DEFAULT:
            in_use = self._adapters.in_use()
            chosen = next((pair for pair in usable.values() if _stands(*pair, in_use)), None)
            if chosen:
                return chosen
        raise _unknown(model)

    def _usable(self) -> dict[str, tuple[Arm, Adapter | None]]:
        self._answers.ensure_arms()
        with reading(self._db) as session:
            found, retired = queries.arms(session), queries.retired_arms(session)
        return {
            arm.name: (arm, adapter)
            for arm, adapter in found
            if arm.id not in retired
            and (arm.kind in ("base", "remote") or (arm.kind == "adapter" and adapter is not None and adapter.status == "registered"))
        }

    def _about_base(self) -> tuple[int, str]:
        if self._engine.status().state != "ready":
            return 0, ""
        identity = self._engine.identity()
        return identity.context_length, identity.base

    def _view(self, arm: Arm, adapter: Adapter | None, in_use: str | None, context: int, base: str, below: str) -> ModelView:
        root, parent = (adapter.content_hash, below) if adapter else (arm.remote.get("model") or base or arm.name, "")
        return ModelView(arm.name, arm.kind, root, parent, arm.created_at, _stands(arm, adapter, in_use), context)


def _stands(arm: Arm, adapter: Adapter | None, in_use: str | None) -> bool:
    return adapter.name == in_use if adapter else arm.kind == "base" and in_use is None


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no model {name[:60]!r}. GET /v1/models lists those there are.")
