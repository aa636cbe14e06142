"""Training as people see it: queue, watch, cancel, and what follows; the database catches up whatever was cut off."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.errors import BadInput, Busy, Conflict, NotFound
from ft.journal import TERMINAL, Journal, read_status
from ft.scripted import ScriptedEngine
from ft.specs import LoraSpec, TrainSpec
from review.services.after_training import AfterTraining, free_name
from review.services.house import House, build
from review.services.training import RunView, Training
from review.settings import Settings
from storage.tables import Adapter, Prompt, PromptSet, RunEvent
from tests.trainable import tiny_base

QUICK = TrainSpec(name="helper", lora=LoraSpec(rank=2, alpha=4), max_steps=3, accumulation=1, samples=0)
ROWS = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}."} for n in range(12)]
LONG = QUICK.with_(max_steps=20_000)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> list[Path]:
    """Directories of two finished runs with different adapters."""
    root = tmp_path_factory.mktemp("trained")
    folders = []
    for seed in (7, 8):
        folder = runs.create(root, f"seed-{seed}", QUICK.with_(seed=seed), ROWS, [], runs.BaseChoice(str(base), str(root)))
        runs.start(folder)
        while runs.state(folder).status not in TERMINAL or runs.is_held(root / "lease"):
            time.sleep(0.05)
        folders.append(folder)
    return folders


@pytest.fixture
def house(home: Path, db: Any, base: Path) -> Iterator[House]:
    made = build(Settings(home=home, base=str(base), engine="scripted"), db, ScriptedEngine())
    rows = [{**row, "split": "train"} for row in ROWS]
    rows += [{"instruction": f"Who paints wall {n * 17}?", "output": f"Painter {n}.", "split": "test"} for n in range(3)]
    file = home / "doors.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    made.library.import_file(file, "doors", approve=True)
    yield made
    for view in made.training.runs():
        if view.status in ("queued", "running"):
            runs.cancel(home / "runs" / view.id, grace=2)


def begun(house: House, spec: TrainSpec = QUICK) -> str:
    return house.training.start(house.library.snapshot().id, spec, by=None)


def ended_meanwhile(house: House, done: Path, spec: TrainSpec = QUICK) -> str:
    """A run whose directory says finished, as after a run that ended while no app was up."""
    run_id = begun(house, spec)
    folder = house.settings.home / "runs" / run_id
    for name in ("status.json", "events.jsonl", "record.json", "log.txt"):
        shutil.copy(done / name, folder / name)
    shutil.copytree(done / "adapter", folder / "adapter")
    return run_id


def synced(house: House, run_id: str, until: Callable[[RunView], bool], seconds: float = 300) -> RunView:
    """Do what the caretaker does until the run is so far."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        house.training.sync()
        for job in house.answers.jobs():
            if job.status == "queued":
                (house.answers if job.kind == "answer" else house.boards).run(job.id)
        view = house.training.run(run_id)
        if until(view):
            return view
        time.sleep(0.05)
    raise AssertionError(house.training.run(run_id))


def is_over(view: RunView) -> bool:
    return view.status in TERMINAL


def test_a_run_ends_on_the_board(house: House) -> None:
    run_id = begun(house)
    assert house.training.run(run_id).status == "queued"
    view = synced(house, run_id, lambda view: view.after == "scored")
    assert (view.status, view.adapter, view.step, view.steps) == ("finished", "helper", 3, 3)
    assert [step for step, _ in view.curve] == [1, 2, 3]
    assert view.validation[0][0] == 0
    assert "validation loss" in view.message
    assert view.started_at is not None
    assert view.ended_at is not None
    row = house.boards.board("doors").row("helper")
    assert row is not None
    assert row.answers == 3
    assert row.scores
    events = len(events_of(house, run_id))
    house.training.sync()
    assert len(events_of(house, run_id)) == events
    assert jobs_on(house, "doors") == ["answer", "answer", "score", "score"]


