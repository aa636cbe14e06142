"""A conversation with several arms at once: one mixed batch, one stream, all texts a step further each time.

Must not know the database, torch or screens.
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
    """Who answers: the adapter's name in the engine, its system text, and what was said to it so far."""

    adapter: str
    system: str
    messages: Sequence[Message]


def chat(engine: Engine, voices: Mapping[str, Voice], decode: DecodeSpec) -> Iterator[ChatStep]:
    """`voices` by the name they are shown under. Closing the iterator stops the answers."""
    requests = [Request(name, with_system(one.messages, one.system), one.adapter, decode) for name, one in voices.items()]
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
