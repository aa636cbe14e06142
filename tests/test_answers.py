"""Arms, stored answers, answering jobs, chat and the caretaker, on a scripted engine; the whole of it once on a tiny real model."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from ft.engine import BASE, Check, Failed, Message, Request
from ft.errors import BadInput, Conflict, NotFound, Unavailable
from ft.scripted import ScriptedEngine
from ft.specs import DecodeSpec
from ft.template import DEFAULT_SYSTEM
from review.services import jobs
from review.services.caretaker import Caretaker, caretaking
from review.services.house import House, build
from review.services.proofs import record
from review.services.unstored import GROUP
from review.settings import Settings
from storage.queries import arms as queries
from storage.tables import Answer, Job, Prompt
from tests.test_engine import tiny_base
from tests.tiny import make_adapter

__all__ = ["tiny_base"]
ROWS = 20


class Counting(ScriptedEngine):
    """Scripted, and remembers what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[list[Request]] = []

    def generate(self, requests: Any) -> Any:
        self.calls.append(list(requests))
        return super().generate(requests)

    @property
    def asked(self) -> int:
        return sum(len(call) for call in self.calls)


def furnish(home: Path, db: Any, engine: Any, base: str = "embedded") -> House:
    house = build(Settings(home=home, base=base, engine="scripted", demo=False), db, engine)
    rows = home / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"Question {n}?", "output": f" Reply {n} "}) + "\n" for n in range(ROWS)))
    house.library.import_file(rows, "set", split="test")
    return house


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
def house(home: Path, db: Any, engine: Counting) -> House:
    return furnish(home, db, engine)


@pytest.fixture
def with_adapter(house: House, tiny_base: Path, tmp_path: Path) -> House:
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
    return house


def stored(house: House) -> list[Answer]:
    with house.db.session() as session:
        return list(session.exec(select(Answer)))


def answer(house: House, *arms: str) -> str:
    job = house.answers.start("set", "test", list(arms), None)
    house.answers.run(job)
    return jobs.one(house.db, job).status


def test_base_and_human_are_always_arms_and_each_adapter_becomes_one(with_adapter: House) -> None:
    assert [(arm.name, arm.kind, arm.adapter) for arm in with_adapter.answers.arms()] == [
        ("base", "base", ""), ("human", "human", ""), ("one", "adapter", "one"),
    ]  # fmt: skip
    assert with_adapter.answers.arms() == with_adapter.answers.arms()


def test_the_arm_of_a_trained_adapter_has_the_system_text_it_was_trained_with(house: House, tiny_base: Path, tmp_path: Path) -> None:
    from storage.tables import Run, Snapshot

    with house.db.write() as session:
        session.add(Snapshot(id=1, content_hash="x"))
        session.flush()
        session.add(Run(id="r1", snapshot_id=1, folder="x", spec={"name": "one", "system_prompt": "Answer as a pirate."}))
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None, run_id="r1")
    house.answers.ensure_arms()
    with house.db.session() as session:
        systems = {arm.name: arm.system_prompt for arm, _ in queries.arms(session)}
    assert systems == {"base": DEFAULT_SYSTEM, "human": "", "one": "Answer as a pirate."}


def test_our_system_text_names_no_model_and_no_maker() -> None:
    assert not [word for word in ("smol", "hugging", "llama", "gpt", "qwen", "assistant named") if word in DEFAULT_SYSTEM.lower()]


def test_answers_are_stored_with_everything_needed_to_make_them_again(with_adapter: House) -> None:
    assert answer(with_adapter, "base", "one") == "finished"
    found = stored(with_adapter)
    assert len(found) == 2 * ROWS
    content = with_adapter.adapters.adapter("one").content_hash
    assert {row.adapter_hash for row in found} == {"", content}
    for row in found:
        assert row.text
        assert row.text == row.text.strip()
        assert row.base_hash == "scripted:none:none"
        assert row.template_hash
        assert row.decode_hash == DecodeSpec().hash
        assert row.new_tokens > 0


