"""T31 and T24 on the whole app: it is killed in bursts of votes sent over HTTP; every vote it acknowledged is there after the restart.

Everyday runs kill it 3 times; TIEBREAK_FULL=1 kills it 20 times with at least 5,000 acknowledged votes.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from review.screens.review import build
from review.services.house import open_house
from review.settings import Settings
from tests.conftest import ROOT
from tests.hostile.site import Visitor, free_socket

pytestmark = pytest.mark.hostile
FULL = os.environ.get("TIEBREAK_FULL") == "1"
KILLS, VOTES = (20, 250) if FULL else (3, 30)  # kills, and the fewest acknowledged votes before each
REVIEWERS = ("Ann", "Bob", "Cy", "Di")
PART = "/review"


def furnish(home: Path) -> dict[str, int]:
    """Enough pairs for every kill; gives the numbers of the review screen's functions."""
    settings = Settings(home=home, engine="scripted", demo=False)
    rows = home / "rows.jsonl"
    needed = 2 * KILLS * VOTES // len(REVIEWERS) + 50
    rows.write_text("".join(f'{{"instruction": "q{n} {random.random()}", "output": "reply {n}"}}\n' for n in range(needed)))
    with open_house(settings) as house:
        house.library.import_file(rows, "burst", split="test")
        house.answers.ensure_arms()
        house.answers.run(house.answers.start("burst", "test", ["base", "human"], by=None))
        house.studies.create("burst", "burst", ["base", "human"], votes_per_pair=len(REVIEWERS))
        house.studies.open("burst", by=None)
        for name in REVIEWERS:
            house.people.add(name, "reviewer")
        return {fn.api_name: index for index, fn in build(house).fns.items() if isinstance(fn.api_name, str)}


@dataclass
class Burst:
    """The app as a process, and what it has acknowledged so far: request key -> choice."""

    home: Path
    port: int
    functions: dict[str, int]
    acknowledged: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    refused: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it; seconds until it answers."""
        env = {**os.environ, "TIEBREAK_HOME": str(self.home), "TIEBREAK_PORT": str(self.port), "TIEBREAK_ENGINE": "scripted"}
        with (self.home / "app.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env={**env, "TIEBREAK_DEMO": "0"}, stdout=log, stderr=log)
        begun = time.monotonic()
        while time.monotonic() - begun < 60:
            assert self.process.poll() is None, (self.home / "app.log").read_text()
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
                return time.monotonic() - begun
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the app did not come up")

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def call(visitor: Visitor, function: int, sent: dict[str, Any]) -> dict[str, Any]:
    """What the page does and what it gets: one object each."""
    reply = visitor.post(f"{PART}/gradio_api/run/predict", visitor.payload(function, [sent]))
    reply.raise_for_status()
    return dict(reply.json()["data"][0])


def first_pair(visitor: Visitor, functions: dict[str, int]) -> dict[str, Any]:
    """The scene with the first pair, after the practice pairs where those have not been seen."""
    scene = call(visitor, functions["begin"], {})["scene"]
    while scene and scene["stage"] == "practice":
        scene = call(visitor, functions["practise"], {"pair": scene["number"], "choice": "left"})["scene"]
    return dict(scene or call(visitor, functions["begin"], {})["scene"])


def keep_voting(burst: Burst, cookie: tuple[str, str], lock: threading.Lock) -> None:
    """Vote until the app is gone."""
    visitor = Visitor(burst.address, cookies=dict([cookie]))
    try:
        scene = first_pair(visitor, burst.functions)
        while pair := scene.get("assignment"):
            key, choice = f"{random.getrandbits(128):032x}", random.choice(["left", "right", "tie", "both_bad"])
            sent = {"assignment": pair, "choice": choice, "comment": "", "reasons": [], "criteria": {}, "key": key, "revises": 0}
            scene = call(visitor, burst.functions["vote"], sent | {"ahead": True})["scene"]
            with lock:
                burst.acknowledged[key] = choice
        burst.refused.append(f"no pair left: {scene}")
    except httpx.HTTPStatusError as error:
        burst.refused.append(error.response.text[:200])
    except httpx.TransportError:
        return


def cookies(home: Path, port: int) -> list[tuple[str, str]]:
    with open_house(Settings(home=home, engine="scripted", demo=False)) as house:
        return [(f"tiebreak-{port}", house.people.redeem(house.people.link(name))[0]) for name in REVIEWERS]


def stored(home: Path) -> dict[str, str]:
    from sqlmodel import select

    from storage.tables import Vote

    with open_house(Settings(home=home, engine="scripted", demo=False)) as house, house.db.session() as session:
        assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
        rows = session.exec(select(Vote)).all()
        assert len({row.assignment_id for row in rows}) == len(rows), "a pair was voted on twice"
        return {row.request_key: row.choice for row in rows}


@pytest.mark.timeout(1800)
def test_votes_acknowledged_over_http_survive_kill_9_of_the_app(home: Path) -> None:
    with free_socket() as probe:
        port = probe.getsockname()[1]
    burst = Burst(home, port, furnish(home))
    signed_in, lock = cookies(home, port), threading.Lock()
    usual = 0.0
    for kill in range(KILLS):
        seconds = burst.start()
        usual = usual or seconds
        assert seconds < 4 * usual, "a start after a kill is like the first"
        before = len(burst.acknowledged)
        threads = [threading.Thread(target=keep_voting, args=(burst, cookie, lock)) for cookie in signed_in]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 120
        while len(burst.acknowledged) - before < VOTES and time.monotonic() < until and not burst.refused:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        burst.kill()
        for thread in threads:
            thread.join(30)
        assert burst.refused == []
        kept = stored(home)
        assert {key: kept.get(key) for key in burst.acknowledged} == burst.acknowledged
        assert len(kept) - len(burst.acknowledged) <= len(REVIEWERS) * (kill + 1), "stored but not said: at most one a reviewer and kill"
    assert len(burst.acknowledged) >= KILLS * VOTES
