"""Remote arms: a model on somebody else's server as one arm, such as a hosted model as the baseline. What it costs is counted.

The key is only ever in the environment: an arm knows the name of the variable. Must not know screens, HTTP or how a job is chosen.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from ft.engine import Done, Engine
from ft.errors import BadInput, Conflict
from ft.specs import DecodeSpec, digest
from ft.template import DEFAULT_SYSTEM
from review.services.adapters import NAME, RESERVED
from review.services.faults import reading, writing
from review.settings import is_variable
from storage.database import Database
from storage.queries import arms as queries
from storage.queries.people import audit
from storage.tables import Answer, Arm, Prompt

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class RemoteView:
    """A remote arm as shown; never the key. Prices are for a million tokens, `cost` is that of its stored answers."""

    name: str
    url: str
    model: str
    key_env: str
    price_in: float
    price_out: float
    answers: int
    cost: float


class Remotes:
    """Opens a server's engine at its first use and keeps it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}

    def add(
        self, name: str, url: str, model: str, key_env: str = "", price_in: float = 0.0, price_out: float = 0.0, system: str = "",
        by: int | None = None,
    ) -> None:  # fmt: skip
        """A new arm. Prices are for a million tokens, read and written, in whatever currency. Raises BadInput, Conflict."""
        from ft.remote import Server

        name = name.strip()
        if not NAME.fullmatch(name) or name.casefold() in RESERVED:
            what = f"{name[:64]!r} cannot be an arm's name" if name else "The name of the new arm is missing"
            raise BadInput(f"{what}. Use up to 64 letters, digits, spaces and . + - _, not base or human.")
        if not model.strip() or len(model) > 200:
            raise BadInput("The model's name on the server is missing. Give it as the server lists it.")
        if key_env and not is_variable(key_env):
            raise BadInput("Give the name of the environment variable that holds the key, never the key itself.")
        if not (0 <= price_in <= MILLION and 0 <= price_out <= MILLION):
            raise BadInput("A price is for a million tokens and cannot be negative. Give 0 where it is not known.")
        Server(url, key_env)  # refuses what cannot be an address
        remote = {"url": url, "model": model.strip(), "key_env": key_env, "price_in": price_in, "price_out": price_out}
        arm = Arm(
            name=name, kind="remote", system_prompt=system.strip() or DEFAULT_SYSTEM, decode=DecodeSpec().to_dict(), remote=remote,
            settings_hash=digest(["remote", remote, system.strip() or DEFAULT_SYSTEM, DecodeSpec().to_dict()]),
        )  # fmt: skip
        with writing(self._db) as session:
            if name.casefold() in queries.names_taken(session):
                raise Conflict(f"The name {name} is taken. Choose another.")
            if twin := next((each for each, _ in queries.arms(session) if each.settings_hash == arm.settings_hash), None):
                raise Conflict(f"The same remote arm is there already, as {twin.name}. Use that one.")
            session.add(arm)
            audit(session, time.time(), by, "remote arm added", name=name, **remote)

    def arms(self) -> list[RemoteView]:
        """Oldest first."""
        with reading(self._db) as session:
            paid = queries.paid_for(session)
            found = [arm for arm, _ in queries.arms(session) if arm.kind == "remote"]
            return [RemoteView(arm.name, **arm.remote, answers=paid[arm.id or 0][0], cost=paid[arm.id or 0][1]) for arm in found]

    def cost(self, name: str) -> float:
        """What the stored answers of an arm have cost, in the currency of its prices."""
        with reading(self._db) as session:
            return queries.cost_of(session, name)

    def engine(self, arm: Arm) -> Engine:
        """The engine that asks this arm's server; ready or not. Raises BadInput."""
        from ft.engine_remote import RemoteEngine
        from ft.remote import Server

        with self._lock:
            if arm.settings_hash not in self._engines:
                server = Server(arm.remote["url"], arm.remote["key_env"])
                self._engines[arm.settings_hash] = RemoteEngine(server, arm.remote["model"])
            return self._engines[arm.settings_hash]

    def close(self) -> None:
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()


def remote_answer(prompt: Prompt, arm: Arm, event: Done) -> Answer:
    """As it is stored: no fingerprint, since nobody here can say which weights answered; its cost instead."""
    assert prompt.id is not None
    assert arm.id is not None
    decode = DecodeSpec.from_dict(arm.decode)
    return Answer(
        arm_id=arm.id, prompt_id=prompt.id, text=event.text.strip(), prompt_tokens=event.prompt_tokens, new_tokens=event.new_tokens,
        finish=event.finish, seconds=event.seconds, decode_hash=decode.hash, seed=decode.seed, cost=price(arm.remote, event),
        engine={"server": arm.remote["url"], "model": arm.remote["model"]},
    )  # fmt: skip


def price(remote: dict[str, Any], event: Done) -> float:
    """Of one answer, by the tokens the server counted."""
    return float((event.prompt_tokens * remote["price_in"] + event.new_tokens * remote["price_out"]) / MILLION)
