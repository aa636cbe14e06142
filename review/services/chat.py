"""A conversation with several arms at once: one mixed batch, one stream, all texts a step further each time.

Where an arm is on a server, all texts come at once, when all are whole: its pace would tell it from the others. Must not know the
database, torch or screens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ft.engine import Delta, Done, Engine, Failed, Message, Request
from ft.specs import DecodeSpec
from ft.template import with_system


@dataclass(frozen=True, slots=True)
class ChatStep:
    """Texts so far by arm. `done` on the last step; `failed` is a sentence where an arm could not answer."""

    texts: dict[str, str] = field(default_factory=dict)
    done: bool = False
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Voice:
    """Who answers: the adapter's name in the engine, its system text, and what was said to it so far. `elsewhere`: an engine of its own."""

    adapter: str
    system: str
    messages: Sequence[Message]
    elsewhere: Engine | None = None


def chat(engine: Engine, voices: Mapping[str, Voice], decode: DecodeSpec) -> Iterator[ChatStep]:
    """`voices` by the name they are shown under. Closing the iterator stops the answers."""
    if any(one.elsewhere for one in voices.values()):
        return _whole(engine, voices, decode)
    return _in_step(engine, voices, decode)


def _request(name: str, one: Voice, decode: DecodeSpec) -> Request:
    return Request(name, with_system(one.messages, one.system), one.adapter, decode)


def _in_step(engine: Engine, voices: Mapping[str, Voice], decode: DecodeSpec) -> Iterator[ChatStep]:
    requests = [_request(name, one, decode) for name, one in voices.items()]
    texts = dict.fromkeys(voices, "")
    live = set(voices)
    waiting = set(live)
    stream = engine.generate(requests)
    try:
        for event in stream:
            if isinstance(event, Failed):
                yield ChatStep(dict(texts), True, event.error)
                return
            if isinstance(event, Delta):
                texts[event.request_id] += event.text
            elif isinstance(event, Done):
                texts[event.request_id] = event.text
                live.discard(event.request_id)
            waiting.discard(event.request_id)
            if not waiting and live:
                waiting = set(live)
                yield ChatStep(dict(texts))
        yield ChatStep(dict(texts), True)
    finally:
        stream.close()


def _whole(engine: Engine, voices: Mapping[str, Voice], decode: DecodeSpec) -> Iterator[ChatStep]:
    """Steps without words until every text is whole. Engines are listened to in an order that has nothing to do with `voices`'."""
    asked: dict[int, tuple[Engine, list[Request]]] = {}
    for name, one in voices.items():
        where = one.elsewhere or engine
        asked.setdefault(id(where), (where, []))[1].append(_request(name, one, decode))
    streams = [asked[key][0].generate(asked[key][1]) for key in sorted(asked)]
    nothing, texts = dict.fromkeys(voices, ""), dict.fromkeys(voices, "")
    try:
        for stream in streams:
            for event in stream:
                if isinstance(event, Failed):
                    yield ChatStep(nothing, True, event.error)
                    return
                if isinstance(event, Done):
                    texts[event.request_id] = event.text
                yield ChatStep(dict(nothing))
        yield ChatStep(texts, True)
    finally:
        for stream in streams:
            stream.close()
