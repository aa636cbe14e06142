"""The engine in this process: transformers and peft, one inference thread, all users' rows in one mixed batch.

Only the inference thread touches model and tokenizer; everybody else hands in calls and commands. Each turn it does waiting commands
(load, unload), lets waiting rows join, and takes one step; so nobody waits for another's answer to end. Importing this file imports no
torch. Must not know reviewers, screens or the database.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ft.engine import BASE, Delta, Done, Failed, Identity, Request, Status
from ft.errors import BadInput, Unavailable, UserError
from ft.streams import Events, EventStream

if TYPE_CHECKING:
    from ft.decoding import Batch, Row
    from ft.models import LoadedBase
    from ft.residents import Residents

log = logging.getLogger(__name__)
MAX_ROWS = {"cpu": 16, "mps": 16, "cuda": 64}
CACHE_BYTES = {"cpu": 2 * 2**30, "mps": 2 * 2**30}  # for keys and values; on CUDA a share of what is free
CUDA_SHARE = 0.6
FAILED = "The model failed on this batch (see the app's log). Try again."
NO_MEMORY = "The model ran out of memory. Shorten the prompt, or try again when fewer answers are being written."
STOPPED = "The engine is stopped. Start the app again."
BROKEN = "The base model is no longer as it was loaded, so it does not answer any more. Restart the app, and do not trust answers since {}."


@dataclass(eq=False, slots=True)
class _Call:
    """One `generate`: `fresh` requests are not encoded yet, `waiting` rows are; `events` is where events go."""

    background: bool
    fresh: list[Request] = field(default_factory=list)
    waiting: list["Row"] = field(default_factory=list)
    events: Events = field(default_factory=SimpleQueue)
    cancelled: bool = False

    def requests(self) -> list[Request]:
        return [*self.fresh, *(row.request for row in self.waiting)]

    def put(self, event: Delta | Done | Failed) -> None:
        if not self.cancelled:
            self.events.put(event)


@dataclass(eq=False, slots=True)
class _Command:
    """Something for the inference thread to do between steps. `ready` says whether it may be done yet."""

    act: Callable[[], None]
    ready: Callable[[], bool]
    result: Future[None] = field(default_factory=Future)


class LocalEngine:
    """Loads `base` in its own thread from the start. `bases` is the folder for fetched and converted bases."""

    def __init__(self, base: str, bases: Path, quantisation: str = "none", device: str = "auto", dtype: str = "auto") -> None:
        self._settings = (base, bases, quantisation, device, dtype)
        self._status = Status("loading", "Starting", 0.0)
        self._lock = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._commands: deque[_Command] = deque()
        self._known: dict[str, str] = {}  # adapters as others may see them: name -> content hash
        self._leaving: set[str] = set()
        self._closed = False
        self._identity: Identity | None = None
        self._residents: Residents
        self._base: LoadedBase
        self._batches: dict[str, Batch] = {}
        self._max_rows, self._max_tokens = 1, 1
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

        facts, weights = self._residents.read(folder)  # here and not on the inference thread, which others wait for

        def act() -> None:
            try:
                self._residents.load(name, facts, weights)
            finally:
                self._publish()

        self._do(_Command(act, ready=lambda: name not in self._leaving))

    def unload(self, name: str) -> None:
        if self._status.state != "ready":
            return
        with self._lock:
            if name not in self._known:
                return
            self._leaving.add(name)

        def act() -> None:
            try:
                self._residents.unload(name)
            finally:
                self._publish(gone=name)

        self._do(_Command(act, ready=lambda: not self._in_use(name)))

    def generate(self, requests: Sequence[Request]) -> EventStream:
        if len({request.id for request in requests}) != len(requests):
            raise ValueError("two requests of one call have the same id")
        call = _Call(background=all(request.background for request in requests))
        with self._lock:
            for request in requests:
                if problem := self._problem(request):
                    call.put(Failed(request.id, problem))
                else:
                    call.fresh.append(request)
            if call.fresh:
                self._calls.append(call)
                self._lock.notify_all()
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

    def _in_use(self, name: str) -> bool:
        waiting = any(request.adapter == name for call in self._calls for request in call.requests())
        return waiting or any(row.request.adapter == name for row in self._rows())

    def _rows(self) -> Iterator["Row"]:
        for batch in self._batches.values():
            yield from batch.rows

    def _cancel(self, call: _Call) -> None:
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

            with torch.no_grad():
                self._serve()
        self._end_all(STOPPED if self._status.state == "ready" else self._status.message)
        if self._status.state == "ready":
            self._say(0.0, STOPPED, "failed")

    def _load_base(self) -> None:
        from ft.models import load

        base, bases, quantisation, device, dtype = self._settings
        self._base = load(base, bases, quantisation, device, dtype, lambda share, words: self._say(0.9 * share, words))
        self._say(0.92, "Trying the model out")
        import peft  # noqa: F401  # slow: now, not when the first adapter is loaded while people wait

        from ft.residents import Residents
        from ft.template import describe, template_hash

        self._residents = Residents(self._base)
        loaded = self._base
        self._max_rows, self._max_tokens = MAX_ROWS[loaded.device], _cache_tokens(loaded)
        reasons = loaded.reasons | {
            "template": describe(loaded.tokenizer),
            "rows": f"at most {self._max_rows} answers at once, together {self._max_tokens} tokens",
        }
        self._identity = Identity(
            base, loaded.shape.base_hash, template_hash(loaded.tokenizer), loaded.device, loaded.dtype, loaded.quantisation,
            loaded.context_length, reasons,
        )  # fmt: skip
        self._say(1.0, "Ready", "ready")

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(self._has_work)
                if self._closed:
                    return
            try:
                self._turn()
            except Exception:
                log.exception("a turn of the inference thread failed")
                self._fail_everything(FAILED)
            if self._status.state != "ready":
                return

    def _turn(self) -> None:
        self._drop_cancelled()
        self._do_commands()
        if self._status.state != "ready":
            return
        self._admit()
        for batch in [batch for batch in self._batches.values() if batch.rows]:
            self._guarded(batch.rows, lambda batch=batch: self._step(batch))  # type: ignore[misc]

    def _has_work(self) -> bool:
        ready = any(command.ready() for command in self._commands)
        return self._closed or ready or bool(self._calls) or any(batch.rows for batch in self._batches.values())

    def _do_commands(self) -> None:
        """Those that may be done now; the others wait for their rows to end."""
        with self._lock:
            ready = [command for command in self._commands if command.ready()]
            for command in ready:
                self._commands.remove(command)
        for command in ready:
            error = self._outcome(command.act)
            if error:
                command.result.set_exception(error)
            else:
                command.result.set_result(None)

    def _outcome(self, act: Callable[[], None]) -> BaseException | None:
        """Do what ends with a look at the base. A base that is not as it was stops the engine."""
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
        self._checked_at = time.time()
        return None

    def _admit(self) -> None:
        """Let waiting calls join, people before background work, a call's rows together as far as there is room."""
        while True:
            with self._lock:
                calls = sorted(self._calls, key=lambda call: call.background)  # stable: in order of arrival within each kind
                call = calls[0] if calls else None
            if call is None:
                return
            self._encode(call)
            rows = self._that_fit(call)
            if not rows and call.waiting:
                return
            with self._lock:
                del call.waiting[: len(rows)]
                if not call.waiting:
                    self._calls.remove(call)
            self._join(rows)

    def _encode(self, call: _Call) -> None:
        made = [self._row(request, call) for request in call.fresh]
        with self._lock:
            call.fresh.clear()
            call.waiting += [row for row in made if not isinstance(row, Failed)]
        for failed in made:
            if isinstance(failed, Failed):
                call.put(failed)

    def _that_fit(self, call: _Call) -> list["Row"]:
        """The call's rows that join now: all of them, or as many as a batch can hold; none while others take the room."""
        active = list(self._rows())
        most = max(self._max_rows // 2, 1) if call.background else self._max_rows  # background work leaves places for people
        rows = call.waiting[:most]
        taken = sum(row.owner.background for row in active) if call.background else 0
        if len(rows) > min(most - taken, self._max_rows - len(active)):
            return []
        while len(rows) > 1 and not active and self._batch("").tokens_with(rows) > self._max_tokens:
            rows = rows[: len(rows) // 2]
        if active and self._batch("").tokens_with(rows) > self._max_tokens:
            return []
        return rows

    def _join(self, rows: Sequence["Row"]) -> None:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            row.begun = time.monotonic()
            alone = self._residents.runs_alone(row.request.adapter)
            groups.setdefault(row.request.adapter if alone else "", []).append(row)
        for key, group in groups.items():
            batch = self._batch(key)
            self._guarded(group, lambda batch=batch, group=group: batch.add(group))  # type: ignore[misc]

    def _row(self, request: Request, call: _Call) -> "Row | Failed":
        from ft.decoding import Row
        from ft.template import encode

        try:
            prompt = encode(self._base.tokenizer, request.messages)
        except UserError as error:
            return Failed(request.id, str(error))
        except Exception:
            log.exception("a prompt could not be encoded")
            return Failed(request.id, "The prompt could not be read by the model's tokenizer. Remove unusual characters and try again.")
        context = min(self._base.context_length, self._max_tokens)
        if len(prompt) >= context:
            return Failed(request.id, f"The prompt has {len(prompt)} tokens; this model reads at most {context}. Shorten it.")
        return Row(request, prompt, min(request.decode.max_new_tokens, context - len(prompt)), call)

    def _batch(self, key: str) -> "Batch":
        """The mixed batch (""), or the one of a DoRA adapter, which cannot be mixed but takes its steps in turn with it."""
        from ft.decoding import Batch

        for other in [other for other, batch in self._batches.items() if other not in ("", key) and not batch.rows]:
            del self._batches[other]
        if key not in self._batches:
            self._batches[key] = Batch(self._base, self._residents.forward)
        return self._batches[key]

    def _step(self, batch: "Batch") -> None:
        stepped = batch.step()
        for row, text in stepped:
            row.owner.put(Delta(row.request.id, text))
        for row, _ in stepped:
            if row.finish:
                seconds = time.monotonic() - row.begun
                row.owner.put(
                    Done(row.request.id, row.text, row.request.adapter, len(row.prompt), len(row.tokens), row.finish, seconds)
                )

    def _guarded(self, rows: Sequence["Row"], act: Callable[[], None]) -> None:
        """Do it; an exception fails these rows and whatever shares their batch, never the thread."""
        import torch

        concerned = list(rows)
        try:
            act()
        except torch.OutOfMemoryError:
            log.exception("a batch ran out of memory")
            self._fail(concerned, NO_MEMORY)
        except Exception:
            log.exception("a batch failed")
            self._fail(concerned, FAILED)
            error = self._outcome(self._residents.check_base)
            if error is not None and self._status.state == "ready":
                log.error("the base model cannot be tried out after the failure: %s", error)
                self._say(0.0, "The model does not compute any more (see the app's log). Restart the app.", "failed")

    def _fail(self, concerned: Sequence["Row"], words: str) -> None:
        rows = list(concerned)
        for batch in self._batches.values():
            if any(row in rows for row in batch.rows):
                rows += [row for row in batch.rows if row not in rows]
                batch.clear()
        for row in rows:
            row.owner.put(Failed(row.request.id, words))

    def _fail_everything(self, words: str) -> None:
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
        for call in calls:
            for request in call.requests():
                call.put(Failed(request.id, words))
        self._fail(list(self._rows()), words)

    def _drop_cancelled(self) -> None:
        with self._lock:
            for call in [call for call in self._calls if call.cancelled]:
                self._calls.remove(call)
        for batch in self._batches.values():
            batch.keep([row for row in batch.rows if not row.owner.cancelled])

    def _end_all(self, words: str) -> None:
        with self._lock:
            self._closed = True
            commands = list(self._commands)
            self._commands.clear()
        self._fail_everything(words)
        for command in commands:
            command.result.set_exception(Unavailable(words))


def _cache_tokens(base: "LoadedBase") -> int:
    """How many tokens' keys and values fit the memory set aside for them."""
    import torch

    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * size * torch.finfo(getattr(torch, base.dtype)).bits // 8
    room = CACHE_BYTES.get(base.device) or int(torch.cuda.mem_get_info()[0] * CUDA_SHARE)
    return max(room // each, 1024)
