"""An engine without weights: answers come from a function or a table. It ships in the product, for trying screens and for tests.

It keeps the whole contract of `ft.engine.Engine`: rows advance in step, adapters are vetted, a name is never overwritten. Must not know
torch, reviewers or the database.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ft.adapters import vet
from ft.bases import BaseShape
from ft.engine import BASE, Activity, Check, Delta, Done, Event, Failed, Identity, Request, Status
from ft.errors import BadInput, Conflict, Unavailable
from ft.specs import digest
from ft.template import DEFAULT_SYSTEM, VERSION

Answers = Callable[[Request], str] | Mapping[str, str]
CONTEXT = 8192
_OPENINGS = ("Thanks for writing to us.", "I am glad to help.", "Sorry for the trouble.", "Good question.")
_MIDDLES = (
    "Please open the settings page and look at the entry you mention.",
    "Restarting the program once usually settles this.",
    "This needs a look at your account, which takes a minute.",
    "The steps are short: open the menu, choose the entry, confirm.",
)
_ENDINGS = ("Tell us if it stays as it is.", "Write back with the exact message if it returns.", "We are here if you need more.")


def everyday_answer(request: Request) -> str:
    """A support answer picked by the prompt and the adapter: always the same for the same request, and naming neither."""
    seed = hashlib.sha256(repr((request.adapter, request.messages)).encode("utf-8", "replace")).digest()
    return " ".join(choices[seed[index] % len(choices)] for index, choices in enumerate((_OPENINGS, _MIDDLES, _ENDINGS)))


@dataclass(slots=True)
class _Row:
    request: Request
    pieces: list[str]
    prompt_tokens: int
    limit: int


class ScriptedEngine:
    """`answers` maps a request to its text: a function, or a table by the last user text. `delay` is seconds a step."""

    def __init__(self, answers: Answers = everyday_answer, *, delay: float = 0.0, shape: BaseShape | None = None) -> None:
        self._answers, self._delay, self._shape = answers, delay, shape
        self._adapters: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._running = 0

    def status(self) -> Status:
        if self._closed:
            return Status("failed", "The engine is stopped. Start the app again.")
        return Status("ready", "Scripted answers, no model.", 1.0)

    def wait_ready(self, timeout: float | None = None) -> None:
        if self._closed:
            raise Unavailable(self.status().message)

    def activity(self) -> Activity:
        return Activity(running=self._running)

    def identity(self) -> Identity:
        self.wait_ready()
        reasons = {"device": "none: answers are scripted"}
        return Identity("scripted", "scripted", digest([VERSION, DEFAULT_SYSTEM]), "none", "none", "none", CONTEXT, reasons)

    def adapters(self) -> dict[str, str]:
        with self._lock:
            return dict(self._adapters)

    def load(self, name: str, folder: Path) -> None:
        self.wait_ready()
        if name == BASE or not name:
            raise BadInput("An adapter cannot have that name. Choose another.")
        verdict = vet(folder, self._shape)
        if verdict.adapter is None:
            raise BadInput(" ".join(verdict.reasons))
        with self._lock:
            if self._adapters.setdefault(name, verdict.adapter.content_hash) != verdict.adapter.content_hash:
                raise Conflict(f"Another adapter named {name} is in memory. Unload it first, or give this one another name.")

    def unload(self, name: str) -> None:
        with self._lock:
            self._adapters.pop(name, None)

    def check(self, name: str = BASE) -> Check:
        self.wait_ready()
        if name != BASE and name not in self.adapters():
            raise Unavailable("That adapter is not in memory. Load it and try again.")
        return Check("base" if name == BASE else "pair", True, "Scripted answers: there are no weights to look at.")

    def generate(self, requests: Sequence[Request]) -> Generator[Event, None, None]:
        prepared = [self._prepare(request) for request in requests]
        return self._play(prepared)

    def close(self) -> None:
        self._closed = True

    def _prepare(self, request: Request) -> _Row | Failed:
        problem = self._problem(request)
        if problem is not None:
            return problem
        try:
            text = self._answers(request) if callable(self._answers) else self._answers[request.messages[-1].content]
        except Exception as error:
            return Failed(request.id, f"The script has no answer here ({type(error).__name__}). Add one to its table.")
        pieces = re.findall(r"\s*\S+|\s+$", text)
        words = sum(len(message.content.split()) for message in request.messages)
        return _Row(request, pieces, words, request.decode.max_new_tokens)

    def _problem(self, request: Request) -> Failed | None:
        with self._lock:
            known = request.adapter == BASE or request.adapter in self._adapters
        if self._closed:
            return Failed(request.id, self.status().message)
        if not known:
            return Failed(request.id, f"The adapter {request.adapter} is not in memory. Load it and try again.")
        if not request.messages or request.messages[-1].role != "user" or not request.messages[-1].content.strip():
            return Failed(request.id, "The prompt is empty. Write a question first.", "request")
        words = sum(len(message.content.split()) for message in request.messages)
        if words >= CONTEXT:
            too_long = f"The prompt has {words} tokens; this model reads at most {CONTEXT}. Shorten it."
            return Failed(request.id, too_long, "request")
        return None

    def _play(self, prepared: Sequence[_Row | Failed]) -> Generator[Event, None, None]:
        live = [row for row in prepared if isinstance(row, _Row)]
        self._count(len(live))
        try:
            yield from (row for row in prepared if isinstance(row, Failed))
            yield from self._steps(live)
        finally:
            self._count(-len(live))

    def _count(self, rows: int) -> None:
        with self._lock:
            self._running += rows

    def _steps(self, live: list[_Row]) -> Generator[Event, None, None]:
        begun, step = time.monotonic(), 0
        while live:
            if self._closed:
                yield from (Failed(row.request.id, self.status().message) for row in live)
                return
            if self._delay:
                time.sleep(self._delay)
            yield from (Delta(row.request.id, row.pieces[step] if step < len(row.pieces) else "", row.prompt_tokens) for row in live)
            step += 1
            ended = [row for row in live if step >= min(len(row.pieces), row.limit)]
            for row in ended:
                yield _done(row, min(step, len(row.pieces)), time.monotonic() - begun)
            live = [row for row in live if row not in ended]


def _done(row: _Row, tokens: int, seconds: float) -> Done:
    text = "".join(row.pieces[:tokens])
    finish: Literal["stop", "length"] = "stop" if len(row.pieces) <= row.limit else "length"
    return Done(row.request.id, text, row.request.adapter, row.prompt_tokens, tokens, finish, seconds)
