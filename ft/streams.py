"""The reading end of one `generate` call: events from the engine's thread to whoever asked, and word back when nobody listens any more.

Light. Must not know models or batches.
"""

import queue
from collections.abc import Callable, Generator, Iterable
from typing import Any

from ft.engine import Done, Event, Failed

Events = queue.SimpleQueue[Event]


class EventStream(Generator[Event, None, None]):
    """Ends by itself once every request has its Done or Failed. Closing it, or dropping it, calls `cancel`."""

    def __init__(self, request_ids: Iterable[str], events: Events, cancel: Callable[[], None]) -> None:
        self._open = set(request_ids)
        self._events = events  # the engine keeps this queue and not the stream, so that a dropped stream is noticed
        self._cancel = cancel
        self._closed = False

    def send(self, value: None) -> Event:
        if self._closed or not self._open:
            raise StopIteration
        event = self._events.get()
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

    def __del__(self) -> None:
        self.close()
