"""People, background work and adapters that come and go, all at once: nobody waits long, nothing is mixed up, the panes keep one pace."""

import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ft.engine import BASE, Delta, Done, Failed, Request
from ft.specs import DecodeSpec
from ft.template import messages_for
from tests.test_engine import QUESTIONS, ask, local, run, texts, tiny_base
from tests.test_engine_local import endless, engine
from tests.tiny import make_adapter

__all__ = ["endless", "engine", "tiny_base"]
PANE = DecodeSpec(max_new_tokens=16)


def job(count: int, adapters: Sequence[str]) -> list[Request]:
    return [
        Request(
            f"b{n}", messages_for(f"Question {n} " + "please " * (n % 30)), adapters[n % len(adapters)], DecodeSpec(max_new_tokens=24), True
        )
        for n in range(count)
    ]


def first_token(engine: Any, requests: Sequence[Request]) -> tuple[float, dict[str, str]]:
    begun, waited, events = time.perf_counter(), 0.0, []
    for event in engine.generate(requests):
        waited = waited or time.perf_counter() - begun
        events.append(event)
    return waited, texts(events)


def test_two_people_chat_while_500_answers_are_written_and_adapters_come_and_go(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        engine.load(f"a{number}", make_adapter(tmp_path / str(number), tiny_base, number))
    third = make_adapter(tmp_path / "3", tiny_base, 3)
    pairs = [[ask(text, arm, PANE) for arm in (BASE, f"a{number}")] for number, text in enumerate(QUESTIONS[:2], 1)]
    alone = [first_token(engine, pair) for pair in pairs]
    answers: dict[str, str] = {}
    work = threading.Thread(target=lambda: answers.update(texts(list(engine.generate(job(500, (BASE, "a1", "a2")))))))
    work.start()
    swaps = threading.Event()

    def swap() -> None:
        while not swaps.is_set():
            engine.load("a3", third)
            engine.unload("a3")

    swapping = threading.Thread(target=swap)
    swapping.start()
    waits: list[float] = []
    wrong: list[str] = []

    def chat(who: int) -> None:
        for _ in range(6):
            waited, got = first_token(engine, pairs[who])
            waits.append(waited - alone[who][0])
            wrong.extend(key for key, text in got.items() if alone[who][1][key] != text)

    people = [threading.Thread(target=chat, args=(who,)) for who in range(2)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert work.is_alive(), "the background work had ended before, so nothing was shown"
    swaps.set()
    swapping.join()
    work.join()
    assert len(answers) == 500
    assert not wrong
    assert len(waits) == 12
    assert max(waits) < 1.0


def test_a_long_prompt_of_one_person_does_not_stop_the_words_of_another(engine: Any) -> None:
    endless(engine)
    engine._gathering.pace.tokens = lambda seconds: 8
    stream = engine.generate([ask("Hi", decode=DecodeSpec(max_new_tokens=200))])
    next(stream)
    seen: list[str] = []

    def listen() -> None:
        for event in stream:
            if isinstance(event, Delta):
                seen.append(event.text)

    listening = threading.Thread(target=listen)
    listening.start()
    long = engine.generate([ask("word " * 25, decode=DecodeSpec(max_new_tokens=1))])
    before = len(seen)
    assert isinstance(next(long), Delta)
    assert len(seen) - before > 5
    stream.close()
    listening.join()


def test_one_long_job_does_not_hold_up_the_next(engine: Any) -> None:
    long = engine.generate(job(300, (BASE,)))
    next(long)
    begun = time.perf_counter()
    short = [Request("s", messages_for("Hi"), BASE, DecodeSpec(max_new_tokens=3), True)]
    assert isinstance(list(engine.generate(short))[-1], Done)
    assert any(engine._gathering.rows()), "the long job had ended before, so nothing was shown"
    assert time.perf_counter() - begun < 5
    long.close()


def test_background_work_that_is_cancelled_leaves_at_the_next_step(engine: Any) -> None:
    stream = engine.generate(job(300, (BASE,)))
    next(stream)
    stream.close()
    deadline = time.monotonic() + 2
    while any(engine._gathering.rows()) or engine._gathering.has_work():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_half_of_a_background_call_may_fail_and_the_rest_is_answered(engine: Any) -> None:
    requests = [Request(f"{n}", messages_for("" if n % 2 else f"Hi {n}"), BASE, PANE, True) for n in range(40)]
    events = list(engine.generate(requests))
    assert sum(isinstance(event, Failed) for event in events) == 20
    assert len(texts(events)) == 20


def gaps(engine: Any, pair: Sequence[Request]) -> dict[str, list[float]]:
    """When each pane's words came, as seconds after the pane's own previous one, and which came first in each step."""
    last: dict[str, float] = {}
    found: dict[str, list[float]] = {request.id: [] for request in pair}
    for event in engine.generate(pair):
        if isinstance(event, Delta):
            now = time.perf_counter()
            if event.request_id in last:
                found[event.request_id].append(now - last[event.request_id])
            last[event.request_id] = now
    return found


@pytest.mark.real
def test_the_pace_of_the_panes_does_not_tell_base_from_adapter(base_folder: Path, tmp_path: Path) -> None:
    case = local(base_folder, tmp_path)
    try:
        case.engine.load("one", case.single)
        shares, alone = [], []
        for number, text in enumerate(QUESTIONS):
            arms = (BASE, "one") if number % 2 else ("one", BASE)
            found = gaps(case.engine, [ask(text, arm, PANE, arm) for arm in arms])
            shares.append(statistics.median(found["one"]) / statistics.median(found[BASE]))
            alone.append(max(len(found["one"]), len(found[BASE])))
        assert min(alone) >= 4, "the answers were too short to show a pace"
        assert all(0.9 < share < 1.1 for share in shares), shares
    finally:
        case.engine.close()


def test_the_first_word_of_both_panes_comes_in_one_step(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    endless(engine)
    background = engine.generate(job(60, (BASE, "one")))
    next(background)
    for _ in range(5):
        events = run(engine, [ask(QUESTIONS[0], arm, PANE, arm) for arm in (BASE, "one")])
        order = [event.request_id for event in events if isinstance(event, Delta)]
        assert all({*order[index : index + 2]} == {BASE, "one"} for index in range(0, len(order), 2))
    background.close()
