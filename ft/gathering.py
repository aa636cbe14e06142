"""Which rows are answered now: waiting calls join, take their steps together, end, fail or are dropped.

`add`, `cancel` and `uses` may be called on any thread, under the lock they share with the engine; everything else belongs to the
inference thread. Must not know how models and adapters are loaded, nor who asks.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from ft.decoding import Batch, Row
from ft.engine import Activity, Delta, Done, Failed, Request
from ft.errors import UserError
from ft.models import LoadedBase
from ft.residents import Residents
from ft.streams import Call
from ft.template import encode

log = logging.getLogger(__name__)
MAX_ROWS = {"cpu": 16, "mps": 16, "cuda": 64}
CACHE_BYTES = {"cpu": 2 * 2**30, "mps": 2 * 2**30}  # for keys and values; on CUDA a share of what is free
CUDA_SHARE = 0.6
FAILED = "The model failed on this batch (see the app's log). Try again."
NO_MEMORY = "The model ran out of memory. Shorten the prompt, or try again when fewer answers are being written."


class Gathering:
    """`on_failure` is called after a batch failed for another reason than lack of memory."""

    def __init__(self, base: LoadedBase, residents: Residents, lock: threading.Condition, on_failure: Callable[[], None]) -> None:
        self._base, self._residents, self._lock, self._on_failure = base, residents, lock, on_failure
        self._calls: deque[Call] = deque()
        self._batches: dict[str, Batch] = {}
        self.max_rows, self.max_tokens = MAX_ROWS[base.device], _cache_tokens(base)

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            self._lock.notify_all()

    def has_work(self) -> bool:
        return bool(self._calls) or any(batch.rows for batch in self._batches.values())

    def uses(self, adapter: str) -> bool:
        """Whether a row, waiting or under way, is answered by this adapter."""
        waiting = any(request.adapter == adapter for call in self._calls for request in call.requests())
        return waiting or any(row.request.adapter == adapter for row in self.rows())

    def activity(self) -> Activity:
        """May be called on any thread."""
        with self._lock:
            waiting = sum(len(call.requests()) for call in self._calls)
        return Activity(waiting, sum(len(batch.rows) for batch in list(self._batches.values())))

    def rows(self) -> Iterator[Row]:
        """Those under way."""
        for batch in self._batches.values():
            yield from batch.rows

    def turn(self) -> None:
        """Drop whom nobody listens to any more, let others join, take one step with all."""
        self._drop_cancelled()
        self._admit()
        for batch in [batch for batch in self._batches.values() if batch.rows]:
            self._guarded(batch.rows, lambda batch=batch: self._step(batch))  # type: ignore[misc]

    def fail_everything(self, words: str = FAILED) -> None:
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
        for call in calls:
            for request in call.requests():
                call.put(Failed(request.id, words))
        self._fail(list(self.rows()), words)

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

    def _encode(self, call: Call) -> None:
        made = [self._row(request, call) for request in call.fresh]
        with self._lock:
            call.fresh.clear()
            call.waiting += [row for row in made if not isinstance(row, Failed)]
        for failed in made:
            if isinstance(failed, Failed):
                call.put(failed)

    def _that_fit(self, call: Call) -> list[Row]:
        """The call's rows that join now: all of them, or as many as a batch can hold; none while others take the room."""
        active = list(self.rows())
        most = max(self.max_rows // 2, 1) if call.background else self.max_rows  # background work leaves places for people
        rows = call.waiting[:most]
        taken = sum(row.owner.background for row in active) if call.background else 0
        if len(rows) > min(most - taken, self.max_rows - len(active)):
            return []
        while len(rows) > 1 and not active and self._batch("").tokens_with(rows) > self.max_tokens:
            rows = rows[: len(rows) // 2]
        if active and self._batch("").tokens_with(rows) > self.max_tokens:
            return []
        return rows

    def _join(self, rows: Sequence[Row]) -> None:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            row.begun = time.monotonic()
            alone = self._residents.runs_alone(row.request.adapter)
            groups.setdefault(row.request.adapter if alone else "", []).append(row)
        for key, group in groups.items():
            batch = self._batch(key)
            self._guarded(group, lambda batch=batch, group=group: batch.add(group))  # type: ignore[misc]

    def _row(self, request: Request, call: Call) -> Row | Failed:
        try:
            prompt = encode(self._base.tokenizer, request.messages)
        except UserError as error:
            return Failed(request.id, str(error), "request")
        except Exception:
            log.exception("a prompt could not be encoded")
            words = "The prompt could not be read by the model's tokenizer. Remove unusual characters and try again."
            return Failed(request.id, words, "request")
        context = min(self._base.context_length, self.max_tokens)
        if len(prompt) >= context:
            words = f"The prompt has {len(prompt)} tokens; this model reads at most {context}. Shorten it."
            return Failed(request.id, words, "request")
        return Row(request, prompt, min(request.decode.max_new_tokens, context - len(prompt)), call)

    def _batch(self, key: str) -> Batch:
        """The mixed batch (""), or the one of a DoRA adapter, which cannot be mixed but takes its steps in turn with it."""
        for other in [other for other, batch in self._batches.items() if other not in ("", key) and not batch.rows]:
            del self._batches[other]
        if key not in self._batches:
            self._batches[key] = Batch(self._base, self._residents.forward)
        return self._batches[key]

    def _step(self, batch: Batch) -> None:
        stepped = batch.step()
        for row, text in stepped:
            row.owner.put(Delta(row.request.id, text, len(row.prompt)))
        for row, _ in stepped:
            if row.finish:
                seconds = time.monotonic() - row.begun
                row.owner.put(
                    Done(row.request.id, row.text, row.request.adapter, len(row.prompt), len(row.tokens), row.finish, seconds)
                )

    def _guarded(self, rows: Sequence[Row], act: Callable[[], None]) -> None:
        """Do it; an exception fails these rows and whatever shares their batch, never the thread."""
        concerned = list(rows)
        try:
            act()
        except torch.OutOfMemoryError:
            log.exception("a batch ran out of memory")
            self._fail(concerned, NO_MEMORY)
        except Exception:
            log.exception("a batch failed")
            self._fail(concerned, FAILED)
            self._on_failure()

    def _fail(self, concerned: Sequence[Row], words: str) -> None:
        rows = list(concerned)
        for batch in self._batches.values():
            if any(row in rows for row in batch.rows):
                rows += [row for row in batch.rows if row not in rows]
                batch.clear()
        for row in rows:
            row.owner.put(Failed(row.request.id, words))

    def _drop_cancelled(self) -> None:
        with self._lock:
            for call in [call for call in self._calls if call.cancelled]:
                self._calls.remove(call)
        for batch in self._batches.values():
            batch.keep([row for row in batch.rows if not row.owner.cancelled])


def _cache_tokens(base: LoadedBase) -> int:
    """How many tokens' keys and values fit the memory set aside for them."""
    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * size * torch.finfo(getattr(torch, base.dtype)).bits // 8
    room = CACHE_BYTES.get(base.device) or int(torch.cuda.mem_get_info()[0] * CUDA_SHARE)
    return max(room // each, 1024)
