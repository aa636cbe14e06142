"""Passports: what an arm needs to answer the same again, and stored answers given again and compared."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.errors import BadInput, NotFound, Unavailable
from ft.scripted import ScriptedEngine
from ft.specs import DecodeSpec
from ft.template import DEFAULT_SYSTEM
from ft.versions import library_versions
from review.commands.main import program
from review.services.house import House
from storage.tables import Answer, Prompt
from tests.test_answers import answer, furnish, stored
from tests.test_engine import tiny_base
from tests.tiny import make_adapter

__all__ = ["tiny_base"]


@pytest.fixture
def house(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> House:
    house = furnish(home, db, ScriptedEngine())
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
    return house


def by(house: House, arm: str) -> list[Answer]:
    ids = {one.name: one.id for one in house.answers.arms()}
    return [row for row in stored(house) if row.arm_id == ids[arm] and row.voided_at is None]


def test_a_passport_holds_everything_that_decides_an_answer(house: House) -> None:
    answer(house, "base", "one")
    found = house.passports.passport("one")
    assert (found.arm, found.kind, found.complete) == ("one", "adapter", True)
    assert found.system_prompt == DEFAULT_SYSTEM
    assert found.decode == DecodeSpec().to_dict()
    assert found.adapter["content_hash"] == house.adapters.adapter("one").content_hash
    assert (found.adapter["rank"], found.adapter["targets"]) == (4, ["q_proj", "v_proj"])
    assert found.model["base_hash"] == "scripted"
    assert {"template_hash", "dtype", "quantisation", "device", "versions"} <= set(found.model)
    (made,) = found.answers
    assert made["answers"] == 20
    assert made["engine"]["versions"] == library_versions()
    assert made["adapter_hash"] == found.adapter["content_hash"]


def test_the_passports_of_base_and_human_name_no_adapter(house: House) -> None:
    assert house.passports.passport("base").adapter == {}
    assert house.passports.passport("human").model == {}
    with pytest.raises(NotFound, match="no arm nobody"):
        house.passports.passport("nobody")


def test_a_passport_says_what_is_missing(house: House) -> None:
    house.adapters.remove("one", None) if house.answers.arms() else None
    found = house.passports.passport("one")
    assert not found.complete
    assert "removed" in found.missing[-1]


def test_answers_are_given_again_and_found_identical(house: House) -> None:
    answer(house, "base", "one")
    for arm in ("base", "one"):
        found = house.passports.replay(by(house, arm)[3].id or 0)
        assert found.identical, found.words
        assert (found.differs_at, found.changed) == (-1, ())


def test_the_first_difference_and_what_changed_since_are_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(house, "base")
    one = by(house, "base")[0]
    engine = house.engine.open()
    usual = engine.identity()
    monkeypatch.setattr(engine, "identity", lambda: replace(usual, template_hash="new", dtype="bfloat16"))
    monkeypatch.setattr(engine, "_answers", lambda request: one.text[:10] + "≠" + one.text[11:])
    found = house.passports.replay(one.id or 0)
    assert not found.identical
    assert found.differs_at == 10
    assert found.changed == ("dtype", "template")
    assert "from character 11 on" in found.words
    assert "Changed since: dtype, template" in found.words


def test_an_answer_cut_short_differs_where_it_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(house, "base")
    one = by(house, "base")[0]
    monkeypatch.setattr(house.engine.open(), "_answers", lambda request: one.text + " More.")
    found = house.passports.replay(one.id or 0)
    assert found.differs_at == len(one.text)
    assert "Nothing that is recorded has changed" in found.words


def test_another_version_of_a_library_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(house, "base")
    monkeypatch.setattr("review.services.passports.library_versions", lambda: library_versions() | {"torch": "9.9"})
    found = house.passports.replay(by(house, "base")[0].id or 0)
    assert found.identical
    assert "something changed since: torch" in found.words


def test_another_way_to_multiply_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = house.engine.open()
    usual = engine.identity()
    monkeypatch.setattr(engine, "identity", lambda: replace(usual, kernel="torch"))
    answer(house, "base")
    monkeypatch.setattr(engine, "identity", lambda: replace(usual, kernel="oneDNN, rearranged"))
    one = by(house, "base")[0]
    assert one.engine["kernel"] == "torch"
    assert "something changed since: kernel" in house.passports.replay(one.id or 0).words


def test_what_no_model_of_ours_gave_is_not_replayed(house: House) -> None:
    answer(house, "human", "one")
    with pytest.raises(BadInput, match="human, which is no model"):
        house.passports.replay(by(house, "human")[0].id or 0)
    with pytest.raises(NotFound, match="no answer 999"):
        house.passports.replay(999)
    number = by(house, "one")[0].id or 0
    house.adapters.remove("one", None)
    with pytest.raises(Unavailable, match="removed with its files"):
        house.passports.replay(number)


@pytest.fixture
def local(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> Iterator[House]:
    from ft.engine_local import LocalEngine

    engine = LocalEngine(str(tiny_base), home / "bases", device="cpu", dtype="float32")
    house = furnish(home, db, engine, str(tiny_base))
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
    yield house
    engine.close()


def test_answers_of_mixed_batches_are_given_again_alone_to_the_letter(local: House) -> None:
    with local.db.write() as session:
        session.add(
            Prompt(
                set_id=1, split="test", instruction="And the invoice?", content_hash="h",
                history=[{"role": "user", "content": "How do I reset my password?"}, {"role": "assistant", "content": "Open Settings."}],
            )
        )  # fmt: skip
    assert answer(local, "base", "one") == "finished"
    for row in [*by(local, "base")[:3], *by(local, "one")[:3]]:
        found = local.passports.replay(row.id or 0)
        assert found.identical, found.words
        assert found.was["base"] == local.engine.identity().base_hash
    longest = by(local, "one")[0]
    assert longest.prompt_tokens > by(local, "one")[-1].prompt_tokens + 10, "the earlier turns were not read"


def test_the_command_line_shows_passports_and_replays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    answer(house, "base", "one")

    def call(*words: str) -> Any:
        return CliRunner().invoke(program(lambda: None), list(words), catch_exceptions=False)

    shown = json.loads(call("arms", "show", "one", "--json").stdout)
    assert shown["adapter"]["name"] == "one"
    assert "answers by" in call("arms", "show", "one").stdout
    number = str(by(house, "one")[0].id)
    again = call("answer", "--replay", number, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["identical"]
    assert "Identical" in call("answer", "--replay", number).stdout
