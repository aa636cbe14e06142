"""The engine on another machine: a server of the OpenAI protocol, such as vLLM with `--enable-lora`, behind the same contract.

Rows of one call advance in step, as far as pieces of text can: each row's next piece is waited for. Adapters are vetted here, then
loaded by vLLM's routes. Light. Must not know reviewers, screens or the database.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ft.adapters import vet
from ft.bases import BaseShape
from ft.engine import BASE, Activity, Check, Delta, Done, Event, Failed, Identity, Request, Status
from ft.errors import BadInput, Conflict, NotFound, Refused, Unavailable, UserError
from ft.remote import Leave, Remote, Server
from ft.remote_check import base_check, pair_check
from ft.specs import digest
from ft.sse import Ending
from ft.streams import Events, EventStream
from ft.template import with_system

STOPPED = "The engine is stopped. Start the app again."
ASSUMED_CONTEXT = 8192
PATIENCE = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between looks at a server that does not answer yet


@dataclass(eq=False)
class _Line:
    """One row: its conversation runs on a thread of its own, its pieces wait here to be told in step."""

    request: Request
    leave: Leave = field(default_factory=Leave)
    items: "queue.SimpleQueue[str | Ending | UserError]" = field(default_factory=queue.SimpleQueue)
    text: str = ""
    pieces: int = 0
    begun: float = field(default_factory=time.monotonic)


class RemoteEngine:
    """`model` "": the first the server lists. `adapter_path`: where it finds an adapter, {path}, {folder} or {name} filled in."""

    def __init__(self, server: Server, model: str = "", adapter_path: str = "{path}", shape: BaseShape | None = None) -> None:
        self._remote, self._model, self._adapter_path, self._shape = Remote(server), model, adapter_path, shape
        self._status = Status("loading", "Waiting for the server", 0.0)
        self._changed = threading.Condition()
        self._adapters: dict[str, str] = {}
        self._running: dict[str, int] = {}  # rows under way, by adapter
        self._identity: Identity | None = None
        self._first_answers: dict[str, str] = {}  # of the base, to the questions of its check
        self._closed = threading.Event()
        self._loading = threading.Lock()  # one adapter at a time comes or goes
        self._open_lines: set[_Line] = set()
        threading.Thread(target=self._find, name="find-server", daemon=True).start()

    def status(self) -> Status:
        return self._status

    def wait_ready(self, timeout: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "loading", timeout)
            status = self._status
        if status.state != "ready":
            raise Unavailable(f"{status.message} Try again in a moment." if status.state == "loading" else status.message)

    def activity(self) -> Activity:
        return Activity(running=sum(self._running.values()))

    def identity(self) -> Identity:
        self.wait_ready(0)
        assert self._identity is not None
        return self._identity

    def adapters(self) -> dict[str, str]:
        with self._changed:
            return dict(self._adapters)

    def load(self, name: str, folder: Path) -> None:
        self.wait_ready()
        if name == BASE or not name:
            raise BadInput("An adapter cannot have that name. Choose another.")
        verdict = vet(folder, self._shape)
        if verdict.adapter is None:
            raise BadInput(" ".join(verdict.reasons))
        known = self.adapters().get(name)
        if known == verdict.adapter.content_hash:
            return
        if known:
            raise Conflict(f"Another adapter named {name} is in memory. Unload it first, or give this one another name.")
        path = self._adapter_path.format(path=folder, folder=folder.name, name=name)
        with self._loading:
            self._tell("/load_lora_adapter", {"lora_name": name, "lora_path": path})
            with self._changed:
                self._adapters[name] = verdict.adapter.content_hash
        try:
            found = pair_check(self, name)
        except UserError:
            self.unload(name)
            raise
        if not found.ok:
            self.unload(name)
            raise Unavailable(found.words)

    def unload(self, name: str) -> None:
        with self._changed:
            if self._adapters.pop(name, None) is None:
                return
            self._changed.wait_for(lambda: not self._running.get(name) or self._closed.is_set())
        with self._loading, suppress(NotFound):  # the server was started again meanwhile
            if name not in self.adapters():  # else it is wanted again, and stays
                self._tell("/unload_lora_adapter", {"lora_name": name})

    def check(self, name: str = BASE) -> Check:
        self.wait_ready(0)
        if name == BASE:
            return base_check(self, self._first_answers)
        if name not in self.adapters():
            raise Unavailable("That adapter is not in memory. Load it and try again.")
        return pair_check(self, name)

    def generate(self, requests: Sequence[Request]) -> EventStream:
        events: Events = queue.SimpleQueue()
        lines = []
        for request in requests:
            if failed := self._problem(request):
                events.put(failed)
            else:
                lines.append(_Line(request))
        with self._changed:
            for line in lines:
                self._running[line.request.adapter] = self._running.get(line.request.adapter, 0) + 1
            self._open_lines.update(lines)
        for line in lines:
            threading.Thread(target=self._converse, args=(line,), name="remote-answer", daemon=True).start()
        if lines:
            threading.Thread(target=lambda: self._tell_in_step(lines, events), name="remote-call", daemon=True).start()

        def cancel() -> None:
            for line in lines:
                line.leave.now()

        return EventStream([request.id for request in requests], events, cancel)

    def close(self) -> None:
        self._closed.set()
        with self._changed:
            self._status = Status("failed", STOPPED)
            lines = list(self._open_lines)
            self._changed.notify_all()
        for line in lines:
            line.leave.now()
        self._remote.close()

    def _problem(self, request: Request) -> Failed | None:
        if self._status.state != "ready":
            return Failed(request.id, self._status.message)
        if request.adapter != BASE and request.adapter not in self.adapters():
            return Failed(request.id, f"The adapter {request.adapter} is not in memory. Load it and try again.")
        if not request.messages or request.messages[-1].role != "user" or not request.messages[-1].content.strip():
            return Failed(request.id, "The prompt is empty. Write a question first.", "request")
        if problems := request.decode.problems():
            return Failed(request.id, " ".join(problems), "request")
        return None

    def _converse(self, line: _Line) -> None:
        """On the row's own thread."""
        model = self._model if line.request.adapter == BASE else line.request.adapter
        try:
            for piece in self._remote.answer(model, with_system(line.request.messages), line.request.decode, line.leave):
                line.items.put(piece)
        except UserError as error:
            if isinstance(error, NotFound):
                self._forget(line.request.adapter)
            line.items.put(error)
        except Exception as error:
            line.items.put(Unavailable(f"The server's answer could not be read ({type(error).__name__}). Try again."))
        finally:
            with self._changed:
                self._running[line.request.adapter] -= 1
                self._open_lines.discard(line)
                self._changed.notify_all()
            line.items.put(Unavailable(STOPPED if self._closed.is_set() else "The answer was stopped. Ask again."))

    def _forget(self, adapter: str) -> None:
        """A server that was started again has lost its adapters: whoever wants this one loads it anew."""
        with self._changed:
            self._adapters.pop(adapter, None)

    def _tell_in_step(self, lines: list[_Line], events: Events) -> None:
        """On the call's own thread: one piece of each row, then the next of each."""
        live = list(lines)
        while live:
            for line in list(live):
                for event in self._next(line):
                    events.put(event)
                    if not isinstance(event, Delta):
                        live.remove(line)

    def _next(self, line: _Line) -> Iterator[Event]:
        item = line.items.get()
        name = line.request.id
        if isinstance(item, str):
            line.text, line.pieces = line.text + item, line.pieces + 1
            yield Delta(name, item)
        elif isinstance(item, Ending):
            seconds = time.monotonic() - line.begun
            yield Done(name, line.text, line.request.adapter, item.prompt_tokens, item.new_tokens, item.finish, seconds)
        else:
            yield Failed(name, str(item), "request" if isinstance(item, BadInput) else "engine")

    def _tell(self, path: str, body: dict[str, Any]) -> None:
        try:
            self._remote.post(path, body)
        except BadInput as error:
            if "already been loaded" not in str(error):  # vLLM's words; the name stands for the content, so it is the same adapter
                raise
        except NotFound as error:
            if path.startswith("/unload"):
                raise
            words = "The server loads no adapters at run time. Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            raise Unavailable(f"{words} It says: {error}") from error

    def _find(self) -> None:
        """Until the server answers: which model it serves, and how long a prompt may be."""
        attempt = 0
        try:
            self._remote.server.key()
        except UserError as error:
            self._say("failed", str(error))
        while self._status.state == "loading" and not self._closed.is_set():
            try:
                self._ready(self._remote.models())
                return
            except NotFound:
                self._ready([])  # a server without a list
                return
            except Refused as error:
                self._say("failed", str(error))
                return
            except UserError as error:
                self._say("loading", str(error))
            self._closed.wait(PATIENCE[min(attempt, len(PATIENCE) - 1)])
            attempt += 1

    def _say(self, state: Literal["loading", "failed"], words: str) -> None:
        with self._changed:
            if not self._closed.is_set():
                self._status = Status(state, words)
            self._changed.notify_all()

    def _ready(self, models: list[dict[str, Any]]) -> None:
        """A named model may be missing from the list, since not every server lists all it serves; its first request tells."""
        chosen = [each for each in models if each.get("id") == self._model] or [each for each in models if not each.get("parent")]
        if not self._model and not chosen:
            self._say("failed", "The server lists no model. Set TIEBREAK_REMOTE_MODEL to the name of the one to ask.")
            return
        named = not self._model or (bool(chosen) and chosen[0].get("id") == self._model)
        with self._changed:
            if self._closed.is_set():
                return
            self._model = self._model or str(chosen[0].get("id"))
            self._identity = _identity(self._model, chosen[0] if named else {})
            self._status = Status("ready", f"{self._model} on a remote server.", 1.0)
            self._changed.notify_all()


def _identity(model: str, told: dict[str, Any]) -> Identity:
    context = told.get("max_model_len")
    known = isinstance(context, int) and context > 0
    reasons = {
        "device": "the server's own matter",
        "context": "as the server says" if known else f"the server does not say; {ASSUMED_CONTEXT} tokens are assumed",
    }
    length = context if isinstance(context, int) and known else ASSUMED_CONTEXT
    base_hash = digest(["remote", model, str(told.get("root") or model)])
    return Identity(model, base_hash, digest(["remote template", model]), "remote", "remote", "remote", length, reasons)
