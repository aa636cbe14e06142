"""Training and the answering model on one machine: both where measured memory allows, else the run alone.

The model and the run are real and tiny; only how much memory the machine has is made up.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.engine import BASE, Done, Message, Request
from ft.errors import Unavailable
from ft.journal import TERMINAL, Journal
from ft.memory import Memory
from ft.rundir import RunState
from ft.specs import DecodeSpec, LoraSpec, TrainSpec
from ft.template import messages_for
from review.screens.lab import model_html
from review.services import answers
from review.services.caretaker import Caretaker
from review.services.house import EngineOnDemand, House, build
from review.services.sharing import ALONE, Sharing, words
from review.settings import Settings
from tests.trainable import tiny_base

GB = 2**30
ROWS = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}."} for n in range(12)]
SPEC = TrainSpec(name="helper", lora=LoraSpec(rank=2, alpha=4), max_steps=4, accumulation=1, samples=0)
ASKED = Request("a", messages_for("How do I open door 3?"), BASE, DecodeSpec(max_new_tokens=8))


class Machine(Memory):
    """A GPU of 80 GB; `free_now` is what is left of it."""

    def __init__(self, free_now: int = 60 * GB, on_gpu: bool = True) -> None:
        super().__init__()
        self.free_now, self.gpu = free_now, on_gpu

    @property
    def on_gpu(self) -> bool:
        return self.gpu

    def free(self) -> int:
        return self.free_now

    def total(self) -> int:
        return 80 * GB

    def held(self) -> int:
        return 20 * GB


class Model:
    """What of an engine sharing needs. It gives `size` back when it leaves; `busy` answers are under way."""

    def __init__(self, machine: Machine, size: int = 20 * GB) -> None:
        self.machine, self.size, self.busy, self.is_open, self.away = machine, size, False, True, ""

    def leave(self, words: str, patience: float) -> bool:
        self.away = words
        if self.is_open and not self.busy:
            self.is_open, self.machine.free_now = False, self.machine.free_now + self.size
        return not self.is_open

    def come_back(self) -> None:
        if self.away:
            self.is_open, self.away, self.machine.free_now = True, "", self.machine.free_now - self.size


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


def queued(home: Path, tiny: Path, run_id: str = "r1", spec: TrainSpec = SPEC) -> Path:
    (home / "runs").mkdir(exist_ok=True)
    return runs.create(home / "runs", run_id, spec, ROWS, [], runs.BaseChoice(str(tiny), str(home)))


def checked(home: Path, tiny: Path, peak: int, spec: TrainSpec = SPEC) -> None:
    """A check of `spec` that measured `peak`."""
    (home / "checks").mkdir(exist_ok=True)
    folder = runs.create(home / "checks", f"c{peak}", spec, ROWS, [], runs.BaseChoice(str(tiny), str(home)))
    (folder / "check.json").write_text(json.dumps({"state": "done", "estimate": {"peak_memory": peak}}))


def training(folder: Path, step: int, room: int | None) -> Iterator[None]:
    """The run is under way, as its process would tell; its lock is held while the iterator is not over."""
    lock = runs.take(folder / "lock")
    assert lock is not None
    Journal(folder).status(status="running", step=step, steps=100, seconds_left=720.0, room=room)
    yield
    os.close(lock)


def test_a_run_that_nothing_like_was_measured_has_a_gpu_to_itself_until_it_has_measured_itself(home: Path, tiny: Path) -> None:
    machine = Machine()
    model = Model(machine)
    sharing, folder = Sharing(model, home, machine), queued(home, tiny)
    assert sharing.make_room(folder)
    assert (model.is_open, (folder / ALONE).exists()) == (False, True)
    under_way = training(folder, step=1, room=70 * GB)
    next(under_way)
    sharing.follow(folder)
    assert not model.is_open  # one step says too little
    Journal(folder).status(step=2, room=23 * GB)
    sharing.follow(folder)
    assert not model.is_open  # 20 GB and a tenth, and 3 in 100 of 80 GB to spare
    Journal(folder).status(step=3, room=30 * GB)
    sharing.follow(folder)
    assert model.is_open
    assert not (folder / ALONE).exists()
    list(under_way)


@pytest.mark.parametrize(("peak", "both"), [(20 * GB, True), (55 * GB, False)])
def test_a_measured_run_trains_beside_the_model_where_both_fit(home: Path, tiny: Path, peak: int, both: bool) -> None:
    machine = Machine()
    model = Model(machine)
    checked(home, tiny, peak)
    checked(home, tiny, 1, SPEC.with_(batch_size=2))  # another kind of run says nothing
    folder = queued(home, tiny)
    assert Sharing(model, home, machine).make_room(folder)
    assert (model.is_open, (folder / ALONE).exists()) == (both, not both)


def test_what_an_earlier_run_needed_counts_as_measured(home: Path, tiny: Path) -> None:
    machine = Machine()
    Journal(queued(home, tiny, "r0")).status(status="finished", step=4, peak_memory=10 * GB)
    sharing = Sharing(Model(machine), home, machine)
    assert sharing.measured(runs.read(queued(home, tiny))) == 10 * GB


def test_in_main_memory_both_run_until_little_is_left(home: Path, tiny: Path) -> None:
    machine = Machine(on_gpu=False)
    model = Model(machine)
    sharing, folder = Sharing(model, home, machine), queued(home, tiny)
    assert sharing.make_room(folder)
    assert model.is_open
    under_way = training(folder, step=2, room=GB)
    next(under_way)
    sharing.follow(folder)
    assert not model.is_open
    assert "back in about 12 minutes" in model.away
    list(under_way)
    sharing.follow(None)
    assert model.is_open


def test_a_run_waits_for_a_model_that_is_still_answering(home: Path, tiny: Path) -> None:
    machine = Machine()
    model = Model(machine)
    model.busy = True
    sharing, folder = Sharing(model, home, machine), queued(home, tiny)
    assert not sharing.make_room(folder)
    model.busy = False
    assert sharing.make_room(folder)


def test_a_run_that_ran_out_of_memory_beside_the_model_goes_on_alone_and_stays_alone(home: Path, tiny: Path) -> None:
    machine = Machine()
    model = Model(machine)
    checked(home, tiny, GB)
    sharing, folder = Sharing(model, home, machine), queued(home, tiny)
    assert sharing.make_room(folder)
    journal = Journal(folder)
    journal.status(cause="memory")
    journal.end("failed", "The machine ran out of memory.")
    assert sharing.again_alone(folder, runs.state(folder))
    assert (runs.state(folder).status, "no room for it beside" in runs.state(folder).message) == ("queued", True)
    assert sharing.make_room(folder)
    assert not model.is_open
    under_way = training(folder, step=50, room=79 * GB)
    next(under_way)
    sharing.follow(folder)
    assert not model.is_open
    list(under_way)
    Journal(folder).end("failed", "Again.")
    assert not sharing.again_alone(folder, runs.state(folder))


def test_a_run_that_failed_for_another_reason_stays_failed(home: Path, tiny: Path) -> None:
    machine = Machine()
    folder = queued(home, tiny)
    Journal(folder).end("failed", "The loss became nan.")
    assert not Sharing(Model(machine), home, machine).again_alone(folder, runs.state(folder))


def test_the_words_say_when_the_model_is_back() -> None:
    assert "back in about 2.0 hours" in words(RunState("running", seconds_left=7200))
    assert "when the run is over" in words(RunState("running"))


# With the real model


@pytest.fixture
def house(home: Path, db: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    from ft.engine_local import LocalEngine

    monkeypatch.setattr(answers, "ARM_DECODE", DecodeSpec(max_new_tokens=8))

    settings = Settings(home=home, base=str(tiny), engine="local", demo=False, device="cpu", dtype="float32")
    made = build(settings, db, EngineOnDemand(lambda: LocalEngine(str(tiny), home / "bases", device="cpu", dtype="float32")))
    file = home / "doors.jsonl"
    asked = [{"instruction": f"Who paints wall {n * 17}?", "output": f"Painter {n}.", "split": "test"} for n in range(3)]
    file.write_text("\n".join(json.dumps({"split": "train", **row}) for row in [*ROWS, *asked]))
    made.library.import_file(file, "doors", approve=True)
    made.engine.wait_ready(240)
    yield made
    for view in made.training.runs():
        if view.status in ("queued", "running"):
            runs.cancel(home / "runs" / view.id, grace=2)
    made.engine.close()


def said(house: House) -> str:
    return next(event.text for event in house.engine.generate([ASKED]) if isinstance(event, Done))


def waited(until: Callable[[], bool], tick: Callable[[], object] = lambda: None, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        tick()
        time.sleep(0.05)


def test_a_model_that_left_says_so_everywhere_and_answers_the_same_when_it_is_back(house: House) -> None:
    before = said(house)
    assert house.engine.leave("It is back in about 5 minutes.")
    assert house.engine.status().state == "away"
    assert "back in about 5 minutes" in model_html(house)
    with pytest.raises(Unavailable, match="about 5 minutes"):
        list(house.answers.chat(["base"], (Message("user", "Hello?"),), DecodeSpec(max_new_tokens=4)))
    house.engine.come_back()
    house.engine.wait_ready(240)
    assert said(house) == before


def test_an_answer_under_way_is_said_to_its_end_before_the_model_leaves(house: House) -> None:
    long = Request("a", ASKED.messages, BASE, DecodeSpec(max_new_tokens=200))
    stream = house.engine.generate([long])
    next(stream)
    assert not house.engine.leave("Training has the machine.", patience=60)
    with pytest.raises(Unavailable, match="Training has the machine"):
        house.engine.generate([ASKED])
    assert isinstance(list(stream)[-1], Done)
    waited(lambda: house.engine.leave("Training has the machine."))


def test_a_run_alone_on_the_machine_sends_the_model_away_and_brings_it_back(house: House) -> None:
    """From the queue to the board: answering waits meanwhile and is done afterwards."""
    house.training._sharing = Sharing(house.engine, house.settings.home, Machine())
    caretaker = Caretaker(house)
    house.answers.ensure_arms()
    run_id = house.training.start(house.library.snapshot().id, SPEC, by=None)
    states = set()

    def tick() -> None:
        house.training.share()
        house.training.sync()
        states.add((house.training.run(run_id).status, house.engine.status().state))

    waited(lambda: house.training.run(run_id).status == "running", tick)
    job = house.answers.start("doors", "test", ["base"], None)
    assert not caretaker._next_job()
    waited(lambda: house.training.run(run_id).status in TERMINAL, tick, 300)
    assert ("running", "away") in states
    assert ("running", "ready") not in states
    house.training.share()
    house.engine.wait_ready(240)

    def both() -> None:
        tick()
        caretaker._next_job()

    waited(lambda: {view.id: view.status for view in house.answers.jobs()}[job] == "finished", both)
