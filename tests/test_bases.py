"""Base models: what their files say before anything is loaded, what another one would mean, and the change with nothing lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.base_cards import base_card
from ft.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from ft.scripted import ScriptedEngine
from review.commands.main import program
from review.screens.scores import scores_html
from review.services.bases import chosen_base
from review.services.house import House, build
from review.settings import Settings
from storage.tables import Adapter
from tests.families import family_base
from tests.test_answers import ROWS, answer, furnish, stored
from tests.test_engine import tiny_base
from tests.tiny import make_adapter, make_base

__all__ = ["tiny_base"]


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_base("gpt2", tmp_path_factory.mktemp("other") / "gpt2")


def test_a_folder_is_told_by_its_files(tiny_base: Path, home: Path, gpt2: Path) -> None:
    card = base_card(str(tiny_base), home)
    assert (card.ok, card.here, card.kind, card.architecture) == (True, True, "folder", "LlamaForCausalLM")
    assert (card.context_length, card.template, card.dtype) == (256, "its own", "F32")
    assert card.parameters * 4 == card.bytes > 0
    assert card.base_hash
    assert base_card(str(gpt2), home).template.startswith("none: it gets plain headings")


def test_the_embedded_base_is_known_before_it_is_here(home: Path) -> None:
    card = base_card("embedded", home)
    assert (card.ok, card.here, card.licence) == (True, False, "Apache-2.0")
    hub = base_card("owner/name", home)
    assert (hub.ok, hub.here, hub.kind) == (True, False, "hub")
    assert "downloaded" in hub.notes[0]


def test_a_model_card_gives_the_licence(home: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert base_card(str(folder), home).licence == "mit"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "does not write text"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.X"}}, "program code of its own"),
    ],
)
def test_what_speaks_against_a_base_is_said(home: Path, tmp_path: Path, config: dict[str, Any], says: str) -> None:
    folder = make_base(tmp_path / "base")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    card = base_card(str(folder), home)
    assert not card.ok
    assert says in card.reasons[0]


def test_what_is_no_base_is_refused_in_words(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80")
    (tmp_path / "junk.gguf").write_bytes(b"GGUF junk")
    for base, says in (
        ("/nowhere/at/all", "no model folder"),
        ("just words", "no model folder"),
        (str(tmp_path / "pickled"), "pickled weights are never loaded"),
        (str(tmp_path / "junk.gguf"), "no GGUF file that can be read"),
    ):
        card = base_card(base, home)
        assert not card.ok
        assert says in card.reasons[0]


def test_a_gguf_file_is_told_by_its_own_metadata(home: Path, tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_context_length(512)
    writer.add_license("apache-2.0")
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", np.zeros((8, 16), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    card = base_card(str(tmp_path / "tiny.gguf"), home)
    assert (card.ok, card.kind, card.architecture, card.parameters) == (True, "gguf", "llama", 128)
    assert (card.context_length, card.licence, card.template) == (512, "apache-2.0", "its own")


# The change


@pytest.fixture
def house(home: Path, db: Any, tiny_base: Path, tmp_path: Path) -> House:
    house = furnish(home, db, ScriptedEngine(), str(tiny_base))
    house.adapters.register(make_adapter(tmp_path / "one", tiny_base), "one", None)
    house.adapters.use("one", None)
    answer(house, "base", "one", "human")
    return house


def restarted(house: House, base: str) -> House:
    from dataclasses import replace

    class Other(ScriptedEngine):
        def identity(self) -> Any:
            return replace(super().identity(), base_hash=f"hash of {base}")

    assert chosen_base(house.db, house.settings.base) == base
    return build(Settings(home=house.settings.home, base=base, engine="scripted", demo=False), house.db, Other())


def test_looking_at_another_base_spells_out_the_consequences_and_changes_nothing(house: House, gpt2: Path, tiny_base: Path) -> None:
    house.studies.create("First", "set", ["base", "one"], votes_per_pair=1)
    house.studies.open("First")
    swap = house.bases.check(str(gpt2))
    assert (swap.fits, swap.misfits, swap.unknown) == ((), ("one",), ())
    words = " ".join(swap.consequences)
    for said in (
        "started again",
        f"{2 * ROWS} answers",
        "do not fit it and cannot be used with it: one",
        "Open studies go on",
        "First",
        "Changing back",
    ):
        assert said in words
    assert house.bases.state().waiting == ""
    assert [arm.usable for arm in house.answers.arms()] == [True, True, True]
    assert house.bases.check(str(tiny_base)).fits == ("one",)
    assert house.bases.check("owner/name").unknown == ("one",)


def test_after_a_change_the_old_arms_keep_their_answers_and_the_new_base_is_an_arm_of_its_own(house: House, gpt2: Path) -> None:
    before = {row.id for row in stored(house)}
    house.bases.use(str(gpt2), None)
    with pytest.raises(Unavailable, match="Start the app again"):
        list(house.answers.chat(["base"], []))
    assert house.bases.state().waiting == str(gpt2)
    assert answer_fails(house) == "failed"

    new = restarted(house, str(gpt2))
    arms = {arm.name: arm for arm in new.answers.arms()}
    assert list(arms) == ["base", "human", "one", "base gpt2"]
    assert [arm.usable for arm in arms.values()] == [False, True, False, True]
    assert "earlier base" in arms["base"].title
    assert new.adapters.in_use() is None
    with pytest.raises(Unavailable, match="earlier base"):
        new.answers.start("set", "test", ["base"], None)
    assert answer(new, "base gpt2") == "finished"
    assert before <= {row.id for row in stored(new)}
    assert all(row.voided_at is None for row in stored(new))


def test_after_a_change_nothing_offers_or_asks_the_arm_of_the_earlier_base(house: House, gpt2: Path) -> None:
    from review.screens.lab.studies_new import usual
    from review.screens.lab.talking import talking_arms, usual_two

    assert (house.answers.base_arm(), usual_two(house), usual(house).arms) == ("base", ["base", "one"], ("base", "one"))
    house.bases.use(str(gpt2), None)
    new = restarted(house, str(gpt2))
    first, second, _ = talking_arms(new)
    assert [name for name, _ in first.choices] == ["base gpt2"]
    assert (first.value, second.value) == ("base gpt2", "base gpt2")
    assert (usual_two(new), usual(new).arms) == (["base gpt2"], ("base gpt2",))
    new.engine.open()
    assert [model.name for model in new.asking.models()] == ["base gpt2", "default"]
    with pytest.raises(NotFound, match="no model 'base'"):
        new.asking.ask("base", messages(), {})
    assert new.asking.ask("default", messages(), {}).arm == "base gpt2"


def test_a_board_says_which_arms_are_of_an_earlier_base_and_compares_with_the_one_there_is_now(house: House, gpt2: Path) -> None:
    house.boards.score("set", "test", ["base", "one"])
    house.studies.create("First", "set", ["base", "one"], votes_per_pair=1)
    house.studies.open("First")
    house.bases.use(str(gpt2), None)
    new = restarted(house, str(gpt2))
    assert answer(new, "base gpt2") == "finished"
    assert new.boards.board("set").base == "base", "until the new base is scored there is no other"
    new.boards.score("set", "test", ["base gpt2"])
    board = new.boards.board("set")
    assert board.base == "base gpt2"
    told = {row.arm: (row.title, row.note) for row in board.rows}
    for arm in ("base", "one"):
        assert all("f an earlier base" in words for words in told[arm])
    assert not any("earlier" in words for words in told["base gpt2"])
    drawn = scores_html(board)
    assert drawn.count("Of an earlier base") >= 2
    assert board.study
    assert all("earlier base" in arm.title for arm in board.study.arms)


def answer_fails(house: House) -> str:
    """A job of the program that still runs the old base."""
    names = [arm.name for arm in house.answers.arms() if arm.kind == "base" and arm.usable]
    return answer(house, *names)


def test_changing_back_brings_the_arms_back(house: House, gpt2: Path, tiny_base: Path) -> None:
    house.bases.use(str(gpt2), None)
    new = restarted(house, str(gpt2))
    answer(new, "base gpt2")
    new.bases.use(str(tiny_base), None)
    back = build(house.settings, house.db, ScriptedEngine())
    assert {arm.name: arm.usable for arm in back.answers.arms()} == {"base": True, "human": True, "one": True, "base gpt2": False}
    back.adapters.use("one", None)
    back.adapters.reconcile()
    assert list(back.answers.chat(["base", "one"], messages()))[-1].done


def messages() -> list[Any]:
    from ft.engine import Message

    return [Message("user", "Hello")]


def test_a_change_that_cannot_be_is_refused(house: House, gpt2: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no model folder"):
        house.bases.use("/nowhere", None)
    with pytest.raises(BadInput, match="No base model is named"):
        house.bases.use("  ", None)
    with pytest.raises(Conflict, match="already"):
        house.bases.use(str(tiny_base), None)
    monkeypatch.setenv("TIEBREAK_BASE", str(tiny_base))
    with pytest.raises(Refused, match="TIEBREAK_BASE is set"):
        house.bases.use(str(gpt2), None)
    with house.db.session() as session:
        row = session.get(Adapter, 1)
        assert row is not None
        assert row.wanted


def test_the_environment_wins_over_the_choice(house: House, gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.bases.use(str(gpt2), None)
    assert chosen_base(house.db, "embedded") == str(gpt2)
    monkeypatch.setenv("TIEBREAK_BASE", "elsewhere")
    assert chosen_base(house.db, "elsewhere") == "elsewhere"


def test_the_command_line_shows_checks_and_changes_the_base(house: House, gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")

    def call(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(program(lambda: None), ["base", *words], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    assert json.loads(call("show", "--json"))["base"]["name"] == "embedded"
    told = json.loads(call("check", str(gpt2), "--json"))
    assert told["ok"]
    assert told["misfits"] == ["one"]
    assert "no model folder" in call("check", "/nowhere", code=1)
    assert "Start the app again" in call("use", str(gpt2), "--yes")
    assert json.loads(call("show", "--json"))["base"]["name"] == str(gpt2)
