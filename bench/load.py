"""Reviewers at work over HTTP: milliseconds from a vote to the next pair, against the limits, with nothing lost, doubled or refused.

`python -m bench.load --reviewers 60 --rate 20 --seconds 300` is the steady load, `--seconds 1800` the soak. The app runs as people run
it, in a process of its own; a vote is sent as the page sends it. Votes come at random times: a slow answer does not slow the next vote.
"""

import argparse
import http.client
import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.row import Row
from bench.startup import ROOT, answers, free_port
from review.services.house import open_house
from review.settings import Settings

PROMPTS = 400
P95_LIMIT = 150.0  # milliseconds; in bursts twice as much
SHORT = {"reviewers": 60, "rate": 20.0, "seconds": 20.0}


@dataclass
class Measured:
    """`waits` in milliseconds; `votes` acknowledged, key by key; `refused` what was not; `memory` of the app in MB, start and end;
    `busy` its processor seconds meanwhile."""

    waits: list[float] = field(default_factory=list)
    votes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    memory: tuple[float, float] = (0.0, 0.0)
    busy: float = 0.0
    stored: int = 0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def lost(self) -> int:
        """Acknowledged and not there, or there twice."""
        return len(set(self.votes)) - self.stored


class Reviewer:
    """One signed-in browser on one connection."""

    def __init__(self, port: int, cookie: str, functions: dict[str, int]) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"content-type": "application/json", "origin": f"http://127.0.0.1:{port}", "cookie": f"tiebreak-{port}={cookie}"}
        self.functions, self.page, self.pair = functions, secrets.token_hex(8), ""

    def call(self, verb: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Raises RuntimeError with the server's words."""
        body = {"data": [sent], "fn_index": self.functions[verb], "session_hash": self.page, "trigger_id": None, "event_data": None}
        try:
            reply = self._send(json.dumps(body))
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):  # closed while idle: a browser opens another
            self.http.close()
            reply = self._send(json.dumps(body))
        text = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {text[:200]!r}")
        return dict(json.loads(text)["data"][0])

    def _send(self, body: str) -> http.client.HTTPResponse:
        self.http.request("POST", "/review/gradio_api/run/predict", body, self.headers)
        return self.http.getresponse()

    def begin(self) -> None:
        scene = self.call("begin", {})["scene"]
        while scene and scene["stage"] == "practice":
            scene = self.call("practise", {"pair": scene["number"], "choice": "left"})["scene"]
        if not scene:
            scene = self.call("begin", {})["scene"]
        self.pair = scene.get("assignment", "")

    def vote(self, key: str) -> None:
        """A vote, and the next pair in the same answer."""
        choice = random.choice(("left", "right", "tie", "both_bad"))
        sent = {"assignment": self.pair, "choice": choice, "comment": "", "reasons": [], "criteria": {}, "key": key, "revises": 0}
        self.pair = self.call("vote", sent | {"ahead": True})["scene"].get("assignment", "")


def furnish(home: Path, reviewers: int, prompts: int, port: int) -> tuple[list[str], dict[str, int]]:
    """A study in which every reviewer may judge every prompt; the cookies, and the page's functions by name."""
    rows = home / "rows.jsonl"
    rows.write_text("".join(f'{{"instruction": "question {secrets.token_hex(12)}", "output": "reply {n}"}}\n' for n in range(prompts)))
    with open_house(Settings(home=home, port=port, engine="scripted", demo=False)) as house:
        house.library.import_file(rows, "bench", split="test")
        house.answers.ensure_arms()
        house.answers.run(house.answers.start("bench", "test", ["base", "human"], by=None))
        house.studies.create("bench", "bench", ["base", "human"], votes_per_pair=min(reviewers, 100))
        house.studies.open("bench", by=None)
        names = [house.people.add(f"reviewer {n}", "reviewer").name for n in range(reviewers)]
        cookies = [house.people.redeem(house.people.link(name))[0] for name in names]
        from review.screens.review import build

        functions = {fn.api_name: index for index, fn in build(house).fns.items() if isinstance(fn.api_name, str)}
    return cookies, functions


