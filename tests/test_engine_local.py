"""What only the local engine does: joining batches, yielding to people, sampling, DoRA, errors inside the loop, a base that changed."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft.engine import BASE, Delta, Done, Failed, Request
from ft.errors import BadInput, Unavailable
from ft.specs import DecodeSpec
from ft.template import messages_for
from tests.test_engine import QUESTIONS, ask, run, texts, tiny_base
from tests.tiny import CHAT, config_for, make_adapter, make_tokenizer, tensors_for, write_adapter

__all__ = ["tiny_base"]
LONG = DecodeSpec(max_new_tokens=150)


@pytest.fixture
def engine(tiny_base: Path, tmp_path: Path) -> Iterator[Any]:
    from ft.engine_local import LocalEngine

    made = LocalEngine(str(tiny_base), tmp_path / "bases", device="cpu")
    made.wait_ready(240)
    yield made
    made.close()


def endless(engine: Any) -> Any:
    """Never stop by itself: the tiny model's answers would end at a random token."""
    from dataclasses import replace

    gathering = engine._gathering
    gathering._base = replace(gathering._base, stop_tokens=frozenset())
    for batch in gathering._batches.values():
        batch._base = gathering._base
    return engine


def people(engine: Any) -> Any:
    """The batch of those who wait."""
    return engine._gathering._batches["people"]


def test_to_look_at_what_is_not_there_accuses_nobody(engine: Any) -> None:
    with pytest.raises(Unavailable, match="not in memory"):
        engine.check("nowhere")
    assert engine.status().state == "ready"
    assert engine.check().ok
    engine.close()
    with pytest.raises(Unavailable, match="stopped"):
        engine.check()


def test_a_row_that_joins_later_changes_nobodys_text(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    endless(engine)
    requests = [ask(text, adapter, LONG) for text in QUESTIONS for adapter in (BASE, "one")]
    alone = {key: text for request in requests for key, text in texts(run(engine, [request])).items()}
    streams = []
    for request in requests:
        stream = engine.generate([request])
        seen = [next(stream) for _ in range(3)]
        streams.append((seen, stream))
    assert {key: text for seen, stream in streams for key, text in texts([*seen, *stream]).items()} == alone


def test_people_do_not_wait_for_background_work(engine: Any) -> None:
    endless(engine)
    job = [Request(f"b{n}", messages_for(QUESTIONS[0]), decode=DecodeSpec(max_new_tokens=200), background=True) for n in range(40)]
    stream = engine.generate(job)
    next(stream)
    assert texts(run(engine, [ask("Hi", decode=DecodeSpec(max_new_tokens=3))]))
    assert any(engine._gathering.rows()), "the background work had ended before, so nothing was shown"
    stream.close()


def test_background_work_never_takes_every_place(engine: Any) -> None:
    endless(engine)
    streams = [engine.generate([Request(f"{n}", messages_for("x"), decode=LONG, background=True)]) for n in range(30)]
    for stream in streams[:4]:
        next(stream)
    assert sum(1 for _ in engine._gathering.rows()) <= engine._gathering.pace.rows
    for stream in streams:
        assert isinstance(list(stream)[-1], Done)


def test_more_rows_than_fit_are_all_answered(engine: Any) -> None:
    count = engine._gathering.max_rows * 2 + 3
    assert len(texts(run(engine, [ask("Hi", name=str(n)) for n in range(count)]))) == count


def test_rows_wait_while_the_cache_is_full(engine: Any) -> None:
    endless(engine)
    engine._gathering.max_tokens = 700
    requests = [ask(text, decode=LONG, name=f"{n}{text}") for n in range(3) for text in QUESTIONS]
    alone = texts(run(engine, requests[:1]))
    got: dict[str, str] = {}
    threads = [threading.Thread(target=lambda r=r: got.update(texts(run(engine, [r])))) for r in requests]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(requests)
    assert alone.items() <= got.items()


def test_sampling_follows_the_seed_whatever_else_is_in_the_batch(engine: Any) -> None:
    endless(engine)
    hot = [ask(QUESTIONS[0], decode=DecodeSpec(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=n), name=str(n)) for n in range(4)]
    alone = {key: text for request in hot for key, text in texts(run(engine, [request])).items()}
    assert texts(run(engine, [ask("Other", decode=LONG), *hot, ask("Third")])).items() >= alone.items()
    assert len(set(alone.values())) == 4


def test_the_repetition_penalty_is_the_one_of_transformers() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    from ft.writing import Row

    logits = torch.randn(200, generator=torch.Generator().manual_seed(1)) * 3
    for penalty in (0.7, 1.3, 2.0):
        row = Row(ask("x", decode=DecodeSpec(repetition_penalty=penalty)), [5, 9, int(logits.argmax())], 10, None, tokens=[7, 9])
        seen = torch.tensor([[*row.prompt, *row.tokens]])
        expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits[None].clone()).argmax()
        assert row.choose(logits) == int(expected)


