"""Whether a server keeps base and adapter apart when both are asked at once, and whether its base is still the one it was.

Some answer as the base with the adapter's weights. Looks at answers only, since a server shows nothing else. Light. Must not know
reviewers, screens or the database.
"""

from ft.engine import BASE, Check, Done, Engine, Failed, Request
from ft.errors import Unavailable
from ft.specs import DecodeSpec
from ft.template import messages_for

PROBES = (
    "The device does not connect any more since this morning. What should I do first?",
    "I was charged twice this month. How do I get the money back?",
    "Write two sentences about the sea.",
)
DECODE = DecodeSpec(max_new_tokens=24)
KEPT = "The server keeps the base and this adapter apart when both are asked at once."
MIXED = (
    "The server mixes this adapter into the base's answers when both are asked at once, so comparisons would be wrong. "
    "Start it again with a larger --max-loras, or use another build of it."
)
STAYED = "The server's base answers what it answered at first; its weights cannot be looked at from here."
OTHER = "The server's base answers otherwise than at first, to every question tried: another model may run there. Look at that server."
SAME = "On the questions tried the adapter answers as the base does, so whether the server keeps them apart cannot be seen."


def pair_check(engine: Engine, name: str) -> Check:
    """Ask the base alone, beside itself and beside the adapter. Rounding may change one answer; most of them it does not.

    Raises Unavailable where the server does not answer.
    """
    looked = mixed = 0
    for probe in PROBES:
        base, tuned = _texts(engine, probe, BASE)[0], _texts(engine, probe, name)[0]
        if base != tuned:
            looked += 1
            mixed += _texts(engine, probe, BASE, BASE)[0] == base != _texts(engine, probe, BASE, name)[0]
    detail: dict[str, str | float] = {"questions": looked, "mixed": mixed}
    if not looked:
        return Check("pair", True, SAME, detail)
    return Check("pair", mixed * 2 <= looked, KEPT if mixed * 2 <= looked else MIXED, detail)


def base_check(engine: Engine, known: dict[str, str]) -> Check:
    """Ask the base what it was asked at first, kept in `known`. It is another one where it agrees with itself and never with then.

    Raises Unavailable where the server does not answer.
    """
    now = {probe: _texts(engine, probe, BASE)[0] for probe in PROBES}
    for probe, text in now.items():
        known.setdefault(probe, text)
    other = [probe for probe in PROBES if now[probe] != known[probe]]
    detail: dict[str, str | float] = {"questions": len(PROBES), "other answers": len(other)}
    changed = len(other) == len(PROBES) and all(_texts(engine, probe, BASE)[0] == now[probe] for probe in PROBES)
    return Check("base", not changed, OTHER if changed else STAYED, detail)


def _texts(engine: Engine, probe: str, *arms: str) -> list[str]:
    """What each says, asked at once."""
    requests = [Request(str(place), messages_for(probe), arm, DECODE) for place, arm in enumerate(arms)]
    texts: dict[str, str] = {}
    for event in engine.generate(requests):
        if isinstance(event, Failed):
            raise Unavailable(event.error)
        if isinstance(event, Done):
            texts[event.request_id] = event.text
    return [texts[request.id] for request in requests]
