"""Votes a second through the whole vote service (checks, one durable transaction a vote) against bare durable inserts into SQLite.

The peer is the limit: a single-column row, synchronous=FULL, one commit each. Must not know the web process.
"""

import secrets
import sqlite3
import tempfile
import time
from pathlib import Path

from bench.row import Row
from review.protocol.ballots import Ballot, BlindPair
from review.services.house import open_house
from review.settings import Settings

PROMPTS = 200


def ours(folder: Path) -> float:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(f'{{"instruction": "question {secrets.token_hex(12)}", "output": "reply {n}"}}\n' for n in range(PROMPTS)))
    with open_house(Settings(home=folder, engine="scripted", demo=False)) as house:
        house.library.import_file(rows, "bench", split="test")
        house.answers.ensure_arms()
        house.answers.run(house.answers.start("bench", "test", ["base", "human"], by=None))
        house.studies.create("bench", "bench", ["base", "human"])
        house.studies.open("bench", by=None)
        reviewer = house.people.add("bench", "reviewer")
        begun, count = time.perf_counter(), 0
        while isinstance(pair := house.comparisons.next_pair(reviewer.id), BlindPair):
            house.comparisons.vote(reviewer.id, Ballot(pair.assignment, "left", key=secrets.token_urlsafe(12)))
            count += 1
        return count / (time.perf_counter() - begun)


def limit(folder: Path) -> float:
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE t (x TEXT)")
    begun = time.perf_counter()
    for _ in range(PROMPTS):
        bare.execute("INSERT INTO t VALUES ('left')")
    bare.close()
    return PROMPTS / (time.perf_counter() - begun)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        return [Row("next pair and vote", ours(folder), limit(folder), "bare durable inserts", "1/s", "higher")]