def test_sampling_never_leaves_the_nucleus() -> None:
    import torch
    from transformers import TopPLogitsWarper

    from ft.writing import Row

    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    warped = TopPLogitsWarper(0.5)(torch.zeros(1, 0, dtype=torch.long), logits[None].clone() / 0.8)
    inside = set(torch.isfinite(warped[0]).nonzero().flatten().tolist())
    row = Row(ask("x", decode=DecodeSpec(temperature=0.8, top_p=0.5, seed=3)), [1], 10, None)
    drawn = {row.choose(logits) for _ in range(2000)}
    assert drawn == inside


def test_an_answer_ends_where_the_context_ends(engine: Any) -> None:
    endless(engine)
    done = run(engine, [ask("Hi", decode=DecodeSpec(max_new_tokens=4000))])[-1]
    assert done.prompt_tokens + done.new_tokens == 256
    assert done.finish == "length"


def test_a_closed_stream_frees_its_row_at_once(engine: Any) -> None:
    endless(engine)
    stream = engine.generate([ask("Hi", decode=DecodeSpec(max_new_tokens=200))])
    next(stream)
    stream.close()
    deadline = time.monotonic() + 2
    while any(engine._gathering.rows()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_characters_of_several_tokens_come_out_whole() -> None:
    from ft.writing import Row

    class Base:
        tokenizer = make_tokenizer()
        stop_tokens = frozenset({2})

    text = "Grüße 你好 🔒🙂 \U0001f468\u200d\U0001f469\u200d\U0001f467 end"
    row = Row(ask("x"), [1], 500, None)
    pieces = [row.take(token, Base()) for token in [*Base.tokenizer(text)["input_ids"], 2]]  # type: ignore[arg-type]
    assert "".join(pieces) == text == row.text
    assert not any("\ufffd" in piece for piece in pieces)
    assert row.finish == "stop"


def test_an_answer_cut_inside_a_character_shows_that_it_was_cut() -> None:
    from ft.writing import Row

    class Base:
        tokenizer = make_tokenizer()
        stop_tokens = frozenset({2})

    tokens = Base.tokenizer("a\U0001f9ff")["input_ids"]
    row = Row(ask("x"), [1], len(tokens) - 1, None)
    pieces = [row.take(token, Base()) for token in tokens[:-1]]  # type: ignore[arg-type]
    assert "".join(pieces) == row.text
    assert row.text.startswith("a")
    assert row.finish == "length"


def test_a_dora_adapter_answers_beside_others_as_it_does_alone(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("dora", make_adapter(tmp_path / "dora", tiny_base, 3, dora=True))
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    requests = [ask(text, adapter) for text in QUESTIONS for adapter in (BASE, "dora", "one")]
    alone = {key: text for request in requests for key, text in texts(run(engine, [request])).items()}
    assert texts(run(engine, requests)) == alone
    engine.unload("dora")
    assert texts(run(engine, [ask(QUESTIONS[0], "one")])).items() <= alone.items()


def test_unloading_waits_for_the_rows_that_use_the_adapter(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    endless(engine)
    alone = run(engine, [ask("Hi", "one", LONG)])[-1].text
    stream = engine.generate([ask("Hi", "one", LONG)])
    first = next(stream)
    leaving = threading.Thread(target=engine.unload, args=("one",))
    leaving.start()
    while "one" in engine.adapters():
        time.sleep(0.001)
    assert [type(e) for e in run(engine, [ask("Hi", "one")])] == [Failed]
    assert [first, *stream][-1].text == alone
    leaving.join(10)
    assert not leaving.is_alive()


def test_an_adapter_wanted_again_before_its_rows_ended_stays(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    endless(engine)
    job = [Request(f"b{n}", messages_for(QUESTIONS[0]), "one", DecodeSpec(max_new_tokens=200), True) for n in range(300)]
    stream = engine.generate(job)
    next(stream)
    leaving = threading.Thread(target=engine.unload, args=("one",))
    leaving.start()
    while "one" in engine.adapters():
        time.sleep(0.001)
    engine.load("one", tmp_path / "one")
    assert engine._gathering.uses("one"), "the job had ended before, so nothing was shown"
    leaving.join(10)
    assert not leaving.is_alive()
    assert texts(run(engine, [ask("Hi", "one")]))
    stream.close()
    engine.unload("one")
    assert engine.adapters() == {}
    assert engine._residents.hashes() == {}


def test_an_error_in_a_step_fails_its_rows_and_the_engine_lives_on(engine: Any) -> None:
    before = texts(run(engine, [ask("Hi")]))
    whole = people(engine)._forward

    def broken(*args: Any, **inputs: Any) -> Any:
        raise RuntimeError("shape mismatch")

    people(engine)._forward = broken
    events = run(engine, [ask("Hi"), ask("Ho")])
    assert [type(event) for event in events] == [Failed, Failed]
    assert "shape" not in events[0].error
    people(engine)._forward = whole
    assert texts(run(engine, [ask("Hi")])) == before


def test_a_device_that_computes_no_more_stops_the_engine_in_words(engine: Any) -> None:
    def broken(*args: Any, **inputs: Any) -> Any:
        raise RuntimeError("device-side assert")

    engine._residents.forward = people(engine)._forward = broken
    assert isinstance(run(engine, [ask("Hi")])[0], Failed)
    deadline = time.monotonic() + 20
    while engine.status().state == "ready":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Unavailable, match="Restart the app"):
        engine.identity()


def test_an_error_outside_the_steps_fails_everybody_and_the_engine_lives_on(engine: Any) -> None:
    usual, engine._gathering._that_fit = engine._gathering._that_fit, None
    assert [type(event) for event in run(engine, [ask("Hi"), ask("Ho")])] == [Failed, Failed]
    engine._gathering._that_fit = usual
    assert texts(run(engine, [ask("Hi")]))


def test_lack_of_memory_is_named_and_passes(engine: Any) -> None:
    import torch

    whole = people(engine)._forward

    def full(*args: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    people(engine)._forward = full
    assert "memory" in run(engine, [ask("Hi")])[0].error
    people(engine)._forward = whole
    assert texts(run(engine, [ask("Hi")]))


def test_a_load_that_fails_at_its_last_piece_leaves_nothing(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    before = texts(run(engine, [ask("Hi")]))
    usual, failures = engine._residents._checking_base, [RuntimeError("no more")]

    def failing() -> Iterator[None]:
        yield
        if failures:
            raise failures.pop()
        yield from usual()

    engine._residents._checking_base = failing
    with pytest.raises(BadInput, match="no more"):
        engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    assert engine.adapters() == {}
    assert isinstance(run(engine, [ask("Hi", "one")])[0], Failed)
    assert texts(run(engine, [ask("Hi")])) == before
    engine.load("one", tmp_path / "one")
    assert [*engine.adapters()] == ["one"]


def test_closing_in_the_middle_of_a_load_ends_it_in_words_and_leaves_nothing_half_done(
    engine: Any, tiny_base: Path, tmp_path: Path
) -> None:
    begun = threading.Event()

    def slow() -> Iterator[None]:
        while True:
            begun.set()
            yield

    engine._residents._checking_base = slow
    ended: list[str] = []

    def load() -> None:
        with pytest.raises(Unavailable) as told:
            engine.load("one", make_adapter(tmp_path / "one", tiny_base))
        ended.append(str(told.value))

    loading = threading.Thread(target=load)
    loading.start()
    assert begun.wait(20)
    assert texts(run(engine, [ask("Hi")])), "people are answered between the pieces"
    assert isinstance(run(engine, [ask("Hi", "one")])[0], Failed)
    engine.close()
    loading.join(10)
    assert ended
    assert "stopped" in ended[0]
    assert engine._residents.hashes() == {}


def test_a_command_gets_its_turn_though_people_keep_arriving(
    engine: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft.engine_local.PATIENCE", 0.2)
    make_adapter(tmp_path / "one", tiny_base)
    engine._gathering.someone_waits = lambda: True
    over = threading.Event()

    def arrive() -> None:
        while not over.is_set():
            run(engine, [ask("Hi", decode=DecodeSpec(max_new_tokens=2))])

    arriving = [threading.Thread(target=arrive) for _ in range(3)]
    for thread in arriving:
        thread.start()
    begun = time.monotonic()
    engine.load("one", tmp_path / "one")
    engine.unload("one")
    took = time.monotonic() - begun
    over.set()
    for thread in arriving:
        thread.join()
    assert took < 6


def test_people_who_wait_go_first_before_each_piece_of_a_command(
    engine: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft.engine_local.PATIENCE", 0.2)
    pieces: list[float] = []

    def piecemeal() -> Iterator[None]:
        for _ in range(3):
            pieces.append(time.monotonic())
            yield

    engine._residents._checking_base = piecemeal
    stream = engine.generate([ask("Hi", decode=DecodeSpec(max_new_tokens=200))])
    engine._gathering.someone_waits = engine._gathering.has_work
    endless(engine)
    loading = threading.Thread(target=engine.load, args=("one", make_adapter(tmp_path / "one", tiny_base)))
    loading.start()
    engine._gathering.turn, usual = lambda: time.sleep(0.001), engine._gathering.turn
    loading.join(20)
    engine._gathering.turn = usual
    stream.close()
    assert len(pieces) == 3
    assert min(after - before for before, after in itertools.pairwise(pieces)) > 0.15


def test_an_inference_thread_that_ends_leaves_nobody_waiting(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    make_adapter(tmp_path / "one", tiny_base)

    def broken(*args: Any) -> None:
        engine._gathering.fail_everything = lambda words: None
        raise RuntimeError("a fault of ours")

    engine._residents._checking_base = lambda: iter([None] * 10_000)
    engine._gathering.turn = engine._gathering.fail_everything = broken
    with pytest.raises(Unavailable, match="after a fault"):
        engine.load("one", tmp_path / "one")
    with pytest.raises(Unavailable, match="after a fault"):
        engine.wait_ready()


def test_a_row_without_numbers_fails_alone(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    endless(engine)
    hot = DecodeSpec(max_new_tokens=20, temperature=1.0)
    asked = [ask(QUESTIONS[0], BASE, hot), ask(QUESTIONS[1], "one", hot, "sampled"), ask(QUESTIONS[2], "one", name="greedy")]
    alone = texts(run(engine, asked[:1]))
    whole = people(engine)._forward

    def poisoned(names: Any, **inputs: Any) -> Any:
        out = whole(names, **inputs)
        for index, name in enumerate(names):
            if name == "one" and not inputs.get("reads_only"):
                out.logits[index] = float("nan")
        return out

    people(engine)._forward = poisoned
    events = run(engine, asked)
    assert texts(events) == alone
    failed = {event.request_id: event.error for event in events if isinstance(event, Failed)}
    assert set(failed) == {"sampled", "greedy"}
    assert all("no numbers" in words for words in failed.values())


def test_a_changed_base_stops_the_engine(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    import torch

    with torch.no_grad():
        engine._gathering._base.model.lm_head.weight.mul_(1.5)
    with pytest.raises(Unavailable, match="no longer as it was loaded"):
        engine.load("one", make_adapter(tmp_path / "one", tiny_base))
    assert engine.status().state == "failed"
    assert isinstance(run(engine, [ask("Hi")])[0], Failed)


def test_an_adapter_without_effect_is_refused(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    fresh = {key: value * (0 if "lora_B" in key else 1) for key, value in tensors_for(tiny_base, 1).items()}
    with pytest.raises(BadInput, match="changes nothing"):
        engine.load("fresh", write_adapter(tmp_path / "fresh", fresh, config_for()))
    assert engine.adapters() == {}


def test_a_missing_model_is_named_and_waiting_ends(tmp_path: Path) -> None:
    from ft.engine_local import LocalEngine

    engine = LocalEngine(str(tmp_path / "nothing"), tmp_path)
    with pytest.raises(Unavailable, match="TIEBREAK_BASE names"):
        engine.wait_ready(60)
    with pytest.raises(Unavailable, match="TIEBREAK_BASE names"):
        engine.load("one", tmp_path)
    assert "TIEBREAK_BASE" in run(engine, [ask("Hi")])[0].error
    engine.unload("one")
    engine.close()


def test_background_work_reads_or_steps_in_a_turn_and_not_both(engine: Any) -> None:
    endless(engine)
    gathering = engine._gathering
    turns: list[list[str]] = []
    usual = {name: getattr(gathering, name) for name in ("turn", "_read", "_step")}

    def counted(name: str) -> Any:
        return lambda batch: (turns[-1].append(name), usual[name](batch))

    gathering.turn = lambda: (turns.append([]), usual["turn"]())
    gathering._read, gathering._step = counted("_read"), counted("_step")
    gathering.pace.tokens = lambda seconds: 16
    job = [Request(f"b{n}", messages_for(QUESTIONS[0]), decode=DecodeSpec(max_new_tokens=9), background=True) for n in range(30)]
    assert len(texts(list(engine.generate(job)))) == 30
    assert {len(done) for done in turns} <= {0, 1}
    assert {done[0] for done in turns if done} == {"_read", "_step"}


def test_the_inference_thread_computes_with_as_many_threads_as_pay(engine: Any) -> None:
    import torch

    from ft.kernels import THREADS

    seen: list[int] = []
    whole, most = people(engine)._forward, max(THREADS, 2)

    def counted(*args: Any, **inputs: Any) -> Any:
        seen.append(torch.get_num_threads())
        return whole(*args, **inputs)

    people(engine)._forward = counted
    engine._crew.worked = lambda wall, own: True
    engine._crew.threads = 1
    run(endless(engine), [ask("Hi", decode=DecodeSpec(max_new_tokens=20))])
    assert seen[-1] == 1
    engine._crew.threads = most
    run(engine, [ask("Hi", decode=DecodeSpec(max_new_tokens=20))])
    assert seen[-1] == most
    engine._crew.threads = 1
    run(engine, [ask("Hi", decode=DecodeSpec(max_new_tokens=20))])
    engine.close()
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [THREADS], "the next engine has all of them"


def test_an_adapter_is_read_beside_the_inference_thread_on_one_that_ends(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    """Each thread that computes with torch keeps helpers for as long as it lives, which slow the inference thread down."""
    readers: list[threading.Thread] = []
    usual = engine._residents.read

    def read(folder: Path) -> Any:
        readers.append(threading.current_thread())
        return usual(folder)

    engine._residents.read = read
    engine.load("one", make_adapter(tmp_path / "one", tiny_base, seed=1))
    (reader,) = readers
    assert reader not in (engine._thread, threading.current_thread())
    assert not reader.is_alive()


def test_closing_fails_what_is_under_way(engine: Any) -> None:
    endless(engine)
    stream = engine.generate([ask("Hi", decode=DecodeSpec(max_new_tokens=200))])
    next(stream)
    engine.close()
    last = list(stream)[-1]
    assert isinstance(last, Failed)
    assert "stopped" in last.error


def test_a_dropped_stream_is_cancelled(engine: Any) -> None:
    endless(engine)
    stream = engine.generate([ask("Hi", decode=DecodeSpec(max_new_tokens=240))])
    assert isinstance(next(stream), Delta)
    del stream
    time.sleep(0.2)
    assert not any(engine._gathering.rows())


def test_importing_the_engine_imports_no_torch() -> None:
    import subprocess
    import sys

    heavy = "('torch', 'transformers', 'peft')"
    code = f"import ft.engine_local, ft.engines, ft.scripted, sys; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_the_template_of_the_tiny_base_is_the_one_tested(engine: Any) -> None:
    assert engine._gathering._base.tokenizer.chat_template == CHAT
