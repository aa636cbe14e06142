"""What a run gives: the same snapshot, spec and seed give the same losses; on real data a balanced run beats the base.

The second is a matter of ten minutes and more: it asks for TIEBREAK_FULL=1, and for the shared data beside the checkout.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft.advice import PRESETS
from ft.journal import TERMINAL
from ft.scripted import ScriptedEngine
from ft.specs import LoraSpec, TrainSpec
from review.services.caretaker import caretaking
from review.services.house import House, build, open_house
from review.services.run_views import RunView
from review.settings import Settings
from tests.conftest import shared
from tests.trainable import tiny_base

FULL = os.environ.get("TIEBREAK_FULL") == "1"
SMALL = TrainSpec(name="doors", lora=LoraSpec(rank=4, alpha=8, dropout=0.1), max_steps=6, accumulation=1, evaluations=2, samples=0)


@pytest.fixture
def house(home: Path, db: Any) -> House:
    made = build(Settings(home=home, base=str(tiny_base(home / "tiny")), engine="scripted"), db, ScriptedEngine())
    rows = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}.", "split": "train"} for n in range(24)]
    (home / "doors.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made.library.import_file(home / "doors.jsonl", "doors", approve=True)
    return made


def trained(house: House, spec: TrainSpec, seconds: float = 300) -> RunView:
    """The run of a spec on what is approved now, once it has ended."""
    run_id = house.training.start(house.library.snapshot().id, spec, by=None)
    deadline = time.monotonic() + seconds
    while (view := house.training.run(run_id)).status not in TERMINAL and time.monotonic() < deadline:
        house.training.sync()
        time.sleep(0.05)
    assert view.status == "finished", (view.message, view.log)
    return view


def losses(view: RunView) -> tuple[Any, ...]:
    return view.curve, view.norms, view.validation


def test_the_same_snapshot_spec_and_seed_give_the_same_losses(house: House) -> None:
    first, again = trained(house, SMALL), trained(house, SMALL)
    assert len({loss for _, loss in first.curve}) == 6
    assert len(first.validation) >= 2
    assert losses(first) == losses(again)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Iterator[House]:
    """The real base, with 600 rows of the shared instructions: 60 drawn for the test set, and by the importer what is close to them."""
    if not FULL:
        pytest.skip("many minutes on the real model: set TIEBREAK_FULL=1")
    rows = json.loads(shared("rasbt_instructions", "instruction-data.json").read_text())
    random.Random(17).shuffle(rows)
    split = ["test"] * 60 + ["train"] * 490 + ["validation"] * 50
    home = tmp_path_factory.mktemp("proof")
    file = home / "rasbt.jsonl"
    file.write_text("\n".join(json.dumps({**row, "split": part}) for row, part in zip(rows, split, strict=False)))
    with open_house(Settings(home=home, base=str(base_folder), demo=False)) as house:
        house.library.import_file(file, "rasbt", approve=True)
        yield house


def test_a_balanced_run_beats_the_base_on_the_held_out_part(real: House) -> None:
    """Paired 95 % intervals of the difference, clear of zero."""
    spec = PRESETS["balanced"].on(real.training.defaults()).with_(name="rasbt-v1")
    run_id = real.training.start(real.library.snapshot().id, spec, by=None)
    deadline = time.monotonic() + 3600
    with caretaking(real):
        while (view := real.training.run(run_id)).after not in ("scored", "checked") and time.monotonic() < deadline:
            assert view.status not in ("failed", "lost", "cancelled"), view.message
            time.sleep(1)
    real.answers.run(real.answers.start("rasbt", "test", ["base"], None))
    real.boards.score("rasbt", "test", ["base"], None)
    row = real.boards.board("rasbt", "test").row(view.adapter)
    assert row is not None
    for metric in ("rougeL", "meteor"):
        assert row.versus_base[metric].low > 0, (metric, row.versus_base[metric])


def test_on_the_real_base_too_losses_are_the_same_twice(real: House) -> None:
    spec = real.training.defaults().with_(name="twice", max_steps=4, evaluations=2, samples=0)
    first, again = trained(real, spec, 900), trained(real, spec, 900)
    assert losses(first) == losses(again)
