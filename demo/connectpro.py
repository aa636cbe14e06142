"""The ConnectPro tickets and their splits. Light: no torch, no database.

Tickets that ask nearly the same share a split: nearer than the app's own import would insist on, since many were written in pairs.
"""

import hashlib
import itertools
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
SPLITS = FOLDER / "split.json"
NAME = "connectpro"
TEST = 60
VALIDATION = 30
CLOSE = 0.25  # Jaccard similarity over runs of four letters, from which two queries belong together
SALT = "connectpro-1"


@dataclass(frozen=True, slots=True)
class Ticket:
    id: str
    instruction: str
    input: str
    output: str
    category: str
    tags: tuple[str, ...]

    def row(self) -> dict[str, str]:
        return {"instruction": self.instruction, "input": self.input, "output": self.output}


def read() -> list[Ticket]:
    """Every ticket, by id."""
    lines = [line for path in sorted((FOLDER / "tickets").glob("*.jsonl")) for line in path.read_text(encoding="utf-8").split("\n") if line]
    found = (json.loads(line) for line in lines)
    return sorted((Ticket(**{**row, "tags": tuple(row["tags"])}) for row in found), key=lambda ticket: ticket.id)


def splits() -> dict[str, list[str]]:
    """The ids of each split, as stored."""
    stored = json.loads(SPLITS.read_text())
    return {name: stored[name] for name in ("train", "validation", "test")}


def clusters(tickets: list[Ticket]) -> list[list[Ticket]]:
    """Chains of tickets that ask nearly the same."""
    runs = [_runs(ticket.instruction) for ticket in tickets]
    home = list(range(len(tickets)))
    for a, b in itertools.combinations(range(len(tickets)), 2):
        if len(runs[a] & runs[b]) >= CLOSE * len(runs[a] | runs[b]):
            low, high = sorted((home[a], home[b]))
            home = [low if at == high else at for at in home]
    grouped = defaultdict(list)
    for ticket, at in zip(tickets, home, strict=True):
        grouped[at].append(ticket)
    return list(grouped.values())


def _runs(text: str) -> set[str]:
    letters = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    return {letters[i : i + 4] for i in range(max(1, len(letters) - 3))}


def divide(tickets: list[Ticket]) -> dict[str, list[str]]:
    """Exactly TEST and VALIDATION tickets, the rest for training: whole clusters, each category by its share, drawn by hash.

    Only clusters of one ticket are drawn for test and validation, since a question asked twice would count twice there; the others
    are for training, where near repeats do no harm.
    """
    by_category = defaultdict(list)
    for cluster in clusters(tickets):
        if len(cluster) == 1:
            by_category[cluster[0].category].append(cluster[0].id)
    for ids in by_category.values():
        ids.sort(key=lambda ticket_id: hashlib.sha256(f"{SALT}:{ticket_id}".encode()).digest())
    queue = [ids[turn] for turn in range(max(map(len, by_category.values()))) for ids in _ordered(by_category) if turn < len(ids)]
    test, validation = set(queue[:TEST]), set(queue[TEST : TEST + VALIDATION])
    kept = [ticket.id for ticket in tickets]
    return {
        "train": [i for i in kept if i not in test | validation],
        "validation": [i for i in kept if i in validation],
        "test": [i for i in kept if i in test],
    }


def _ordered(by_category: dict[str, list[str]]) -> list[list[str]]:
    return [by_category[name] for name in sorted(by_category)]