def memory_mb(process: int) -> float:
    """Resident memory now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def busy_seconds(process: int) -> float:
    """Processor time of all threads so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(port: int, cookies: list[str], functions: dict[str, int], rate: float, seconds: float, measured: Measured) -> None:
    """Votes at random times at this rate; each by a reviewer who has a pair on the screen."""
    crowd = [Reviewer(port, cookie, functions) for cookie in cookies]
    for reviewer in crowd:
        reviewer.begin()
    free = [reviewer for reviewer in crowd if reviewer.pair]
    lock = threading.Lock()

    def one(reviewer: Reviewer, due: float) -> None:
        key = secrets.token_hex(16)
        try:
            reviewer.vote(key)
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            with lock:
                measured.refused.append(str(error))
        else:
            with lock:
                measured.waits.append(1000 * (time.perf_counter() - due))
                measured.votes.append(key)
        if reviewer.pair:
            with lock:
                free.append(reviewer)

    begun = due = time.perf_counter()
    with ThreadPoolExecutor(len(crowd)) as pool:
        while due < begun + seconds:
            due += random.expovariate(rate)
            time.sleep(max(0.0, due - time.perf_counter()))
            with lock:
                chosen = free.pop(random.randrange(len(free))) if free else None
            if chosen is None:
                measured.refused.append("every reviewer was still waiting")
                continue
            pool.submit(one, chosen, due)


def stored(home: Path, keys: list[str]) -> int:
    """How many of the acknowledged votes are in the database, each counted once; -1 where one is there twice."""
    with sqlite3.connect(home / "tiebreak.db") as raw:
        found = [key for (key,) in raw.execute("SELECT request_key FROM vote")]
    wanted = set(keys)
    here = [key for key in found if key in wanted]
    return len(here) if len(here) == len(set(here)) else -1


def measure(reviewers: int, rate: float, seconds: float, prompts: int = PROMPTS) -> Measured:
    """The whole thing in a folder that is gone afterwards."""
    measured = Measured()
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        home, port = Path(name), free_port()
        cookies, functions = furnish(home, reviewers, max(prompts, int(2 * rate * seconds / reviewers)), port)
        env = {"TIEBREAK_HOME": name, "TIEBREAK_PORT": str(port), "TIEBREAK_ENGINE": "scripted", "TIEBREAK_DEMO": "0"}
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
        try:
            while not answers(f"http://127.0.0.1:{port}/login"):
                time.sleep(0.1)
            work(port, cookies, functions, rate, 2.0, Measured())  # the first votes open connections and fill caches
            before, busy = memory_mb(app.pid), busy_seconds(app.pid)
            work(port, cookies, functions, rate, seconds, measured)
            measured.memory = (before, memory_mb(app.pid))
            measured.busy = busy_seconds(app.pid) - busy
        finally:
            app.terminate()
            app.wait(30)
        measured.stored = stored(home, measured.votes)
    return measured


def rows() -> list[Row]:
    found = measure(int(SHORT["reviewers"]), SHORT["rate"], SHORT["seconds"])
    if found.lost or found.refused:
        raise RuntimeError(f"{found.lost} votes lost, {len(found.refused)} refused: {found.refused[:1]}")
    return [Row("vote to next pair, 60 reviewers, 20 votes/s, p95", found.percentile(0.95), P95_LIMIT, "the limit", "ms", "lower")]


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    asked.add_argument("--reviewers", type=int, default=60)
    asked.add_argument("--rate", type=float, default=20.0, help="votes a second, all reviewers together")
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--prompts", type=int, default=PROMPTS)
    given = asked.parse_args()
    found = measure(given.reviewers, given.rate, given.seconds, given.prompts)
    shares = ", ".join(f"p{100 * share:g} {found.percentile(share):.0f} ms" for share in (0.5, 0.95, 0.99))
    before, after = found.memory
    sys.stdout.write(
        f"{len(found.votes)} votes by {given.reviewers} reviewers, {len(found.votes) / given.seconds:.1f} a second: {shares}, "
        f"longest {max(found.waits):.0f} ms; {found.lost} lost or doubled, {len(found.refused)} refused {found.refused[:1]}; "
        f"memory {before:.0f} to {after:.0f} MB ({after / before - 1:+.0%}); "
        f"{1000 * found.busy / len(found.votes):.1f} ms of processor time a vote\n"
    )


if __name__ == "__main__":
    main()
