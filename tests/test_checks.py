"""What is known before a run starts: tokens and their mask, what is too long, what it takes, and what to change."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ft import advice, runs
from ft.errors import BadInput, Busy, NotFound
from ft.runs import BaseChoice
from ft.scripted import ScriptedEngine
from ft.specs import LoraSpec, TrainSpec
from review.screens.lab.retrain_check import check_html
from review.services.estimates import Check, smaller
from review.services.house import House, build
from review.settings import Settings
from tests.test_trainer import ROWS, loaded
from tests.trainable import tiny_base

SPEC = TrainSpec(name="helper", lora=LoraSpec(2, 4), batch_size=2, accumulation=1, samples=1, sample_tokens=4, max_length=400)
DOORS = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}."} for n in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def house(home: Path, db: Any, base: Path) -> House:
    made = build(Settings(home=home, base=str(base), engine="scripted"), db, ScriptedEngine())
    close = {"instruction": "Who paints the long wall of the green house at noon?", "output": "Nobody."}
    rows = [{**row, "split": "train"} for row in [*DOORS, {"instruction": "Long?", "output": "z" * 600}]]
    file = home / "doors.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    made.library.import_file(file, "doors", approve=True)
    file.write_text(json.dumps({**close, "split": "test"}))
    made.library.import_file(file, "walls")
    return made


def test_tokens_and_mask_are_those_of_the_run(home: Path, base: Path) -> None:
    from ft.rehearsal import look

    choice = BaseChoice(str(base), str(base), "cpu", "float32")
    folder = runs.create(home, "r1", SPEC, [*ROWS, {"instruction": "Long?", "input": "", "output": "z" * 600}], ROWS[:2], choice)
    found, train, validation = look(runs.read(folder), folder, loaded(choice))
    assert (len(train), len(validation)) == (24, 2)
    assert found["tokens"]["train"]["rows"] == 25
    assert (found["cut_total"], found["cut"][0]["question"], found["cut"][0]["over"] > 200) == (1, "Long?", True)
    assert len(found["batch"]) == 2
    for row in found["batch"]:
        learned = "".join(text for text, on in row if on)
        assert learned.startswith("The code is ")
        assert learned.endswith("<|im_end|>")
        assert "".join(text for text, on in row if not on).endswith("<|im_start|>assistant\n")


def test_a_check_measures_two_steps_in_a_process_of_its_own(house: House) -> None:
    snapshot = house.library.snapshot().id
    begun = house.estimates.start(snapshot, SPEC)
    with pytest.raises(Busy):
        house.estimates.start(snapshot, SPEC)
    found = house.estimates.wait(begun, 120)
    assert (found.state, found.fits, found.advice) == ("done", True, ()), found
    estimate = found.raw["estimate"]
    for name in ("step_seconds", "seconds", "peak_memory", "disk_needed", "steps"):
        assert estimate[name] > 0, name
    assert found.raw["cut_total"] == 1
    shown = check_html(found)
    assert "It fits." in shown
    assert shown.count("<b>") > 20
    assert house.training.runs() == []


def test_a_check_that_the_system_ends_is_one_that_does_not_fit(house: House) -> None:
    begun = house.estimates.start(house.library.snapshot().id, SPEC.with_(batch_size=8))
    folder = house.settings.home / "checks" / begun
    (folder / "check.json").write_text('{"state": "measuring"}')
    for name in os.listdir("/proc"):
        if name.isdigit() and str(folder).encode() in read(Path("/proc", name, "cmdline")):
            os.kill(int(name), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (found := house.estimates.check(begun)).over and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (found.state, found.fits) == ("too large", False)
    assert "Lower examples at once from 8 to 4" in found.advice[0]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_cannot_start_is_not_measured(house: House) -> None:
    with pytest.raises(BadInput, match="rank"):
        house.estimates.start(house.library.snapshot().id, SPEC.with_(lora=LoraSpec(0, 4)))
    for name in ("nothing", "../runs", ""):
        with pytest.raises(NotFound):
            house.estimates.check(name)


def test_ways_to_need_less_memory_come_gentlest_first() -> None:
    raw = {"tokens": {"train": {"longest": 900, "p95": 300}}}
    found = smaller(TrainSpec(lora=LoraSpec(64, 128), batch_size=4, accumulation=1), raw)
    assert [words.split()[0] for words in found] == ["Lower", "Lower", "Hold", "Lower"]
    assert "to 300 tokens" in found[1]
    assert smaller(TrainSpec(batch_size=1, quantisation="4bit"), {}) == ["Take a smaller base model, or a machine with more memory."]


def test_examples_left_out_for_a_test_prompt_come_with_that_prompt(house: House, home: Path) -> None:
    file = home / "more.jsonl"
    file.write_text(
        json.dumps({"instruction": "Who paints the long wall of the green house at noon today?", "output": "Ann.", "split": "train"})
    )
    house.library.import_file(file, "more", split="train", approve=True)
    with house.db.write() as session:  # approved before the test prompt came in
        from storage.tables import Example

        session.add(Example(instruction="Who paints the long wall of the green house at noon?", output="Ann.", origin="imported",
                            origin_id="late", state="approved"))  # fmt: skip
    found = house.training.too_close(SPEC)
    assert [one.like for one in found] == ["Who paints the long wall of the green house at noon?"] * len(found)
    assert found
    assert house.training.too_close(SPEC.with_(objective="dpo")) == []


@pytest.mark.parametrize(
    ("changes", "rows", "words"),
    [
        ({"learning_rate": 2e-5}, 500, "training the whole model"),
        ({"learning_rate": 2e-3}, 500, "fall apart"),
        ({"objective": "dpo", "learning_rate": 2e-4}, 500, "learning from votes"),
        ({"lora": LoraSpec(16, 8)}, 500, "below the rank"),
        ({"lora": LoraSpec(16, 64)}, 500, "more than twice"),
        ({"epochs": 10.0}, 50, "by heart"),
        ({"epochs": 1.0}, 20, "hardly anything"),
        ({"max_length": 64}, 500, "too long"),
    ],
)
def test_settings_known_to_go_wrong_are_warned_of(changes: dict[str, Any], rows: int, words: str) -> None:
    assert any(words in one for one in advice.warnings(TrainSpec(accumulation=1).with_(**changes), rows))


def test_no_preset_is_warned_of_and_each_keeps_what_is_the_team_s_own() -> None:
    own = TrainSpec(name="mine", accumulation=1, seed=99, system_prompt="Be kind.", start_from="a")
    for preset in advice.PRESETS.values():
        made = preset.on(own)
        assert made.problems() == []
        assert advice.warnings(made, 1000) == []
        assert (made.name, made.seed, made.system_prompt, made.start_from) == ("mine", 99, "Be kind.", "a")


def test_every_field_of_the_form_has_its_help() -> None:
    from review.screens.lab.retrain_form import LABELS

    assert set(LABELS) <= set(advice.HELP)
    assert all(len(words) > 20 for words in advice.HELP.values())


def test_a_long_row_is_shown_from_its_beginning_and_up_to_its_end(base: Path) -> None:
    from ft.rehearsal import SHOWN_FIRST, SHOWN_LAST, masked

    tokenizer = loaded(BaseChoice(str(base), str(base), "cpu", "float32")).tokenizer
    marked = [False] * 500 + [True] * 100
    shown = masked(tokenizer, ([5] * 600, marked))
    assert shown[SHOWN_FIRST] == ("\n… 200 more tokens …\n", False)
    assert (len(shown), sum(on for _, on in shown)) == (SHOWN_FIRST + 1 + SHOWN_LAST, 100)
    assert len(masked(tokenizer, ([5] * 400, marked[-400:]))) == 400


def test_texts_of_tokens_are_shown_as_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    raw = {"batch": [[[hostile, True], [hostile, False]]], "cut": [{"question": hostile, "split": "train", "tokens": 9, "over": 1}],
           "cut_total": 1, "limit": 8, "tokens": {}}  # fmt: skip
    assert "<img" not in check_html(Check("c", "done", hostile, raw))


def test_what_a_run_wrote_and_warned_of_is_shown_as_text() -> None:
    from review.screens.lab.retrain_watch import run_html, runs_html
    from review.services.run_views import Pulse, RunView, Written

    hostile = "<img src=x onerror=alert(1)>"
    written = tuple(
        Written(step, 1, {"bleu": 1.0, "rougeL": 0.5}, ({"prompt": hostile, "answer": hostile, "reference": hostile},)) for step in (0, 5)
    )
    view = RunView(
        hostile, hostile, "running", hostile, SPEC.with_(name=hostile), 1, 5, 9, 30.0, ((1, 2.0), (5, 1.0)), ((0, 2.0), (5, 1.5)),
        (hostile,), hostile, "", hostile, 1.0, 1.0, None, Pulse(1e-4, 0.5, 400.0, 2**30, 4.5), written,
        {"rougeL": ((0, 0.4), (5, 0.5))}, ((1, 1e-4), (5, 1e-5)), ((1, 0.5), (5, 0.4)), {"reasons": {"dtype": hostile}},
    )  # fmt: skip
    shown = run_html(view) + runs_html([view])
    assert "<img" not in shown
    for words in ("What it writes", "Before training", "Step 5", "400", "1.0 GB", "Learning rate and gradients"):
        assert words in shown, words
