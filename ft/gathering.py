"""Which rows are answered now: waiting calls join, take their steps together, end, fail or are dropped.

People who wait and background work are two batches that take turns: neither changes the other's pace but by its share of the time.

`add`, `cancel` and `uses` may be called on any thread, under the lock they share with the engine; everything else belongs to the
inference thread. Must not know how models and adapters are loaded, nor who asks.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from ft.decoding import Batch
from ft.engine import Activity, Delta, Done, Failed, Request
from ft.errors import UserError
from ft.models import LoadedBase
from ft.pace import MOST, Pace
from ft.residents import Residents
from ft.streams import Call
from ft.template import encode
from ft.writing import Row

log = logging.getLogger(__name__)
MAX_ROWS = {"cpu": 16, "mps": 16, "cuda": 64}  # of people
PIECE, ALONE = 0.15, 0.3  # seconds of reading prompts between two steps, for which others wait; when no person is in step
GROUP = 8  # background prompts read together
CACHE_BYTES = {"cpu": 2 * 2**30, "mps": 2 * 2**30}  # for keys and values; on CUDA a share of what is free
CUDA_SHARE = 0.6
WORK_SHARE = 0.5  # of the tokens kept for people, on top
PEOPLE, WORK = "people", "work"
FAILED = "The model failed on this batch (see the app's log). Try again."
NO_NUMBERS = "For this prompt the model computed no numbers. Ask otherwise; if it happens again, the adapter is broken: train it anew."
NO_MEMORY = "The model ran out of memory. Shorten the prompt, or try again when fewer answers are being written."


class Gathering:
    """`on_failure` is called after a batch failed for another reason than lack of memory."""

    def __init__(self, base: LoadedBase, residents: Residents, lock: threading.Condition, on_failure: Callable[[], None]) -> None:
        self._base, self._residents, self._lock, self._on_failure = base, residents, lock, on_failure
        self._calls: deque[Call] = deque()
        self._batches = {lane: Batch(base, residents.forward) for lane in (PEOPLE, WORK)}
        self.max_rows, self.max_tokens = MAX_ROWS[base.device], _cache_tokens(base)
        self.pace = Pace(MOST[base.device])
        self._work_read = False  # whether background work read prompts when it last had its turn

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            self._lock.notify_all()

    def has_work(self) -> bool:
        return bool(self._calls) or any(batch.everyone() for batch in self._batches.values())

    def uses(self, adapter: str) -> bool:
        """Whether a row, waiting or under way, is answered by this adapter."""
        waiting = any(request.adapter == adapter for call in self._calls for request in call.requests())
        return waiting or any(row.request.adapter == adapter for row in self.rows())

    def someone_waits(self) -> bool:
        """Whether a person has not seen a first word yet."""
        return bool(self._batches[PEOPLE].readings) or any(not call.background for call in self._calls)

    def activity(self) -> Activity:
        """May be called on any thread."""
        with self._lock:
            waiting = sum(len(call.requests()) for call in self._calls)
        return Activity(waiting, sum(len(batch.everyone()) for batch in self._batches.values()))

    def rows(self) -> Iterator[Row]:
        """Those under way."""
        for batch in self._batches.values():
            yield from batch.everyone()

    def turn(self) -> None:
        """Drop whom nobody listens to any more, let others join, read a piece of the new prompts, take one step with all."""
        self._drop_cancelled()
        self._admit()
        people, work = (self._batches[lane] for lane in (PEOPLE, WORK))
        if people.everyone():
            begun = time.perf_counter()
            self._advance(people)
            self.pace.people_took(time.perf_counter() - begun)
        if work.everyone() and not people.readings and self.pace.work_may(bool(people.rows)):  # nobody waits for a first word
            self._work(work)

    def _advance(self, batch: Batch) -> None:
        if batch.readings:
            self._guarded(batch, lambda: self._read(batch))
        if batch.rows:
            self._guarded(batch, lambda: self._step(batch))

    def _work(self, batch: Batch) -> None:
        """A piece of reading or a step, in turn: not both, since a person who comes meanwhile waits for it."""
        reads = bool(batch.readings) and not (self._work_read and batch.rows)
        rows, begun, self._work_read = len(batch.rows), time.perf_counter(), reads
        self._guarded(batch, lambda: (self._read if reads else self._step)(batch))
        self.pace.work_took(time.perf_counter() - begun, 0 if reads else rows)

    def _read(self, batch: Batch) -> None:
        people = self._batches[PEOPLE]
        tokens = self.pace.tokens(ALONE if batch is people and not people.rows else PIECE)
        begun = time.perf_counter()
        read = batch.read(tokens)
        self.pace.read_took(time.perf_counter() - begun, read)

    def fail_everything(self, words: str = FAILED) -> None:
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
        for call in calls:
            for request in call.requests():
                call.put(Failed(request.id, words))
        self._fail(list(self.rows()), words)

    def _admit(self) -> None:
        """Let waiting calls join: people's rows of one call together, background rows as places become free."""
        for background in (False, True):
            while call := self._first(background):
                rows = self._that_fit(call)
                if not rows and call.requests():
                    break
                with self._lock:
                    del call.waiting[: len(rows)]
                    self._calls.remove(call)
                    if call.requests():
                        self._calls.append(call)  # behind the others, so that one long job does not hold up the next
                for row in rows:
                    row.begun = time.monotonic()
                if rows:
                    batch = self._batches[WORK if background else PEOPLE]
                    self._guarded(batch, lambda batch=batch, rows=rows: batch.add(rows), rows)  # type: ignore[misc]

    def _first(self, background: bool) -> Call | None:
        with self._lock:
            return next((call for call in self._calls if call.background == background), None)

    def _that_fit(self, call: Call) -> list[Row]:
        """The call's rows that join now; none while others take the room."""
        batch = self._batches[WORK if call.background else PEOPLE]
        active = len(batch.everyone())
        if call.background:
            room = 0 if batch.readings else min(self.pace.rows - active, GROUP)
            limit = int(self.max_tokens * WORK_SHARE)
        else:
            most, limit = min(len(call.requests()), self.max_rows), self.max_tokens
            room = most if most <= self.max_rows - active else 0
        if room <= 0:
            return []
        self._encode(call, room)
        rows = call.waiting[:room]
        while len(rows) > 1 and (call.background or not active) and batch.tokens_with(rows) > limit:
            rows = rows[: len(rows) // 2]
        return [] if active and batch.tokens_with(rows) > limit else rows

    def _encode(self, call: Call, count: int) -> None:
        """So that `count` rows wait, if there are as many: not all of a long job at once, which would hold up everybody."""
        while len(call.waiting) < count and call.fresh:
            made = self._row(call.fresh[0], call)
            with self._lock:
                call.fresh.pop(0)
                if isinstance(made, Row):
                    call.waiting.append(made)
            if isinstance(made, Failed):
                call.put(made)

    def _row(self, request: Request, call: Call) -> Row | Failed:
        context = min(self._base.context_length, self.max_tokens)
        try:
            prompt = encode(self._base.tokenizer, request.messages, context)
        except UserError as error:
            return Failed(request.id, str(error), "request")
        except Exception:
            log.exception("a prompt could not be encoded")
            words = "The prompt could not be read by the model's tokenizer. Remove unusual characters and try again."
            return Failed(request.id, words, "request")
        if len(prompt) >= context:
            words = f"The prompt has {len(prompt)} tokens; this model reads at most {context}. Shorten it."
            return Failed(request.id, words, "request")
        return Row(request, prompt, min(request.decode.max_new_tokens, context - len(prompt)), call)

    def _step(self, batch: Batch) -> None:
        stepped = batch.step()
        for row, text in stepped:
            row.owner.put(Failed(row.request.id, NO_NUMBERS) if text is None else Delta(row.request.id, text, len(row.prompt)))
        for row, _ in stepped:
            if row.finish:
                seconds = time.monotonic() - row.begun
                row.owner.put(Done(row.request.id, row.text, row.request.adapter, len(row.prompt), len(row.tokens), row.finish, seconds))

    def _guarded(self, batch: Batch, act: Callable[[], object], joining: Sequence[Row] = ()) -> None:
        """Do it; an exception fails the rows of this batch, never the thread."""
        concerned = [*batch.everyone(), *joining]
        try:
            act()
        except torch.OutOfMemoryError:
            log.exception("a batch ran out of memory")
            if batch is self._batches[WORK]:
                self.pace.too_much()
            self._fail(concerned, NO_MEMORY)
        except Exception:
            log.exception("a batch failed")
            self._fail(concerned, FAILED)
            self._on_failure()

    def _fail(self, concerned: Sequence[Row], words: str) -> None:
        rows = list(concerned)
        for batch in self._batches.values():
            if any(row in rows for row in batch.everyone()):
                rows += [row for row in batch.everyone() if row not in rows]
                batch.clear()
        for row in rows:
            row.owner.put(Failed(row.request.id, words))

    def _drop_cancelled(self) -> None:
        with self._lock:
            for call in [call for call in self._calls if call.cancelled]:
                self._calls.remove(call)
        for batch in self._batches.values():
            batch.keep(lambda row: not row.owner.cancelled)


def _cache_tokens(base: LoadedBase) -> int:
    """How many tokens' keys and values of people's rows fit the memory set aside."""
    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * size * torch.finfo(getattr(torch, base.dtype)).bits // 8
    room = CACHE_BYTES.get(base.device) or int(torch.cuda.mem_get_info()[0] * CUDA_SHARE)
    return max(int(room / (1 + WORK_SHARE)) // each, 1024)
