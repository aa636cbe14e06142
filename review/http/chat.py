"""The reply to a chat completion, whole or as server-sent events. A client that leaves takes its row out of the batch.

Must not know how an arm is found or which engine answers.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ft.engine import Delta, Done, Event, Failed
from ft.errors import BadInput, Unavailable
from review.guard.replies import compact
from review.http.errors import said
from review.http.figures import Figures
from review.http.pump import Pump
from review.http.stops import Stops
from review.http.wire import Ask
from review.services.asking import Asked

DONE = b"data: [DONE]\n\n"


class Telling:
    """What one answer has come to: text to show, tokens, why it ended."""

    def __init__(self, ask: Ask) -> None:
        self._stops = Stops(ask.stops)
        self.prompt_tokens = self.new_tokens = 0
        self.finish = ""

    def take(self, event: Event) -> str:
        """The text to show now. Raises BadInput or Unavailable for a row that failed."""
        if isinstance(event, Failed):
            raise (BadInput if event.fault == "request" else Unavailable)(event.error)
        if isinstance(event, Done):
            self.prompt_tokens, self.new_tokens, self.finish = event.prompt_tokens, event.new_tokens, event.finish
            return self._stops.rest()
        self.new_tokens += 1
        self.prompt_tokens = event.prompt_tokens or self.prompt_tokens
        shown = self._stops.feed(event.text)
        if self._stops.hit:
            self.finish = "stop"
        return shown

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.new_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.new_tokens, "total_tokens": total}


class ChatReply(Response):
    """`ask_arm` finds the arm and begins; it may block and is called on a thread."""

    def __init__(self, ask: Ask, name: str, ask_arm: Callable[[], Asked], figures: Figures) -> None:
        super().__init__()
        self._ask, self._name, self._ask_arm, self._figures = ask, name, ask_arm, figures
        self._arm = self._fingerprint = ""
        self._begun, self._made_at = time.monotonic(), int(time.time())
        self._first = True
        self._telling = Telling(ask)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 499  # the client has left
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                async with Pump(self._opened) as events:
                    status = await (self._stream if self._ask.stream else self._whole)(events, scope, receive, send)
                group.cancel_scope.cancel()
        finally:
            told = self._telling
            self._figures.answered(self._arm, status, told.prompt_tokens, told.new_tokens)

    def _opened(self) -> Any:
        asked = self._ask_arm()
        self._arm, self._fingerprint = asked.arm, asked.fingerprint
        return asked.stream

    async def _whole(self, events: Pump, scope: Scope, receive: Receive, send: Send) -> int:
        texts: list[str] = []
        try:
            async for event in events:
                texts.append(self._take(event))
                if self._telling.finish:
                    break
        except Exception as error:
            return await _send_error(error, scope, receive, send)
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._telling.finish}
        body = self._envelope("chat.completion", [choice]) | {"usage": self._telling.usage}
        await Response(compact(body), media_type="application/json")(scope, receive, send)
        return 200

    async def _stream(self, events: Pump, scope: Scope, receive: Receive, send: Send) -> int:
        """The reply begins with the first event, so that what cannot be answered is an error and not a stream."""
        started = False
        try:
            async for event in events:
                text = self._take(event)
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
                    await _push(send, self._chunk({"role": "assistant", "content": ""}))
                    started = True
                if text:
                    await _push(send, self._chunk({"content": text}))
                if self._telling.finish:
                    break
        except Exception as error:
            if not started:
                return await _send_error(error, scope, receive, send)
            status, body = said(error)
            await _push(send, json.loads(body))
            await _last(send)
            return status
        await _push(send, self._chunk({}, self._telling.finish))
        if self._ask.usage:
            await _push(send, self._envelope("chat.completion.chunk", []) | {"usage": self._telling.usage})
        await _last(send)
        return 200

    def _take(self, event: Event) -> str:
        text = self._telling.take(event)
        if self._first and isinstance(event, Delta):
            self._first = False
            self._figures.first_token(time.monotonic() - self._begun)
        return text

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._envelope("chat.completion.chunk", [choice]) | ({"usage": None} if self._ask.usage else {})

    def _envelope(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._name, "object": kind, "created": self._made_at, "model": self._arm,
            "system_fingerprint": self._fingerprint, "choices": choices,
        }  # fmt: skip


async def _push(send: Send, value: Any) -> None:
    await send({"type": "http.response.body", "body": b"data: " + compact(value) + b"\n\n", "more_body": True})


async def _last(send: Send) -> None:
    await send({"type": "http.response.body", "body": DONE, "more_body": False})


async def _send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> int:
    status, body = said(error)
    headers = {"retry-after": "2"} if status in (429, 503) else None
    await Response(body, status, headers, media_type="application/json")(scope, receive, send)
    return status


async def _until_gone(receive: Receive, reply: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reply.cancel()
