"""Server-sent events of a streamed chat completion, read into pieces of text and an ending. Must not know connections."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ft.errors import Unavailable, UserError

LONGEST_ANSWER = 1 << 20  # characters; a server that never stops is cut off
UNREADABLE = "The server's answer cannot be read. Check that its address is the one of an OpenAI-compatible server."


@dataclass(frozen=True, slots=True)
class Ending:
    """How a streamed answer ended. Tokens as the server counts them, or as many as pieces came where it does not say."""

    finish: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int


class Again(Exception):
    """Worth another try, after so many seconds where the server names them."""

    def __init__(self, error: UserError, after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.after = error, after


def read(lines: Iterator[str]) -> Iterator[str | Ending]:
    """Pieces of text from server-sent events, then the ending."""
    finish, usage, pieces, length = "", {}, 0, 0
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        chunk = _chunk(data)
        if isinstance(chunk.get("usage"), dict):
            usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            text = (choice.get("delta") or {}).get("content") or ""
            if text:
                pieces, length = pieces + 1, length + len(text)
                yield str(text)
        if length > LONGEST_ANSWER:
            raise Unavailable("The server's answer has no end. It was cut off; choose another model.")
    if not finish:
        raise Again(Unavailable("The server's answer broke off before its end. Try again."))
    yield Ending(
        "length" if finish == "length" else "stop", int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or pieces)
    )  # fmt: skip


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Unavailable(
            "The server's answer cannot be read. Check that its address is the one of an OpenAI-compatible server."
        ) from error
    if not isinstance(chunk, dict):
        raise Unavailable(UNREADABLE)
    if broken := chunk.get("error"):
        words = broken.get("message") if isinstance(broken, dict) else broken
        raise Again(Unavailable(f"The server broke off: {' '.join(str(words).split())[:300]} Try again."))
    return chunk
