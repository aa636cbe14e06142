"""Base and adapter for one prompt, and for eight prompts, in one mixed batch against one by one on the same engine.

Uses the embedded base model and the demo's adapter. Must not know the web process.
"""

import time
from pathlib import Path

from bench.row import Row
from ft.engine import BASE, Done, Engine, Message, Request
from ft.specs import DecodeSpec

ROOT = Path(__file__).parents[1]
ADAPTER = ROOT / "demo" / "adapter"
TOKENS = 48


def requests(count: int) -> list[Request]:
    decode = DecodeSpec(max_new_tokens=TOKENS)
    system = Message("system", "Answer at length.")
    asked = [(system, Message("user", f"Explain topic number {number}.")) for number in range(count)]
    return [Request(f"{number}-{arm}", asked[number], arm, decode) for number in range(count) for arm in (BASE, "demo")]


def tokens_per_second(engine: Engine, groups: list[list[Request]]) -> float:
    begun, tokens = time.perf_counter(), 0
    for group in groups:
        tokens += sum(event.new_tokens for event in engine.generate(group) if isinstance(event, Done))
    return tokens / (time.perf_counter() - begun)


def rows() -> list[Row]:
    from ft.engine_local import LocalEngine

    engine = LocalEngine("embedded", ROOT / ".cache")
    engine.wait_ready()
    engine.load("demo", ADAPTER)
    found = []
    for count in (1, 8):
        batch = requests(count)
        singles = [[request] for request in batch]
        tokens_per_second(engine, singles[:2])
        ours = max(tokens_per_second(engine, [batch]) for _ in range(3))
        peer = max(tokens_per_second(engine, singles) for _ in range(2))
        found.append(Row(f"{count} x (base + adapter)", ours, peer, "one by one", "tokens/s", "higher"))
    engine.close()
    return found
