"""Arm integrity: planted faults are caught, the answers made meanwhile are taken back and made again, and the page tells it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.engine import BASE, Check
from ft.errors import Refused, Unavailable, UserError
from ft.scripted import ScriptedEngine
from review.commands.main import program
from review.services import proofs
from review.services.house import House
from tests.test_answers import ROWS, answer, furnish, stored
from tests.test_engine import tiny_base
from tests.tiny import config_for, make_adapter, tensors_for, write_adapter

__all__ = ["tiny_base"]


@pytest.fixture
def local(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> Iterator[House]:
    """A house on the local engine with the tiny base and two adapters in memory, all found good."""
    from ft.engine_local import LocalEngine

    engine = LocalEngine(str(tiny_base), home / "bases", device="cpu", dtype="float32")
    engine.wait_ready(240)
    house = furnish(home, db, engine, str(tiny_base))
    for number, name in enumerate(("one", "two"), 1):
        house.adapters.register(make_adapter(tmp_path / name, tiny_base, number), name, None)
        house.adapters.want(name, True, None)
    house.engine.open()
    house.adapters.reconcile()
    yield house
    engine.close()


def residents(house: House) -> Any:
    return house.engine.open()._residents  # type: ignore[attr-defined]


def plant(house: House, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    """Let `wrong(names)` say which adapters really compute a batch of these names."""
    held = residents(house)
    usual = held.forward
    monkeypatch.setattr(held, "forward", lambda names, *given, **inputs: usual(wrong(list(names)), *given, **inputs))


def live(house: House, arm: str) -> int:
    ids = {one.name: one.id for one in house.answers.arms()}
    return sum(row.arm_id == ids[arm] and row.voided_at is None for row in stored(house))


def state(house: House, name: str) -> str:
    return next(arm.proof for arm in house.integrity.view().arms if arm.name == name)


def test_arms_that_are_what_they_say_are_found_good_and_written_down(local: House) -> None:
    assert local.integrity.check()
    view = local.integrity.view()
    assert [(arm.name, arm.proof) for arm in view.arms] == [("base", "good"), ("one", "good"), ("two", "good")]
    assert [(check.kind, check.adapter) for check in view.checks] == [("base", ""), ("pair", "one"), ("pair", "two")]
    assert view.checks[0].words == "The base and 2 adapters in memory compute what they did when loaded."
    assert view.arms[0].fingerprint == local.engine.identity().base_hash
    assert view.voided == ()


def test_an_adapter_applied_to_the_base_pane_is_caught_and_the_answers_since_are_made_again(
    local: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = local.adapters.adapter("one").content_hash
    assert answer(local, "human") == "finished"
    local.integrity.check()
    with monkeypatch.context() as planted:
        plant(local, planted, lambda names: [one if name == BASE and one in names else name for name in names])
        assert answer(local, "base", "one", "two") == "finished"
        assert not local.integrity.check()
    assert (state(local, "one"), state(local, "two")) == ("bad", "good")
    assert one not in local.engine.adapters()
    assert (live(local, "base"), live(local, "one"), live(local, "two"), live(local, "human")) == (0, 0, ROWS, ROWS)
    view = local.integrity.view()
    bad = next(check for check in view.checks if not check.ok)
    assert (bad.kind, bad.adapter, bad.voided) == ("pair", "one", 2 * ROWS)
    assert {(gone.arm, gone.answers) for gone in view.voided} == {("base", ROWS), ("one", ROWS)}
    assert view.waiting == (("base", "set", "test"), ("one", "set", "test"))
    with pytest.raises(Refused, match="set aside"):
        local.adapters.use("one", None)

    local.integrity.look()
    again = local.answers.jobs()[0]
    assert again.title == "Answer set (test) with base"
    assert local.integrity.view().waiting == (("one", "set", "test"),)
    local.answers.run(again.id)
    assert live(local, "base") == ROWS
    assert {row.void_reason for row in stored(local) if row.voided_at} == {bad.words}


def test_an_adapter_that_stops_doing_anything_is_caught(local: House, monkeypatch: pytest.MonkeyPatch) -> None:
    two = local.adapters.adapter("two").content_hash
    answer(local, "base", "one")
    with monkeypatch.context() as planted:
        plant(local, planted, lambda names: [BASE if name == two else name for name in names])
        answer(local, "two")
        assert not local.integrity.check()
    assert [state(local, name) for name in ("base", "one", "two")] == ["good", "good", "bad"]
    assert live(local, "two") == 0
    assert live(local, "one") == ROWS


def test_an_adapter_that_leaves_while_all_are_looked_at_is_no_fault(local: House, monkeypatch: pytest.MonkeyPatch) -> None:
    one, check = local.adapters.adapter("one").content_hash, local.engine.check

    def leaving(name: str = BASE) -> Check:
        if name == one:
            local.engine.unload(one)
        return check(name)

    answer(local, "one", "two")
    monkeypatch.setattr(local.engine, "check", leaving)
    assert local.integrity.check()
    assert state(local, "two") == "good"
    assert all(check.ok for check in local.integrity.view().checks)


def test_an_adapter_that_does_nothing_never_comes_in(local: House, tiny_base: Path, tmp_path: Path) -> None:
    tensors = {key: value * (1e-12 if "lora_B" in key else 1) for key, value in tensors_for(tiny_base, 7).items()}
    view = local.adapters.register(write_adapter(tmp_path / "faint", tensors, config_for()), "faint", None)
    with pytest.raises(UserError, match="changes nothing"):
        local.adapters.bring(view.id)
    assert view.content_hash not in local.engine.adapters()
    found = local.integrity.view()
    assert (found.checks[0].adapter, found.checks[0].ok) == ("faint", False)
    assert state(local, "faint") == "bad"
    assert local.integrity.check()


def test_a_changed_base_tensor_stops_the_model_and_takes_all_answers_since_back(local: House) -> None:
    import torch

    answer(local, "human")
    local.integrity.check()
    answer(local, "base", "one")
    name, weight = next((n, p) for n, p in residents(local)._base.model.named_parameters() if n.endswith("mlp.up_proj.weight"))
    with torch.no_grad():
        weight += 0.5
    assert not local.integrity.check(), name
    assert local.engine.status().state == "failed"
    assert (live(local, "base"), live(local, "one"), live(local, "human")) == (0, 0, ROWS)
    assert state(local, "base") == "bad"
    before = len(local.integrity.view().checks)
    local.integrity.look()
    local.integrity.look()
    assert len(local.integrity.view().checks) == before, "one fault is told once"
    with pytest.raises(Unavailable):
        local.integrity.check()


def test_a_base_changed_while_an_adapter_comes_in_sets_that_adapter_aside(local: House, tiny_base: Path, tmp_path: Path) -> None:
    import torch

    local.integrity.check()
    answer(local, "base")
    view = local.adapters.register(make_adapter(tmp_path / "three", tiny_base, 3), "three", None)
    with torch.no_grad():
        for _, weight in residents(local)._base.model.named_parameters():
            weight += 0.5
    with pytest.raises(Unavailable, match="no longer as it was loaded"):
        local.adapters.bring(view.id)
    assert live(local, "base") == 0
    assert (state(local, "base"), state(local, "three")) == ("bad", "bad")


# With a scripted engine: what follows from a look


class Doubtful(ScriptedEngine):
    """Finds what it is told to find."""

    finding: dict[str, Check]
    looks = 0

    def check(self, name: str = BASE) -> Check:
        self.looks += 1
        return getattr(self, "finding", {}).get(name) or Check("base" if name == BASE else "pair", True, "good", {"tensors": "t1"})


@pytest.fixture
def house(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> House:
    house = furnish(home, db, Doubtful())
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
    return house


def test_everything_is_looked_at_every_quarter_of_an_hour_and_not_oftener(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = house.engine.open()
    house.integrity.look()
    assert engine.looks == 1  # type: ignore[attr-defined]
    house.integrity.look()
    assert engine.looks == 1  # type: ignore[attr-defined]
    later = time.monotonic() + 15 * 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    house.integrity.look()
    assert engine.looks == 2  # type: ignore[attr-defined]


def test_answers_that_came_from_elsewhere_are_not_taken_back_by_a_first_look(house: House) -> None:
    answer(house, "base")
    assert proofs.record(house.db, Check("base", False, "bad")) == 0
    assert live(house, "base") == ROWS


def test_only_answers_since_the_last_good_look_are_taken_back(house: House) -> None:
    answer(house, "base")
    house.integrity.check()
    answer(house, "one")
    assert proofs.record(house.db, Check("base", False, "bad")) == ROWS
    assert (live(house, "base"), live(house, "one")) == (ROWS, 0)


def test_a_base_that_loads_otherwise_than_at_its_last_start_answers_nothing(house: House) -> None:
    house.integrity.check()
    house.engine.open().finding = {BASE: Check("base", True, "good", {"tensors": "t2"})}  # type: ignore[attr-defined]
    assert not house.integrity.check()
    assert answer(house, "base") == "failed"
    assert "not what it was at its last start" in house.answers.jobs()[0].message
    del house.engine.open().finding  # type: ignore[attr-defined]
    assert house.integrity.check()
    assert answer(house, "base") == "finished"


def test_looks_and_voids_are_kept_for_good(house: House) -> None:
    from sqlalchemy import text

    from storage.errors import Immutable

    house.integrity.check()
    with pytest.raises(Immutable), house.db.write() as session:
        session.execute(text("DELETE FROM integrity_check"))


def test_the_command_line_tells_it_and_ends_with_one_where_something_is_bad(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")

    def call(*words: str) -> Any:
        return CliRunner().invoke(program(lambda: None), ["integrity", *words], catch_exceptions=False)

    good = call("--check", "--json")
    assert good.exit_code == 0, good.output
    assert {arm["name"]: arm["proof"] for arm in json.loads(good.stdout)["arms"]} == {"base": "good", "one": "unknown"}
    answer(house, "one")
    row = house.adapters.adapter("one")
    with house.db.session() as session:
        from storage.tables import Adapter

        stored_row = session.get(Adapter, row.id)
    proofs.record(house.db, Check("adapter", False, "It does nothing."), stored_row)
    bad = call()
    assert bad.exit_code == 1
    assert f"Taken back: {ROWS} answers of one in set (test). It does nothing." in bad.stdout