def test_a_new_adapter_is_compared_with_the_base_and_a_study_waits_though_nobody_had_the_base_answer(
    house: House, trained: list[Path]
) -> None:  # fmt: skip
    synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "checked")
    case = house.promotions.case("helper")
    assert [line.set_name for line in case.scores] == ["doors"]
    assert "ROUGE-L" in case.scores[0].versus_base
    assert [(study.name, study.state) for study in house.studies.studies()] == [("helper against base", "draft")]
    house.promotions.promote("helper", None)
    synced(house, ended_meanwhile(house, trained[1], QUICK.with_(name="second")), lambda view: view.after == "checked")
    assert "ROUGE-L" in house.promotions.case("second").scores[0].versus_used


def jobs_on(house: House, set_name: str) -> list[str]:
    return sorted(job.kind for job in house.answers.jobs() if f" {set_name} " in job.title)


def test_a_scored_adapter_is_looked_at_for_what_got_worse_and_waits_for_people(house: House, trained: list[Path]) -> None:
    house.answers.ensure_arms()
    house.answers.run(house.answers.start("doors", "test", ["base"], None))
    view = synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "checked")
    found = house.keeping.compare("helper", "base")
    assert found.complete
    assert found.total >= 30
    assert "# helper" in (house.settings.home / "adapters" / house.adapters.adapter("helper").content_hash / "README.md").read_text()
    (study,) = house.studies.studies()
    assert (study.name, study.state) == ("helper against base", "draft")
    assert house.adapters.in_use() is None, "nothing goes into use by itself"
    assert house.promotions.ask("helper", None) == 0, "everything is answered"
    assert view.message.count("stopped") == 0
    for _ in range(3):
        house.training.sync()
    assert len(house.studies.studies()) == 1


def test_an_adapter_in_use_that_is_in_quarantine_holds_up_nothing(house: House, trained: list[Path]) -> None:
    house.adapters.register(trained[1] / "adapter", "old", None, foreign=True)
    house.answers.ensure_arms()
    house.adapters.use("old", None)
    with house.db.write() as session:
        session.get_one(Adapter, 1).status = "quarantined"
    view = synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "checked")
    assert "What got worse was not looked at against old" in view.message
    assert house.keeping.compare("helper", "base").complete
    assert "# helper" in (house.adapters.folder("helper") / "README.md").read_text()


def test_a_study_that_cannot_be_prepared_keeps_no_card_from_being_written(house: House, trained: list[Path]) -> None:
    def refuses(*given: Any, **more: Any) -> Any:
        raise Conflict("A study of that name exists already.")

    house.answers.ensure_arms()
    house.answers.run(house.answers.start("doors", "test", ["base"], None))
    house.studies.create = refuses  # type: ignore[method-assign]
    view = synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "checked")
    assert "No study was prepared: A study of that name exists already." in view.message
    assert "# helper" in (house.adapters.folder("helper") / "README.md").read_text()


@pytest.mark.parametrize("step", ["answers.start", "studies.create", "adapters.register"])
def test_a_busy_database_puts_a_follow_up_off_and_ends_nothing(house: House, trained: list[Path], step: str) -> None:
    service, name = step.split(".")
    owner = getattr(house, service)
    real, refusals = getattr(owner, name), []

    def busy_twice(*given: Any, **more: Any) -> Any:
        if len(refusals) < 2:
            refusals.append(1)
            raise Busy("Others write to the database just now. Try again in a moment.")
        return real(*given, **more)

    house.answers.ensure_arms()
    if step == "studies.create":
        house.answers.run(house.answers.start("doors", "test", ["base"], None))
    setattr(owner, name, busy_twice)
    view = synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "checked")
    assert len(refusals) == 2
    assert "Others write" not in view.message
    assert any(study.arms == ("base", "helper") for study in house.studies.studies())


def test_asking_twice_queues_the_questions_once(house: House, trained: list[Path]) -> None:
    house.adapters.register(trained[0] / "adapter", "helper", None, foreign=True)
    house.answers.ensure_arms()
    assert house.promotions.ask("helper", None) == 1
    assert house.promotions.ask("helper", None) == 0, "its job waits already"
    for job in house.answers.jobs():
        house.answers.run(job.id)
    assert house.keeping.compare("helper", "base").complete
    assert house.promotions.ask("helper", None, against="helper") == 0
    with pytest.raises(NotFound):
        house.promotions.ask("nobody", None)


