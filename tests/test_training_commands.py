"""`tiebreak train` and `tiebreak runs` on a tiny base: presets, the check, pause, resume and cancel."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.errors import BadInput, Conflict, NotFound
from ft.specs import TrainSpec
from review.commands.main import program
from tests.tiny import make_adapter
from tests.trainable import tiny_base


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    monkeypatch.setenv("TIEBREAK_BASE", str(tiny_base(home / "tiny")))
    monkeypatch.setenv("COLUMNS", "200")
    rows = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}.", "split": "train"} for n in range(12)]
    (home / "doors.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def call(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(program(lambda: None), list(words), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    call("import", str(home / "doors.jsonl"), "--set", "doors", "--approve")
    return call


def test_a_run_is_queued_paused_resumed_and_cancelled(cli: Any) -> None:
    run_id = json.loads(cli("train", "--name", "helper", "--steps", "3", "--detach", "--json"))["run"]
    cli("runs", "pause", run_id)
    assert "paused" in cli("runs", "list")
    assert run_id in cli("runs", "resume", run_id, "--detach")
    assert json.loads(cli("runs", "show", run_id, "--json"))["status"] == "queued"
    cli("runs", "cancel", run_id)
    assert json.loads(cli("runs", "show", run_id, "--json"))["status"] == "cancelled"
    with pytest.raises(Conflict):
        cli("runs", "resume", run_id)


def test_presets_are_specs_that_options_override(cli: Any) -> None:
    quick = TrainSpec.from_dict(json.loads(cli("train", "--preset", "quick look", "--rank", "4", "--show-spec")))
    assert (quick.max_steps, quick.lora.rank) == (30, 4)
    with pytest.raises(BadInput, match="Choose from: quick look, balanced"):
        cli("train", "--preset", "slow")


def test_the_check_shows_tokens_and_mask_and_measures_and_starts_nothing(cli: Any) -> None:
    said = cli("train", "--name", "helper", "--steps", "3", "--rank", "2", "--alpha", "4", "--check")
    assert "Measured: 3 steps" in said
    assert "How do I open door" in said
    assert "Note: 1 of 12 examples" in said
    assert "No run yet" in cli("runs", "list")


def test_a_check_names_every_problem_and_fails(cli: Any) -> None:
    said = cli("train", "--name", "base", "--objective", "dpo", "--start-from", "ghost", "--check", code=1)
    for words in ("Cannot start: name is", "0 judged answers", "no adapter ghost", "Worth a look: Learning rate"):
        assert words in said, said


def test_what_got_worse_is_json_alone_for_a_program(cli: Any, home: Path) -> None:
    folder = make_adapter(home / "adapter", home / "tiny")
    cli("adapters", "add", str(folder), "--name", "helper", "--foreign")
    cli("answer", "doors", "--split", "train", "--arm", "base", "--arm", "helper")
    found = json.loads(cli("worse", "helper", "--ask", "--json"))
    assert (found["compared"], found["total"] >= 30) == (0, True)
    with pytest.raises(NotFound, match="no arm ghost"):
        cli("worse", "helper", "--against", "ghost")
    with pytest.raises(NotFound):
        cli("worse", "ghost", "--ask")
