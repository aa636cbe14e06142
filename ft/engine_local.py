"""The engine in this process: transformers, one inference thread, all users' rows in one mixed batch.

Only the inference thread touches model and tokenizer; everybody else hands in calls and commands. Each turn it does waiting commands
(load, unload) in small pieces, lets waiting rows join, and takes one step; so nobody waits for another's answer to end. Importing this
file imports no torch. Must not know reviewers, screens or the database.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ft.engine import BASE, Activity, Check, Failed, Identity, Request, Status
from ft.errors import BadInput, Unavailable, UserError
from ft.memory import give_back
from ft.streams import Call, EventStream

if TYPE_CHECKING:
    from ft.gathering import Gathering
    from ft.pace import Crew
    from ft.residents import Residents

log = logging.getLogger(__name__)
Pieces = Generator[None, None, None]
Found = TypeVar("Found")
PATIENCE = 1.0  # seconds that each piece of a command lets people go first
STOPPED = "The engine is stopped. Start the app again."
ENDED = "The engine has stopped after a fault (see the app's log). Start the app again."
BROKEN = "The base model is no longer as it was loaded, so it does not answer any more. Restart the app, and do not trust answers since {}."


@dataclass(eq=False, slots=True)
class _Command:
    """Something for the inference thread to do between steps, a piece at a time. `ready` says whether it may be begun yet."""

    act: Callable[[], Pieces]
    ready: Callable[[], bool]
    result: Future[None] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)  # it was asked for, or its last piece was done
    pieces: Pieces | None = None  # once begun


class LocalEngine:
    """Loads `base` in its own thread from the start. `bases` is the folder for fetched and converted bases."""

    def __init__(self, base: str, bases: Path, quantisation: str = "none", device: str = "auto", dtype: str = "auto") -> None:
        self._settings = (base, bases, quantisation, device, dtype)
        self._status = Status("loading", "Starting", 0.0)
        self._lock = threading.Condition()
        self._commands: deque[_Command] = deque()
        self._known: dict[str, str] = {}  # adapters as others may see them: name -> content hash
        self._leaving: set[str] = set()
        self._closed = False
        self._identity: Identity | None = None
        self._residents: Residents
        self._gathering: Gathering
        self._crew: Crew | None
        self._checked_at = time.time()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    # What any thread may call

    def status(self) -> Status:
        return self._status

    def wait_ready(self, timeout: float | None = None) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._status.state != "loading", timeout)
            status = self._status
        if status.state == "loading":
            raise Unavailable(f"The model is still loading ({status.share:.0%}: {status.message}). Try again in a moment.")
        if status.state == "failed":
            raise Unavailable(status.message)

    def activity(self) -> Activity:
        return self._gathering.activity() if self._identity else Activity()

    def identity(self) -> Identity:
        self.wait_ready(0)
        assert self._identity is not None
        return self._identity

    def adapters(self) -> dict[str, str]:
        with self._lock:
            return {name: content for name, content in self._known.items() if name not in self._leaving}

    def load(self, name: str, folder: Path) -> None:
        self.wait_ready()
        if not name or name == BASE:
            raise BadInput("An adapter cannot have that name. Choose another.")

        facts, adapter = _on_a_thread_that_ends(lambda: self._residents.read(folder))  # and not on the one that others wait for
        with self._lock:
            if name in self._leaving and self._known.get(name) == facts.content_hash:
                self._leaving.discard(name)  # it is wanted again before its rows had ended, so it stays
                return

        def act() -> Pieces:
            try:
                yield from self._residents.loading(name, facts, adapter)
            finally:
                self._publish()

        self._do(_Command(act, ready=lambda: name not in self._leaving))
        give_back()  # the file's bytes and the copies that reading made

    def unload(self, name: str) -> None:
        if self._status.state != "ready":
            return
        with self._lock:
            if name not in self._known:
                return
            self._leaving.add(name)

        def act() -> Pieces:
            with self._lock:
                if name not in self._leaving:
                    return
                self._known.pop(name, None)
            try:
                yield from self._residents.unloading(name)
            finally:
                self._publish(gone=name)

        self._do(_Command(act, ready=lambda: name not in self._leaving or not self._gathering.uses(name)))

    def check(self, name: str = BASE) -> Check:
        if self._status.state == "failed" and self._identity is not None and self._status.message != STOPPED:
            return Check("base", False, self._status.message)
        self.wait_ready(0)
        found: list[Check] = []

        def act() -> Pieces:
            found.append(self._residents.check(name))
            yield

        try:
            self._do(_Command(act, ready=lambda: True))
        except Unavailable:
            if self._status.state == "ready":  # the adapter is not in memory; a base that has changed stops the engine
                raise
        return found[0] if found else Check("base", False, self._status.message)

    def generate(self, requests: Sequence[Request]) -> EventStream:
        if len({request.id for request in requests}) != len(requests):
            raise ValueError("two requests of one call have the same id")
        call = Call(background=all(request.background for request in requests))
        with self._lock:
            for request in requests:
                if problem := self._problem(request):
                    call.put(Failed(request.id, problem))
                else:
                    call.fresh.append(request)
            if call.fresh:
                self._gathering.add(call)
        return EventStream([request.id for request in requests], call.events, lambda: self._cancel(call))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(30 if self._status.state == "ready" else 2)

    # Bookkeeping, under the lock

    def _problem(self, request: Request) -> str:
        if self._status.state == "failed":
            return self._status.message
        if self._closed:
            return STOPPED
        if self._status.state == "loading":
            return f"The model is still loading ({self._status.share:.0%}). Try again in a moment."
        if request.adapter != BASE and (request.adapter not in self._known or request.adapter in self._leaving):
            return f"The adapter {request.adapter} is not in memory. Load it and try again."
        return " ".join(request.decode.problems())

    def _cancel(self, call: Call) -> None:
        with self._lock:
            call.cancelled = True
            self._lock.notify_all()

    def _publish(self, gone: str = "") -> None:
        with self._lock:
            self._known = self._residents.hashes()
            self._leaving.discard(gone)

    def _do(self, command: _Command) -> None:
        """Have the inference thread do it and wait for the outcome."""
        with self._lock:
            if self._closed or self._status.state != "ready":
                raise Unavailable(STOPPED if self._closed else self._status.message)
            self._commands.append(command)
            self._lock.notify_all()
        command.result.result()

    def _say(self, share: float, message: str, state: Any = "loading") -> None:
        with self._lock:
            self._status = Status(state, message, share)
            self._lock.notify_all()

    # The inference thread

    def _run(self) -> None:
        try:
            self._load_base()
        except UserError as error:
            self._say(0.0, str(error), "failed")
        except BaseException as error:
            log.exception("the base model could not be loaded")
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(0.0, f"The base model could not be loaded ({reason}). Check TIEBREAK_BASE and the free memory.", "failed")
        else:
            import torch

            from ft.kernels import THREADS

            try:
                with torch.no_grad():
                    self._serve()
            except BaseException:
                log.exception("the inference thread ended")
                self._say(0.0, ENDED, "failed")
            torch.set_num_threads(THREADS)  # threads that begin later start with as many as were set last
        self._end_all(STOPPED if self._status.state == "ready" else self._status.message)
        if self._status.state == "ready":
            self._say(0.0, STOPPED, "failed")

    def _load_base(self) -> None:
        from ft.kernels import THREADS
        from ft.models import load
        from ft.pace import Crew

        base, bases, quantisation, device, dtype = self._settings
        loaded = load(base, bases, quantisation, device, dtype, lambda share, words: self._say(0.9 * share, words))
        self._say(0.92, "Trying the model out")
        from ft.gathering import Gathering
        from ft.residents import Residents
        from ft.template import describe, template_hash

        self._residents = Residents(loaded, bases)
        self._gathering = Gathering(loaded, self._residents, self._lock, self._look_at_base)
        self._crew = Crew(THREADS) if loaded.device == "cpu" else None
        reasons = loaded.reasons | {
            "template": describe(loaded.tokenizer),
            "mixed batch": _exactness(loaded),
            "rows": f"at most {self._gathering.max_rows} answers at once, together {self._gathering.max_tokens} tokens",
        }
        self._identity = Identity(
            base, loaded.shape.base_hash, template_hash(loaded.tokenizer), loaded.device, loaded.dtype, loaded.quantisation,
            loaded.context_length, reasons, self._residents.kernel,
        )  # fmt: skip
        self._say(1.0, "Ready", "ready")

    def _serve(self) -> None:
        import torch

        while True:
            with self._lock:
                self._lock.wait_for(self._has_work)
                if self._closed:
                    return
            wall, own = time.perf_counter(), time.thread_time()
            try:
                self._do_commands()
                if self._status.state == "ready":
                    self._gathering.turn()
                if self._crew and self._crew.worked(time.perf_counter() - wall, time.thread_time() - own):
                    torch.set_num_threads(self._crew.threads)
            except Exception:
                log.exception("a turn of the inference thread failed")
                self._gathering.fail_everything()
            if self._status.state != "ready":
                return

    def _has_work(self) -> bool:
        return self._closed or self._gathering.has_work() or self._next_command() is not None

    def _next_command(self) -> _Command | None:
        """The one that was begun, else the first that may be begun now; the others wait for their rows to end."""
        begun = next((command for command in self._commands if command.pieces), None)
        return begun or next((command for command in self._commands if command.ready()), None)

    def _do_commands(self) -> None:
        """One piece of one command, which lets people who wait for a first word go first for a while."""
        with self._lock:
            command = self._next_command()
        if command is None or (self._gathering.someone_waits() and time.monotonic() - command.since < PATIENCE):
            return
        error, over = self._advance(command)
        command.since = time.monotonic()
        if error is None and not over:
            return
        with self._lock:
            self._commands.remove(command)
        if error:
            command.result.set_exception(error)
        else:
            command.result.set_result(None)

    def _advance(self, command: _Command) -> tuple[BaseException | None, bool]:
        """Do a piece: what went wrong, and whether it was the last."""
        command.pieces = command.pieces or command.act()
        over = object()
        found: list[object] = []
        error = self._outcome(lambda: found.append(next(command.pieces, over)))  # type: ignore[arg-type, call-overload]
        if error is None and found == [over]:
            self._checked_at = time.time()
        return error, found == [over]

    def _outcome(self, act: Callable[[], None]) -> BaseException | None:
        """What went wrong. A base that is not as it was stops the engine."""
        from ft.residents import BaseChanged

        try:
            act()
        except BaseChanged:
            words = BROKEN.format(time.strftime("%H:%M:%S UTC", time.gmtime(self._checked_at)))
            log.critical("the base model's fingerprint changed")
            self._say(0.0, words, "failed")
            return Unavailable(words)
        except BaseException as error:
            return error
        return None

    def _look_at_base(self) -> None:
        """After a failure: a model that cannot be tried out any more, or is not as it was, stops the engine."""
        error = self._outcome(self._residents.check_base)
        if error is None:
            self._checked_at = time.time()
        elif self._status.state == "ready":
            log.error("the base model cannot be tried out after the failure: %s", error)
            self._say(0.0, "The model does not compute any more (see the app's log). Restart the app.", "failed")

    def _end_all(self, words: str) -> None:
        with self._lock:
            self._closed = True
            commands = list(self._commands)
            self._commands.clear()
        for command in commands:
            if command.pieces:
                command.pieces.close()  # what was half loaded is forgotten
            command.result.set_exception(Unavailable(words))
        if self._identity is not None:
            self._gathering.fail_everything(words)


def _on_a_thread_that_ends(act: Callable[[], Found]) -> Found:
    """Each thread that computes with torch keeps helpers for as long as it lives.

    With more of them than processors none waits awake for its next product (libgomp), and each step takes up to twice as long.
    """
    with ThreadPoolExecutor(1, "reading") as threads:
        return threads.submit(act).result()


def _exactness(loaded: Any) -> str:
    """Whether a row says in a mixed batch what it says alone."""
    if loaded.dtype == "float32" and loaded.quantisation == "none":
        return "exact: greedy answers are the same alone and beside others (float32; logits agree to five digits)"
    return f"rounded: {loaded.dtype} rounds differently beside others, so a greedy answer may differ from the same one alone"