def events_of(house: House, run_id: str) -> list[RunEvent]:
    from storage.queries import training as queries

    with house.db.session() as session:
        return list(queries.events(session, run_id))


def test_the_same_name_again_becomes_the_next_version(house: House, trained: list[Path]) -> None:
    synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "scored")
    assert any("helper-v2" in note for note in house.training.check(house.library.snapshot().id, QUICK).notes)
    second = synced(house, ended_meanwhile(house, trained[1]), lambda view: view.after == "scored")
    assert second.adapter == "helper-v2"


@pytest.mark.parametrize(
    ("wanted", "taken", "name"),
    [
        ("a", set(), "a"),
        ("a", {"a"}, "a-v2"),
        ("A", {"a", "a-v2"}, "A-v3"),
        ("a-v1", {"a-v1"}, "a-v2"),
        ("a-v9", {"a-v9"}, "a-v10"),
        ("x" * 64, {"x" * 64}, "x" * 61 + "-v2"),
        (" a ", {"a"}, "a-v2"),
    ],
)
def test_a_free_name_is_the_next_version(wanted: str, taken: set[str], name: str) -> None:
    assert free_name(wanted, taken) == name


def test_every_problem_is_told_before_the_start(house: House) -> None:
    bad = QUICK.with_(name="base", learning_rate=9.0)
    found = house.training.check(house.library.snapshot().id, bad)
    assert len(found.problems) == 2
    assert any("held out" in note for note in found.notes)
    problems = found.problems
    with pytest.raises(BadInput) as error:
        house.training.start(house.library.snapshot().id, bad, by=None)
    assert all(problem in str(error.value) for problem in problems)
    assert house.training.runs() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 5}, "name is 5: write text"),
        ({"epochs": "three"}, "epochs is 'three': write a number"),
        ({"epochs": float("nan")}, "epochs is nan: write a number"),
        ({"batch_size": 2.5}, "batch_size is 2.5: write a whole number"),
        ({"packing": "yes"}, "packing is 'yes': write true or false"),
        ({"lora": {"rank": "16"}}, "rank is '16': write a whole number"),
        ({"lora": {"targets": ["q_proj", 3]}}, "targets is"),
        ({"lora": 16}, "lora is 16: write its settings"),
        ({"start_from": ["x"]}, "start_from is"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_beside_all_else(house: House, changes: dict[str, Any], words: str) -> None:
    spec = TrainSpec.from_dict({"name": "base", "learning_rate": 9.0} | changes)
    problems = house.training.check(house.library.snapshot().id, spec).problems
    assert any(problem.startswith("name is ") for problem in problems), problems
    assert any(problem.startswith(words) for problem in problems), problems
    assert any(problem.startswith("learning_rate is 9.0") for problem in problems), problems


def test_layers_that_the_base_has_not_are_named_before_the_start_with_those_it_has(house: House) -> None:
    bad = QUICK.with_(lora=LoraSpec(rank=2, alpha=4, targets=("q_proj", "w_pack")), epochs=0.0)
    problems = house.training.check(house.library.snapshot().id, bad).problems
    assert len(problems) == 2
    assert "no module w_pack that can be trained. Choose all-linear, or from: down_proj" in problems[1]


def test_a_base_that_is_not_there_is_told_before_the_start(house: House, home: Path) -> None:
    snapshot = house.library.snapshot().id
    training = Training(house.db, home, house.library, runs.BaseChoice("/nowhere/llama", str(home)))
    with pytest.raises(BadInput, match="base model /nowhere/llama is not there"):
        training.start(snapshot, QUICK, by=None)
    assert training.runs() == []


def test_a_snapshot_emptied_by_exclusions_is_one_clear_sentence_and_nothing_is_lost(house: House) -> None:
    before = len(house.library.examples(state="approved", limit=100))
    with house.db.write() as session:  # as if the questions had been asked before they were known to be alike
        session.add(PromptSet(id=99, name="held out"))
        session.flush()
        tests = enumerate(ROWS)
        session.add_all(Prompt(set_id=99, split="test", instruction=row["instruction"], content_hash=f"t{n}") for n, row in tests)
    with pytest.raises(BadInput, match=r"Every approved example is too close to a test prompt\. Approve others"):
        house.library.snapshot()
    assert len(house.training.too_close(QUICK)) == before == len(house.library.examples(state="approved", limit=100))
    assert house.training.runs() == []


def test_a_disk_without_room_is_told_before_the_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(BadInput, match="needs at least 47 MB of disk for its checkpoints, and 0 MB are free: make room"):
        begun(house)
    assert house.training.runs() == []


def test_a_run_finished_by_a_person_keeps_the_best_and_goes_on_to_the_board(house: House) -> None:
    run_id = begun(house, LONG)
    with pytest.raises(Conflict, match="not training"):
        house.training.finish(run_id, None)
    view = synced(house, run_id, lambda view: view.step > 0)
    assert view.can_finish
    house.training.finish(run_id, None)
    assert not house.training.run(run_id).can_finish
    view = synced(house, run_id, lambda view: view.after == "registered")
    assert (view.status, view.adapter) == ("finished", "helper")
    assert "ended on request" in view.message
    assert view.step < view.steps


def test_what_is_not_there_is_said(house: House) -> None:
    with pytest.raises(NotFound, match="snapshot"):
        house.training.start(999, QUICK, by=None)
    for act in (house.training.run, lambda run_id: house.training.cancel(run_id, None)):
        with pytest.raises(NotFound, match="no run"):
            act("nothing")


def test_rows_that_are_all_held_out_are_told_as_such() -> None:
    assert runs.data_problems([], ROWS) == ["All 12 examples are held out for validation: approve at least 2 that are not."]
    assert runs.data_problems([], []) == ["There are 0 examples to learn from: approve at least 2."]


def test_one_run_trains_at_a_time_in_the_order_they_came(house: House) -> None:
    first, second = begun(house, LONG), begun(house)
    synced(house, first, lambda view: view.status == "running")
    for _ in range(3):
        house.training.sync()
    assert house.training.run(second).status == "queued"
    house.training.cancel(first, None)
    assert synced(house, second, is_over).status == "finished"
    assert house.training.run(first).status == "cancelled"


def test_a_queued_run_is_cancelled_at_once(house: House) -> None:
    run_id = begun(house)
    house.training.cancel(run_id, None)
    view = house.training.run(run_id)
    assert (view.status, view.step) == ("cancelled", 0)
    with pytest.raises(Conflict, match="over already"):
        house.training.cancel(run_id, None)
    house.training.sync()
    assert house.training.run(run_id).status == "cancelled"


def test_a_cancelled_run_makes_no_adapter(house: House) -> None:
    run_id = begun(house, LONG)
    synced(house, run_id, lambda view: view.step > 0)
    house.training.cancel(run_id, None)
    view = synced(house, run_id, is_over)
    assert view.status == "cancelled"
    assert house.adapters.adapters() == []


def test_a_killed_trainer_is_lost_in_words_and_the_next_run_goes_on(house: House) -> None:
    first, second = begun(house, LONG), begun(house)
    synced(house, first, lambda view: view.step > 0)
    os.kill(int(read_status(house.settings.home / "runs" / first)["pid"]), signal.SIGKILL)
    view = synced(house, first, is_over)
    assert view.status == "lost"
    assert "killed" in view.message
    assert view.ended_at is not None
    assert synced(house, second, is_over).status == "finished"


def test_a_running_run_is_adopted_after_a_restart_and_not_started_twice(house: House, base: Path) -> None:
    from storage.database import Database

    run_id = begun(house, LONG)
    synced(house, run_id, lambda view: view.step > 0)
    pid = read_status(house.settings.home / "runs" / run_id)["pid"]
    again = Database(f"sqlite:///{house.settings.home / 'tiebreak.db'}")
    other = build(house.settings, again, ScriptedEngine())
    seen = len(events_of(other, run_id))
    synced(other, run_id, lambda _: len(events_of(other, run_id)) > seen)
    assert read_status(house.settings.home / "runs" / run_id)["pid"] == pid
    other.training.cancel(run_id, None)
    assert synced(other, run_id, is_over).status == "cancelled"
    again.close()


def test_a_run_that_ended_while_the_app_was_down_is_picked_up(house: House, trained: list[Path]) -> None:
    view = synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "scored")
    assert view.adapter == "helper"
    assert len(view.curve) == 3


