"""Sweeps: the budget before the start, every combination queued, the best on validation proposed, only the chosen one goes on."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.errors import BadInput, Conflict, NotFound, Unavailable
from ft.journal import TERMINAL
from ft.scripted import ScriptedEngine
from ft.specs import LoraSpec, TrainSpec
from review.screens.lab import compare
from review.services.house import House, build
from review.services.sweeps import differences
from review.settings import Settings
from tests.trainable import tiny_base

QUICK = TrainSpec(name="doors", lora=LoraSpec(rank=4, alpha=8), epochs=1.0, max_steps=2, accumulation=1, samples=0)
ROWS = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}.", "split": "train"} for n in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def house(home: Path, db: Any, base: Path) -> House:
    made = build(Settings(home=home, base=str(base), engine="scripted"), db, ScriptedEngine())
    file = home / "doors.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    made.library.import_file(file, "doors", approve=True)
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The directory of a finished run."""
    root = tmp_path_factory.mktemp("done")
    folder = runs.create(root, "done", QUICK, [{k: v for k, v in row.items() if k != "split"} for row in ROWS], [],
                         runs.BaseChoice(str(base), str(root)))  # fmt: skip
    runs.start(folder)
    while runs.state(folder).status not in TERMINAL:
        time.sleep(0.05)
    assert runs.state(folder).status == "finished"
    return folder


def end(house: House, run_id: str, done: Path, loss: float) -> None:
    """Make the run's directory that of a run which ended with this validation loss."""
    folder = house.settings.home / "runs" / run_id
    for name in ("status.json", "record.json", "log.txt"):
        shutil.copy(done / name, folder / name)
    events = [json.loads(line) for line in (done / "events.jsonl").read_text().splitlines()]
    for event in events:
        if event["kind"] == "validation":
            (event.get("data") or event)["loss"] = loss
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    shutil.copytree(done / "adapter", folder / "adapter")


def test_the_budget_is_told_before_anything_starts(house: House) -> None:
    plan = house.sweeps.plan(QUICK.with_(epochs=2.0), {"rank": [4, 8], "learning_rate": [1e-4, 2e-4], "epochs": [1, 3]}, seconds=60)
    assert len(plan.specs) == 8
    assert plan.words == "8 runs, one after the other, 16 epochs over the examples in all, about 8 minutes."
    assert {(s.lora.rank, s.lora.alpha) for s in plan.specs} == {(4, 8), (8, 16)}
    assert len({s.name for s in plan.specs}) == 8
    assert house.training.runs() == []


def test_the_budget_counts_the_time_that_a_check_of_such_a_run_has_measured(house: House) -> None:
    spec = QUICK.with_(max_steps=0, epochs=2.0)
    assert house.estimates.seconds(spec) is None
    (house.settings.home / "checks").mkdir()
    folder, _ = house.training.lay_out(house.settings.home / "checks", "20260101-000000-aa", house.library.snapshot().id, spec)
    told = {"state": "done", "estimate": {"seconds": 600.0}, "tokens": {"train": {"rows": 12}}}
    (folder / "check.json").write_text(json.dumps(told))
    assert house.estimates.seconds(spec.with_(epochs=4.0)) == 1200
    assert house.estimates.seconds(spec.with_(objective="dpo")) is None
    shown = compare.budget_html(house.sweeps.plan(spec, {"rank": [4, 8]}, house.estimates.seconds(spec)))
    assert "2 runs, one after the other, 4 epochs over the examples in all, about 20 minutes." in shown
    assert "runs, one after the other" in compare.usual_budget(house, ("8, 16", "2e-4", "1"))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"rank": [8]}, "no sweep"),
        ({"rank": [1, 2, 4, 8], "epochs": [1, 2, 3, 4]}, "16 combinations are more than the 12"),
        ({"seed": [1, 2], "rank": [2, 4]}, "seed cannot vary"),
        ({"rank": [8, 1000]}, "rank is 1000"),
        ({"rank": [8, float("inf")], "epochs": [float("nan")]}, "inf is no number to try.*nan is no number to try"),
        ({"rank": [8, 8.5]}, "rank is 8.5: choose whole numbers"),
        ({"rank": list(range(1, 200)), "learning_rate": [n / 1e6 for n in range(5, 900)], "epochs": list(range(1, 50))}, "8727145 comb"),
        ({"rank": [-4, 4]}, "rank is -4"),
    ],
)
def test_a_senseless_grid_is_refused_and_nothing_is_queued(house: House, grid: dict[str, list[float]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        house.sweeps.start(house.library.snapshot().id, QUICK, grid, None)
    assert house.training.runs() == []


def test_the_best_is_proposed_and_only_the_chosen_one_goes_on(house: House, done: Path) -> None:
    sweep = house.sweeps.start(house.library.snapshot().id, QUICK, {"rank": [2, 4], "learning_rate": [1e-4, 1e-3]}, None)
    first, second, third, fourth = (run.run for run in house.sweeps.sweep(sweep).runs)
    end(house, first, done, 2.0)
    end(house, second, done, 1.5)
    house.training.cancel(third, None)
    house.training.cancel(fourth, None)
    for _ in range(4):
        house.training.sync()
    view = house.sweeps.sweep(sweep)
    assert (view.over, view.best, view.chosen) == (True, second, "")
    assert house.adapters.adapters() == [], "nothing goes on unasked"
    with pytest.raises(Conflict, match="cancelled"):
        house.sweeps.choose(sweep, third, None)
    with pytest.raises(NotFound):
        house.sweeps.choose(sweep, "nothing", None)
    house.sweeps.choose(sweep, second, None)
    house.sweeps.choose(sweep, second, None)
    for _ in range(4):
        house.training.sync()
    assert [adapter.run_id for adapter in house.adapters.adapters()] == [second]
    assert house.sweeps.sweep(sweep).chosen == second


def test_cancelling_a_sweep_cancels_what_is_left_of_it(house: House) -> None:
    sweep = house.sweeps.start(house.library.snapshot().id, QUICK, {"rank": [2, 4]}, None)
    house.sweeps.cancel(sweep, None)
    house.training.sync()
    assert {run.status for run in house.sweeps.sweep(sweep).runs} == {"cancelled"}
    assert house.sweeps.sweep(sweep).over


def test_where_one_run_cannot_be_queued_the_others_do_not_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    right = house.training.start
    done: list[str] = []

    def second_fails(*given: Any, **more: Any) -> str:
        if done:
            raise Unavailable("The disk is full. Make room.")
        done.append(right(*given, **more))
        return done[0]

    monkeypatch.setattr(house.training, "start", second_fails)
    with pytest.raises(Unavailable, match="disk is full"):
        house.sweeps.start(house.library.snapshot().id, QUICK, {"rank": [2, 4]}, None)
    house.training.sync()
    assert [view.status for view in house.training.runs()] == ["cancelled"]


def test_runs_side_by_side_show_only_what_differs(house: House) -> None:
    snapshot = house.library.snapshot().id
    ids = [house.training.start(snapshot, QUICK.with_(name=name, learning_rate=rate), None) for name, rate in (("a", 1e-4), ("b", 2e-4))]
    assert differences([house.training.run(run_id) for run_id in ids]) == [("learning_rate", [1e-4, 2e-4])]