def test_the_human_arm_answers_with_the_references(house: House, engine: Counting) -> None:
    assert answer(house, "human") == "finished"
    assert {row.text for row in stored(house)} == {f"Reply {n}" for n in range(ROWS)}
    assert engine.asked == 0


def test_what_is_stored_is_never_asked_again(house: House, engine: Counting) -> None:
    answer(house, "base")
    assert engine.asked == ROWS
    answer(house, "base", "human")
    assert engine.asked == ROWS


def test_the_engine_is_handed_many_requests_of_all_arms_at_once_the_longest_first(
    with_adapter: House, engine: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("review.services.answering.AT_ONCE", 12)
    with with_adapter.db.write() as session:
        session.add(Prompt(set_id=1, split="test", instruction="Short?", content_hash="s"))
        session.add(Prompt(set_id=1, split="test", instruction="A question that is much longer than the others?", content_hash="l"))
    answer(with_adapter, "base", "one")
    assert [len(call) for call in engine.calls] == [12, 12, 12, 8]
    assert {len({request.adapter for request in call}) for call in engine.calls} == {2}
    assert all(request.background for call in engine.calls for request in call)
    sizes = [len(request.messages[-1].content) for call in engine.calls for request in call]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_few_adapters_are_asked_for_at_once(house: House, engine: Counting, tiny_base: Path, tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(9)]
    for number, name in enumerate(names):
        house.adapters.register(make_adapter(tmp_path / name, tiny_base, number), name, None)
    with house.db.write() as session:
        for prompt in session.exec(select(Prompt).offset(2)):
            session.delete(prompt)
    assert answer(house, *names) == "finished"
    order = [request.adapter for call in engine.calls for request in call]
    assert len(order) == 18
    assert len(set(order[:16])) == 8


def test_a_job_cut_off_goes_on_where_it_was(house: House, engine: Counting) -> None:
    job = house.answers.start("set", "test", ["base"], None)
    house.answers.run(job, should_stop=lambda: bool(stored(house)))
    assert jobs.one(house.db, job).status == "queued"
    assert len(stored(house)) == GROUP
    told: list[tuple[int, int]] = []
    house.answers.run(job, progress=lambda done, total: told.append((done, total)))
    assert jobs.one(house.db, job).status == "finished"
    assert [len(call) for call in engine.calls] == [ROWS, ROWS - GROUP]
    assert told == [(16, ROWS), (20, ROWS)]
    assert (jobs.one(house.db, job).done, jobs.one(house.db, job).total) == (ROWS, ROWS)


def test_an_answer_that_came_is_stored_while_others_are_written(home: Path, db: Any) -> None:
    def script(request: Request) -> str:
        return "short" if "Question 0?" in request.messages[-1].content else "word " * 60

    house = furnish(home, db, Counting(answers=script, delay=0.1))
    job = house.answers.start("set", "test", ["base"], None)
    seen: list[list[str]] = []
    house.answers.run(job, progress=lambda done, total: seen.append([row.text for row in stored(house)]))
    assert seen[0] == ["short"]
    assert jobs.one(db, job).status == "finished"


def test_what_was_asked_for_before_a_check_failed_is_asked_again(home: Path, db: Any) -> None:
    asked = Counting(delay=0.01)
    house = furnish(home, db, asked)
    usual, found = asked._prepare, list[int]()

    def spoil(request: Request) -> Any:
        if not found:
            found.append(record(db, Check("base", False, "The base has changed.")))
        return usual(request)

    asked._prepare = spoil  # type: ignore[method-assign]
    assert answer(house, "base") == "finished"
    assert found
    assert [len(call) for call in asked.calls] == [ROWS, ROWS]
    assert len(stored(house)) == ROWS


def test_a_cancelled_job_stops_and_keeps_what_it_has(house: House, engine: Counting) -> None:
    job = house.answers.start("set", "test", ["base"], None)
    house.answers.run(job, progress=lambda done, total: house.answers.cancel(job))
    assert jobs.one(house.db, job).status == "cancelled"
    assert len(stored(house)) == GROUP
    with pytest.raises(Conflict):
        house.answers.cancel(job)
    house.answers.run(job)
    assert len(engine.calls) == 1


def test_a_batch_under_way_stops_soon_and_keeps_what_is_complete(home: Path, db: Any) -> None:
    def script(request: Request) -> str:
        return "short" if "Question 0?" in request.messages[-1].content else "word " * 250

    house = furnish(home, db, Counting(answers=script, delay=0.05))
    job = house.answers.start("set", "test", ["base"], None)
    begun = time.monotonic()
    house.answers.run(job, should_stop=lambda: time.monotonic() > begun + 1)
    assert time.monotonic() < begun + 6
    assert jobs.one(db, job).status == "queued"
    assert [row.text for row in stored(house)] == ["short"]


def test_an_engine_stopped_with_the_app_puts_the_job_back(home: Path, db: Any) -> None:
    engine = Counting(delay=0.05)
    house = furnish(home, db, engine)
    job = house.answers.start("set", "test", ["base"], None)
    threading.Timer(0.3, engine.close).start()
    house.answers.run(job, should_stop=lambda: engine._closed)
    assert jobs.one(db, job).status == "queued"


def test_one_prompt_that_fails_does_not_take_the_others_along(home: Path, db: Any) -> None:
    def script(request: Request) -> str:
        if "Question 3?" in request.messages[-1].content:
            raise ValueError
        return "fine"

    house = furnish(home, db, ScriptedEngine(script))
    assert answer(house, "base") == "failed"
    assert len(stored(house)) == ROWS - 1
    assert "1 of 20 answers are missing: The script has no answer here" in house.answers.jobs()[0].message


def test_a_model_that_answers_nothing_ends_the_job_soon(home: Path, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("review.services.answering.AT_ONCE", 12)
    engine = Counting(answers={})
    house = furnish(home, db, engine)
    assert answer(house, "base") == "failed"
    assert stored(house) == []
    assert engine.asked == 2 * 12, "the rest was asked for too"
    assert house.answers.jobs()[0].message.startswith("20 of 20 answers are missing")


def test_an_engine_that_is_not_there_fails_the_job_in_words(house: House, engine: Counting) -> None:
    engine.close()
    assert answer(house, "base") == "failed"
    assert "stopped" in house.answers.jobs()[0].message


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (("nowhere", "test", ["base"]), NotFound, "no prompt set"),
        (("set", "dev", ["base"]), BadInput, "no split"),
        (("set", "train", ["base"]), BadInput, "no train prompts"),
        (("set", "test", ["nobody"]), NotFound, "no arm nobody"),
        (("set", "test", []), BadInput, "No arm"),
    ],
)
def test_a_job_that_could_not_work_is_refused_at_once(house: House, given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        house.answers.start(*given, None)
    assert house.answers.jobs() == []


def test_human_is_refused_where_references_are_missing(house: House) -> None:
    with house.db.write() as session:
        session.add(Prompt(set_id=1, split="test", instruction="no reference", content_hash="z"))
    with pytest.raises(BadInput, match="1 prompts of set have no reference"):
        house.answers.start("set", "test", ["base", "human"], None)


def test_an_arm_without_its_adapter_is_refused(with_adapter: House) -> None:
    with_adapter.answers.ensure_arms()
    with_adapter.adapters.remove("one", None)
    assert [arm.usable for arm in with_adapter.answers.arms()] == [True, True, False]
    with pytest.raises(Unavailable, match="removed"):
        with_adapter.answers.start("set", "test", ["one"], None)


def test_an_adapter_that_leaves_between_loading_and_asking_is_brought_back(with_adapter: House, engine: Counting) -> None:
    usual, torn = engine._prepare, []

    def tear(request: Request) -> Any:
        if request.adapter != BASE and not torn:
            torn.append(engine.unload(request.adapter))
        return usual(request)

    engine._prepare = tear  # type: ignore[method-assign]
    assert answer(with_adapter, "one") == "finished"
    assert torn


# Jobs and their owners


def test_only_one_process_gets_a_job_and_the_other_watches_it(house: House) -> None:
    job = house.answers.start("set", "test", ["base"], None)
    jobs.change(house.db, job, status="running", owner=f"{os.getppid()}@{jobs._owner(os.getppid()).partition('@')[2]}")
    assert not jobs.claim(house.db, job)
    watching = threading.Thread(target=house.answers.run, args=(job,))
    watching.start()
    time.sleep(0.1)
    assert stored(house) == []
    jobs.end(house.db, job, "finished")
    watching.join(5)
    assert not watching.is_alive()


def test_a_job_of_a_dead_process_is_queued_again_and_one_of_a_living_is_not(house: House) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = jobs._owner(dead.pid)
    first, second, reused = (house.answers.start("set", "test", ["base"], None) for _ in range(3))
    jobs.change(house.db, first, status="running", owner=owner)
    jobs.change(house.db, second, status="running", owner=jobs._owner(os.getppid()))
    jobs.change(house.db, reused, status="running", owner=f"{os.getppid()}@0")
    jobs.put_back_orphans(house.db)
    assert jobs.one(house.db, first).status == "running"
    dead.kill()
    dead.wait()
    jobs.put_back_orphans(house.db)
    assert [jobs.one(house.db, job).status for job in (first, second, reused)] == ["queued", "running", "queued"]


# The caretaker


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("review.services.caretaker.TICK", 0.02)


def until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_the_caretaker_answers_scores_and_loads_what_is_wanted(with_adapter: House, quick: None) -> None:
    with_adapter.engine.open()
    with caretaking(with_adapter):
        with_adapter.adapters.want("one", True, None)
        until(lambda: with_adapter.adapters.adapter("one").resident)
        first = with_adapter.answers.start("set", "test", ["base", "one"], None)
        until(lambda: jobs.one(with_adapter.db, first).status == "finished")
        second = with_adapter.boards.start_score("set", "test", ["base", "one"], None)
        until(lambda: jobs.one(with_adapter.db, second).status == "finished", 60)
    assert len(stored(with_adapter)) == 2 * ROWS


def test_a_job_is_put_back_when_the_app_stops(home: Path, db: Any, quick: None) -> None:
    house = furnish(home, db, Counting(delay=0.02))
    job = house.answers.start("set", "test", ["base"], None)
    with caretaking(house):
        until(lambda: jobs.one(db, job).done > 0)
    assert jobs.one(db, job).status == "queued"
    with caretaking(house):
        until(lambda: jobs.one(db, job).status == "finished")
    assert len(stored(house)) == ROWS


def test_the_caretaker_survives_whatever_goes_wrong(house: House, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []

    def broken(*given: Any) -> None:
        failures.append(given)
        raise RuntimeError("boom")

    monkeypatch.setattr(house.adapters, "reconcile", broken)
    monkeypatch.setattr(house.answers, "run", broken)
    job = house.answers.start("set", "test", ["base"], None)
    with caretaking(house) as caretaker:
        until(lambda: len(failures) > 3 and jobs.one(house.db, job).status == "failed")
        assert all(thread.is_alive() for thread in caretaker._threads)
    assert "unexpected error" in jobs.one(house.db, job).message


def test_two_caretakers_of_one_data_folder_take_turns(house: House, quick: None) -> None:
    first, second = Caretaker(house), Caretaker(house)
    first.start()
    until(lambda: first._lock is not None)
    second.start()
    time.sleep(0.2)
    assert second._lock is None
    first.stop()
    until(lambda: second._lock is not None)
    second.stop()


# Chat


def steps(house: House, *arms: str, text: str = "Hello") -> list[Any]:
    return list(house.answers.chat(list(arms), [Message("user", text)]))


def test_chat_texts_grow_in_step_and_the_last_step_is_done(with_adapter: House) -> None:
    found = steps(with_adapter, "base", "one")
    assert [step.done for step in found] == [False] * (len(found) - 1) + [True]
    for before, after in pairwise(found):
        assert all(after.texts[name].startswith(before.texts[name]) for name in ("base", "one"))
    shorter = min(len(text.split()) for text in found[-1].texts.values())
    for number, step in enumerate(found[:shorter]):
        assert {len(text.split()) for text in step.texts.values()} == {number + 1}


def test_chat_brings_the_adapter_in_when_it_is_needed(with_adapter: House, engine: Counting) -> None:
    assert engine.adapters() == {}
    steps(with_adapter, "one")
    assert list(engine.adapters()) == [with_adapter.adapters.adapter("one").content_hash]


def test_chat_sends_our_system_text_and_the_whole_conversation(house: House, engine: Counting) -> None:
    turns = [Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "And?")]
    list(house.answers.chat(["base"], turns))
    assert engine.calls[0][0].messages == (Message("system", DEFAULT_SYSTEM), *turns)
    assert not engine.calls[0][0].background


@pytest.mark.parametrize(
    ("arms", "error"), [(["nobody"], NotFound), ([], BadInput), (["human"], BadInput), (["base", "a", "b", "c", "d"], BadInput)]
)
def test_chat_with_what_cannot_chat_is_refused(house: House, arms: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        house.answers.chat(arms, [Message("user", "Hello")])


def test_chat_with_impossible_settings_is_refused(house: House) -> None:
    with pytest.raises(BadInput, match="temperature"):
        house.answers.chat(["base"], [Message("user", "x")], DecodeSpec(temperature=9))


def test_a_failing_arm_ends_the_chat_with_its_reason(house: House) -> None:
    (last,) = steps(house, "base", text="  ")
    assert last.done
    assert "empty" in last.failed


def test_leaving_a_chat_early_stops_its_rows(house: House, engine: Counting) -> None:
    closed = []

    class Watched:
        def __init__(self, events: Any) -> None:
            self._events = events

        def __iter__(self) -> Iterator[Any]:
            return self._events  # type: ignore[no-any-return]

        def close(self) -> None:
            closed.append(True)

    usual = engine.generate
    engine.generate = lambda requests: Watched(usual(requests))  # type: ignore[method-assign, assignment]
    talk = house.answers.chat(["base"], [Message("user", "Hello")])
    next(talk)
    talk.close()  # type: ignore[attr-defined]
    assert closed == [True]


# The whole of it on a model


def test_answers_of_a_real_mixed_batch_are_stored_by_the_arm_that_gave_them(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> None:
    from ft.engine_local import LocalEngine
    from ft.template import messages_for

    engine = LocalEngine(str(tiny_base), home / "bases", device="cpu")
    try:
        house = furnish(home, db, engine, str(tiny_base))
        house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
        assert answer(house, "base", "one") == "finished"
        with db.session() as session:
            arms = {arm.id: (arm, adapter) for arm, adapter in queries.arms(session)}
            prompts = queries.prompts(session, list({row.prompt_id for row in stored(house)}))
        for row in stored(house)[:6]:
            arm, adapter = arms[row.arm_id]
            prompt = prompts[row.prompt_id]
            where = adapter.content_hash if adapter else BASE
            messages = messages_for(prompt.instruction, prompt.input, arm.system_prompt)
            (*_, end) = engine.generate([Request("r", messages, where, DecodeSpec.from_dict(arm.decode))])
            assert not isinstance(end, Failed)
            assert end.text.strip() == row.text  # type: ignore[union-attr]
            assert row.base_hash == f"{engine.identity().base_hash}:float32:none"
    finally:
        engine.close()


def test_every_job_row_says_what_it_was_for(house: House) -> None:
    job = house.answers.start("set", "test", ["base", "base"], None)
    row: Job = jobs.one(house.db, job)
    assert row.spec == {"set": "set", "split": "test", "arms": ["base"]}
    assert row.total == ROWS
    assert row.title == "Answer set (test) with base"
