"""Background answering that is paused, resumed, cut off and killed: nothing is lost, nothing stored is asked again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.errors import BadInput, Conflict, NotFound
from review.commands.main import program
from review.services import jobs
from review.services.caretaker import caretaking
from review.services.house import House
from review.services.unstored import GROUP
from tests.test_answers import ROWS, Counting, furnish, quick, stored, until, with_adapter
from tests.test_engine import tiny_base

__all__ = ["quick", "tiny_base", "with_adapter"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
def house(home: Path, db: Any, engine: Counting) -> House:
    return furnish(home, db, engine)


def start(house: House, *arms: str) -> int:
    return house.answers.start("set", "test", list(arms or ["base"]), None)


def test_a_paused_job_stops_soon_and_goes_on_when_resumed(house: House, engine: Counting) -> None:
    job = start(house)
    house.answers.run(job, progress=lambda done, total: house.answers.pause(job) if done == GROUP else None)
    assert jobs.one(house.db, job).status == "paused"
    assert len(stored(house)) == GROUP
    house.answers.run(job)
    assert len(engine.calls) == 1, "a paused job was run"
    house.answers.resume(job)
    house.answers.run(job)
    assert jobs.one(house.db, job).status == "finished"
    assert [len(call) for call in engine.calls] == [ROWS, ROWS - GROUP], "a stored answer was asked for again"
    assert len(stored(house)) == ROWS


def test_a_waiting_job_can_be_paused_and_the_caretaker_leaves_it(house: House, quick: None) -> None:
    held, free = start(house), start(house, "human")
    house.answers.pause(held)
    with caretaking(house):
        until(lambda: jobs.one(house.db, free).status == "finished")
        assert jobs.one(house.db, held).status == "paused"
        house.answers.resume(held)
        until(lambda: jobs.one(house.db, held).status == "finished")


def test_a_running_job_of_the_app_is_paused_and_stays_so_over_a_restart(home: Path, db: Any, quick: None) -> None:
    house = furnish(home, db, Counting(delay=0.02))
    job = start(house)
    with caretaking(house):
        until(lambda: jobs.one(db, job).done > 0)
        house.answers.pause(job)
        before = len(stored(house))
        time.sleep(0.3)
    with caretaking(house):
        time.sleep(0.1)
    assert jobs.one(db, job).status == "paused"
    assert before <= len(stored(house)) <= before + GROUP
    house.answers.resume(job)
    with caretaking(house):
        until(lambda: jobs.one(db, job).status == "finished")
    assert len(stored(house)) == ROWS


def test_a_paused_job_can_be_cancelled_and_what_is_over_cannot_be_paused(house: House) -> None:
    job = start(house)
    house.answers.pause(job)
    with pytest.raises(Conflict, match="paused, so it cannot"):
        house.answers.pause(job)
    house.answers.cancel(job)
    for act in (house.answers.pause, house.answers.resume, house.answers.cancel):
        with pytest.raises(Conflict):
            act(job)
    with pytest.raises(NotFound):
        house.answers.pause(999)


def test_scoring_is_not_paused(house: House) -> None:
    house.answers.run(start(house))
    with pytest.raises(Conflict, match="cannot be paused"):
        house.answers.pause(house.boards.start_score("set", "test", ["base"], None))


WORKER = """
import re, sys
from pathlib import Path
from ft.scripted import ScriptedEngine
from review.services.house import build
from review.settings import Settings
from storage.database import Database

def uneven(request):
    return "word " * (5 + 3 * int(re.search(r"\\d+", request.messages[-1].content)[0]))

home = Path(sys.argv[1])
settings, db = Settings(home=home, engine="scripted", demo=False), Database(f"sqlite:///{home / 'tiebreak.db'}")
build(settings, db, ScriptedEngine(uneven, delay=0.01)).answers.run(int(sys.argv[2]))
"""


def test_a_job_killed_anywhere_is_finished_by_the_next_process_with_every_answer_once(home: Path, db: Any) -> None:
    house = furnish(home, db, Counting())
    rows = home / "more.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"More {n}?", "output": "x"}) + "\n" for n in range(60)))
    house.library.import_file(rows, "more", split="test")
    job = house.answers.start("more", "test", ["base"], None)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kill in range(3):
        child = subprocess.Popen([sys.executable, "-c", WORKER, str(home), str(job)], env=env, cwd=ROOT)
        before = jobs.one(db, job).done
        until(lambda: jobs.one(db, job).done > before or child.poll() is not None)  # noqa: B023
        time.sleep(0.05 * kill)
        child.send_signal(signal.SIGKILL)
        child.wait()
        jobs.put_back_orphans(db)
    assert jobs.one(db, job).status == "queued", "it had ended before the last kill, so nothing was shown"
    answered = {row.prompt_id: row.id for row in stored(house)}
    house.answers.run(job)
    assert jobs.one(db, job).status == "finished"
    found = stored(house)
    assert Counter(row.prompt_id for row in found).most_common(1)[0][1] == 1
    assert len(found) == 60
    assert {row.prompt_id: row.id for row in found}.items() >= answered.items(), "a stored answer was replaced"


def test_an_adapter_removed_a_moment_ago_stops_its_own_arm_only(with_adapter: House, engine: Counting) -> None:
    job = start(with_adapter, "base", "one")
    with_adapter.adapters.remove("one", None)
    with_adapter.answers.run(job)
    row = jobs.one(with_adapter.db, job)
    assert row.status == "failed"
    assert "one: That adapter has been removed" in row.message
    assert len(stored(with_adapter)) == ROWS
    later = start(with_adapter, "human")
    with_adapter.answers.run(later)
    assert jobs.one(with_adapter.db, later).status == "finished"


def test_jobs_are_listed_paused_and_resumed_from_the_command_line(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    job = str(start(house))

    def call(*words: str) -> str:
        result = CliRunner().invoke(program(lambda: None), ["jobs", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "resume" in call("pause", job)
    assert json.loads(call("list", "--json"))["jobs"][0]["status"] == "paused"
    call("resume", job)
    call("cancel", job)
    assert "cancelled" in call("list")


def test_answering_without_a_set_says_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    with pytest.raises(BadInput, match="No prompt set"):
        CliRunner().invoke(program(lambda: None), ["answer"], catch_exceptions=False)