def test_a_vanished_run_directory_is_lost(house: House) -> None:
    run_id = begun(house)
    shutil.rmtree(house.settings.home / "runs" / run_id)
    view = synced(house, run_id, is_over)
    assert view.status == "lost"
    assert "gone" in view.message


def test_two_apps_copy_each_event_once(house: House, home: Path) -> None:
    run_id = begun(house)
    journal = Journal(home / "runs" / run_id)
    for step in range(200):
        journal.event("train", step, loss=1.0)
    failures: list[Exception] = []

    def copy() -> None:
        try:
            for _ in range(5):
                house.training._copy(house_row)
        except Exception as error:
            failures.append(error)

    from storage.queries import training as queries

    with house.db.session() as session:
        house_row = queries.get(session, run_id)
    assert house_row is not None
    threads = [threading.Thread(target=copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [event.seq for event in events_of(house, run_id)] == list(range(1, 201))


class Killed(BaseException):
    """Stands for kill -9 between two steps: nothing catches it."""


@pytest.mark.parametrize("at", ["registered", "answered", "scored"])
def test_what_follows_is_taken_up_wherever_it_was_cut_off(
    house: House, trained: list[Path], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is done but not yet written down when the app is killed; nothing is done twice."""
    right = AfterTraining._mark
    killed = []

    def mark(self: AfterTraining, run_id: str, after: str) -> None:
        if after == at and not killed:
            killed.append(after)
            raise Killed
        right(self, run_id, after)

    monkeypatch.setattr(AfterTraining, "_mark", mark)
    run_id = ended_meanwhile(house, trained[0])
    with pytest.raises(Killed):
        synced(house, run_id, lambda view: view.after == "scored")
    assert synced(house, run_id, lambda view: view.after == "scored").adapter == "helper"
    assert [view.name for view in house.adapters.adapters()] == ["helper"]
    assert jobs_on(house, "doors") == ["answer", "answer", "score", "score"]


def test_a_stuck_follow_up_says_so_and_goes_on_when_mended(house: House, trained: list[Path]) -> None:
    run_id = ended_meanwhile(house, trained[0])
    while house.training.run(run_id).after != "registered":
        house.training.sync()
        time.sleep(0.05)
    house.training.sync()
    house.answers.cancel(next(job.id for job in house.answers.jobs() if "helper" in job.title))
    house.training.sync()
    house.training.sync()
    message = house.training.run(run_id).message
    assert message.count("was cancelled") == 1
    assert "Start it again" in message
    house.answers.start("doors", "test", ["helper"], None)
    assert synced(house, run_id, lambda view: view.after == "scored")


def test_an_adapter_that_is_refused_is_told_and_not_tried_again_and_again(
    house: House, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    right = house.adapters.register

    def register(*args: Any, **kwargs: Any) -> Any:
        tries.append(args)
        (args[0] / "adapter_config.json").write_text("{}")
        return right(*args, **kwargs)

    monkeypatch.setattr(house.adapters, "register", register)
    run_id = ended_meanwhile(house, trained[0])
    view = synced(house, run_id, lambda view: "What follows" in view.message)
    for _ in range(3):
        house.training.sync()
    assert view.status == "finished"
    assert len(tries) == 1


def test_a_run_without_test_prompts_is_done_once_registered(home: Path, db: Any, base: Path, trained: list[Path]) -> None:
    made = build(Settings(home=home, base=str(base), engine="scripted"), db, ScriptedEngine())
    file = home / "few.jsonl"
    file.write_text("\n".join(f'{{"instruction": "Which key opens {n * 7919}?", "output": "Key {n}."}}' for n in range(6)))
    made.library.import_file(file, "few", split="train", approve=True)
    view = synced(made, ended_meanwhile(made, trained[0]), lambda view: view.after == "scored")
    assert view.adapter == "helper"
    assert jobs_on(made, "few") == []


def test_watching_costs_no_write_when_nothing_happens(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = begun(house)
    house.training.cancel(run_id, None)
    house.training.sync()

    def refuse() -> None:
        raise AssertionError("wrote")

    monkeypatch.setattr(house.db, "write", refuse)
    house.training.sync()


def test_a_spec_of_a_newer_program_is_still_shown(house: House) -> None:
    from storage.queries import training as queries

    run_id = begun(house)
    with house.db.write() as session:
        row = queries.get(session, run_id)
        assert row is not None
        row.spec = {**row.spec, "from_the_future": 1}
        session.add(row)
    assert house.training.run(run_id).name == "helper"


def test_training_works_without_a_follow_up(house: House) -> None:
    alone = Training(house.db, house.settings.home, house.library, runs.BaseChoice(house.settings.base, str(house.settings.home / "bases")))
    run_id = alone.start(house.library.snapshot().id, QUICK, None)
    while alone.run(run_id).status not in TERMINAL:
        alone.sync()
        time.sleep(0.05)
    assert (alone.run(run_id).status, alone.run(run_id).after) == ("finished", "")


def test_a_run_is_paused_resumed_and_after_a_kill_goes_on_by_itself(house: House) -> None:
    run_id = begun(house, QUICK.with_(max_steps=2500, evaluations=1, checkpoint_minutes=1e-9))
    folder = house.settings.home / "runs" / run_id
    synced(house, run_id, lambda view: view.step > 1)
    house.training.pause(run_id, None)
    view = synced(house, run_id, lambda view: view.status == "paused")
    assert "Paused at step" in view.message
    assert view.can_resume
    with pytest.raises(Conflict, match="not under way"):
        house.training.pause(run_id, None)
    house.training.resume(run_id, None)
    assert house.training.run(run_id).status == "queued"
    seen = view.step
    synced(house, run_id, lambda view: view.step > seen + 1)
    os.kill(int(read_status(folder)["pid"]), signal.SIGKILL)
    synced(house, run_id, lambda _: "Went on from the checkpoint" in str([event.data for event in events_of(house, run_id)][-40:]))
    assert len([event for event in events_of(house, run_id) if event.kind == "resumed"]) >= 1
    house.training.cancel(run_id, None)
    view = synced(house, run_id, is_over)
    assert view.status == "cancelled"
    steps = [step for step, _ in view.curve]
    assert steps == sorted(set(steps)), "a step that was done again is shown once"
    with pytest.raises(Conflict):
        house.training.resume(run_id, None)


def test_a_run_learns_from_votes_through_the_whole_house(house: House) -> None:
    """The rows of a run on votes come from the snapshot's preferences, and what it cannot learn from is said."""
    snapshot = house.library.snapshot().id
    found = house.training.check(snapshot, QUICK.with_(objective="dpo"))
    assert any("0 judged answers" in words for words in found.problems)


def test_going_on_from_an_adapter_takes_its_settings_along(house: House, trained: list[Path]) -> None:
    synced(house, ended_meanwhile(house, trained[0]), lambda view: view.after == "scored")
    spec = QUICK.with_(name="on", start_from="helper", lora=LoraSpec(rank=32, alpha=64, dropout=0.1))
    snapshot = house.library.snapshot().id
    found = house.training.check(snapshot, spec)
    assert any("goes on from helper" in note for note in found.notes), found
    run_id = house.training.start(snapshot, spec, None)
    kept = house.training.run(run_id).spec.lora
    assert (kept.rank, kept.alpha, kept.dropout) == (2, 4, 0.1)
    assert sorted(path.name for path in (house.settings.home / "runs" / run_id / "start").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert house.training.adapters() == ["helper"]
    for name, words in (("ghost", "no adapter ghost"),):
        with pytest.raises(BadInput, match=words):
            house.training.start(snapshot, spec.with_(start_from=name), None)


def test_a_run_whose_folder_is_gone_cannot_be_resumed(house: House) -> None:
    run_id = begun(house)
    house.training.pause(run_id, None)
    shutil.rmtree(house.settings.home / "runs" / run_id)
    with pytest.raises(Conflict, match=r"is gone|cannot go on"):
        house.training.resume(run_id, None)
