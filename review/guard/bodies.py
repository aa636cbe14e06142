"""Reading what a client sends: size limits while it arrives, strict JSON, and no file references but one's own uploads.

Gradio takes any dictionary with a path and its meta mark for a file it may read, at any depth and inside JSON text.
Must not know who is asking beyond the files they may name.
"""

import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from starlette.types import Message, Receive

MARK = "gradio.FileData"
MAX_DEPTH = 60
ALLOWED_KEYS = ("data", "event_data", "fn_index", "trigger_id", "session_hash", "event_id")


class Refusal(Exception):
    """A request the guard turns away: an HTTP status and words fit to show."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


async def read(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises Refusal 413 as soon as it is longer than `limit` bytes."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The request ended early. Send it again.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"That is larger than {limit >> 10} KB. Send less.")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives `body` once and then waits for the real connection."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def metered(receive: Receive, limit: int) -> Receive:
    """A receive that raises Refusal 413 once more than `limit` bytes have come."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise Refusal(413, f"That file is larger than {limit >> 20} MB. Send a smaller one.")
        return message

    return counted


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def strict(body: bytes) -> Any:
    """JSON without NaN, without a key given twice. Raises ValueError."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object, strictly. Raises Refusal 400."""
    try:
        value = strict(body)
    except ValueError as error:
        raise Refusal(400, "The request is not JSON. Reload the page and try again.") from error
    if not isinstance(value, dict):
        raise Refusal(400, "The request is not a JSON object. Reload the page and try again.")
    return value


def checked(value: Any, may_name: Callable[[str], bool]) -> Any:
    """The same value with every file reference reduced to its known fields. Raises Refusal for a file one may not name.

    `may_name(path)` says whether the path is an upload of this person's own.
    """
    return _walk(value, may_name, 0)


def _walk(value: Any, may_name: Callable[[str], bool], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Refusal(400, "The request is nested too deeply. Reload the page and try again.")
    if isinstance(value, str):
        return _text(value, depth)
    if isinstance(value, list):
        return [_walk(item, may_name, depth + 1) for item in value]
    if isinstance(value, dict):
        if _names_a_file(value):
            return _own_file(value, may_name)
        return {_text(key, depth): _walk(item, may_name, depth + 1) for key, item in value.items()}
    if isinstance(value, (int, float)) and not -(2**63) <= value < 2**63:
        raise Refusal(400, "A number in the request is out of range. Use a smaller one.")
    return value


def _names_a_file(value: dict[str, Any]) -> bool:
    """A path alone is enough: Gradio's file components fill in the mark for themselves."""
    return "path" in value or (isinstance(value.get("meta"), dict) and "_type" in value["meta"])


def _own_file(value: dict[str, Any], may_name: Callable[[str], bool]) -> dict[str, Any]:
    path, name, size = value.get("path"), value.get("orig_name"), value.get("size")
    if not isinstance(path, str) or not may_name(path):
        raise Refusal(403, "That file is not one you have uploaded here. Choose the file again.")
    return {
        "path": path,
        "orig_name": PurePath(name).name if isinstance(name, str) else None,
        "size": size if isinstance(size, int) else None,
        "meta": {"_type": MARK},
    }


def _text(text: str, depth: int) -> str:
    """Text that storage and JSON can hold, and that is no file reference in disguise."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, "The text holds half of a character (a lone surrogate). Remove it and try again.") from error
    if "\0" in text:
        raise Refusal(400, "The text holds a NUL character. Remove it and try again.")
    start = text.lstrip()[:1]
    if start in ("{", "[", '"') and "path" in text.replace("\\u", "path"):
        _hidden(text, depth)
    return text


def _hidden(text: str, depth: int) -> None:
    """Refuse JSON text that unfolds into a marked file reference; any other JSON is plain text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    waiting: list[tuple[Any, int]] = [(value, depth)]
    while waiting:
        item, level = waiting.pop()
        if level > MAX_DEPTH:
            raise Refusal(400, "The text is JSON nested too deeply. Shorten it and try again.")
        if isinstance(item, dict):
            if "path" in item and isinstance(item.get("meta"), dict) and item["meta"].get("_type") == MARK:
                raise Refusal(403, "The text is a reference to a file on the server, which is never accepted. Send plain text.")
            waiting += [(child, level + 1) for child in item.values()]
        elif isinstance(item, list):
            waiting += [(child, level + 1) for child in item]
        elif isinstance(item, str) and item.lstrip()[:1] in ("{", "[", '"'):
            _hidden(item, level + 1)
