"""Votes a second through the whole vote service (checks, one durable transaction a vote) against bare durable inserts into SQLite.

The peer is the limit: a single-column row, synchronous=FULL, one commit each. And what the next pair and the vote cost in a study that
holds 100,000 votes against one that holds a thousand: it must not grow with the study. Must not know the web process.
"""

import secrets
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.crowd import VOTES, crowd
from bench.row import Row
from review.protocol.ballots import Ballot, BlindPair
from review.services.comparisons import Comparisons
from review.services.faults import open_database
from review.services.house import open_house
from review.settings import Settings

PROMPTS, TURNS = 200, 200


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


def crowded(folder: Path, votes: int) -> tuple[float, float]:
    """Median milliseconds of (the next pair, made new each time; the vote) among fifty reviewers, after `votes` votes."""
    db = open_database(f"sqlite:///{folder / f'crowd-{votes}.db'}")
    db.migrate()
    reviewers = crowd(db, votes=votes)[:50]
    desk = Comparisons(db)
    desk.next_pair(reviewers[0])  # reads the study once, as the first call after a start does
    given, cast = [], []
    for turn in range(TURNS):
        reviewer = reviewers[turn % len(reviewers)]
        begun = time.perf_counter()
        pair = desk.next_pair(reviewer)
        given.append(time.perf_counter() - begun)
        assert isinstance(pair, BlindPair)
        begun = time.perf_counter()
        desk.vote(reviewer, Ballot(pair.assignment, "left", key=secrets.token_urlsafe(12)))
        cast.append(time.perf_counter() - begun)
    db.close()
    return 1000 * median(given), 1000 * median(cast)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        next_large, vote_large = crowded(folder, VOTES)
        next_small, vote_small = crowded(folder, VOTES // 100)
        return [
            Row("next pair and vote", ours(folder), limit(folder), "bare durable inserts", "1/s", "higher"),
            Row("next pair at 100,000 votes", next_large, next_small, "at 1,000 votes", "ms", "lower"),
            Row("vote at 100,000 votes", vote_large, vote_small, "at 1,000 votes", "ms", "lower"),
        ]
