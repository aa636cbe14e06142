"""From a blocking stream of events, read on a thread of its own, to a reader in the event loop. Leaving the block ends the stream.

Must not know what the events mean or where they go.
"""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Self

from ft.engine import Event

_END = object()


class Pump:
    """`opened` is called on the thread, since finding the arm and bringing its adapter may take a while; what it raises is raised here."""

    def __init__(self, opened: Callable[[], Generator[Event, None, None]]) -> None:
        self._opened = opened
        self._gone = threading.Event()
        self._stream: Generator[Event, None, None] | None = None
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="answer-over-http", daemon=True).start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._gone.set()
        if self._stream is not None:
            with suppress(ValueError):  # a plain generator that is at work just now: its thread ends it after this step
                self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        item = await self._items.get()
        if item is _END:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item  # type: ignore[no-any-return]

    def _run(self) -> None:
        try:
            self._stream = stream = self._opened()
            try:
                while not self._gone.is_set() and (event := next(stream, None)) is not None:
                    self._put(event)
            finally:
                stream.close()
        except BaseException as error:
            self._put(error)
        else:
            self._put(_END)

    def _put(self, item: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended with the server
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
