"""One `generate` call: its rows on the engine's side, its stream of events on the asking side, and word back when nobody listens.

Light. Must not know models or batches.
"""

import queue
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from ft.engine import Delta, Done, Event, Failed, Request

Events = queue.SimpleQueue[Event | None]  # None wakes a reader whose stream was closed by another thread


class EventStream(Generator[Event, None, None]):
    """Ends by itself once every request has its Done or Failed. Closing it, from any thread, or dropping it, calls `cancel`."""

    def __init__(self, request_ids: Iterable[str], events: Events, cancel: Callable[[], None]) -> None:
        self._open = set(request_ids)
        self._events = events  # the engine keeps this queue and not the stream, so that a dropped stream is noticed
        self._cancel = cancel
        self._closed = False

    def send(self, value: None) -> Event:
        if self._closed or not self._open:
            raise StopIteration
        event = self._events.get()
        if event is None:
            raise StopIteration
        if isinstance(event, Done | Failed):
            self._open.discard(event.request_id)
        return event

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Event:
        self.close()
        raise typ if val is None else val

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._open:
                self._cancel()
            self._events.put(None)

    def __del__(self) -> None:
        self.close()


@dataclass(eq=False, slots=True)
class Call:
    """One `generate`: `fresh` requests are not encoded yet, `waiting` rows are; `events` is where events go."""

    background: bool
    fresh: list[Request] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    events: Events = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False

    def requests(self) -> list[Request]:
        return [*self.fresh, *(row.request for row in self.waiting)]

    def put(self, event: Delta | Done | Failed) -> None:
        if not self.cancelled:
            self.events.put(event)
