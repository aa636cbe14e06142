"""From votes and ideal answers to what DPO and KTO learn from: better against worse, and good or bad alone. Never from test prompts.

Counted are the newest revisions of real votes that enter the study's own result: not marked, not voided, of no reviewer set aside.
Reviewers who disagree on a pair cancel each other out. Must not know screens or models.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from ft import curate
from review.protocol.tally import aside_of, counted
from review.services.faults import reading
from review.services.study_reading import beside, record
from storage.database import Database
from storage.queries import library as rows
from storage.queries import preferences as kept
from storage.queries import studies
from storage.queries import votes as cast
from storage.tables import Prompt, Study


@dataclass(frozen=True, slots=True)
class Preferred:
    """`kind` pair: `chosen` was judged better than `rejected`. Single: `chosen` alone was judged good (`label`) or bad."""

    kind: str
    prompt: Prompt
    chosen: str
    rejected: str = ""
    label: bool = True
    vote_id: str = ""

    @property
    def line(self) -> str:
        """What it is in content alone: the order and the identity of a snapshot's preferences."""
        prompt = self.prompt
        parts = [self.kind, prompt.split, prompt.instruction, prompt.input, self.chosen, self.rejected, self.label]
        return json.dumps(parts, ensure_ascii=False)

    def row(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "prompt_id": self.prompt.id, "chosen": self.chosen, "rejected": self.rejected, "label": self.label,
            "split": self.prompt.split, "vote_id": self.vote_id,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Said:
    """One vote's word: +1 for `first` over `second`, or for `first` alone; -1 the other way round."""

    prompt: int
    first: str
    second: str
    points: int
    vote_id: str


def preferred(session: Session) -> list[Preferred]:
    """All preferences that may be learned from, in the order of their content; those too close to a test prompt are left out."""
    said = [one for study in studies.every(session) for one in _study(session, study)]
    about = kept.prompts(session, sorted({one.prompt for one in said}))
    found = [one for one in _summed(said, about) if one.prompt.split != "test"]
    return sorted(_far(session, found), key=lambda one: one.line)


def _study(session: Session, study: Study) -> Iterable[_Said]:
    votes = cast.votes(session, study.id or 0)
    records = [record(row) for row in votes]
    aside = aside_of(records, beside(session, study, votes))
    newest = {(row.assignment_id, row.revision): row for row in votes}
    corrections = {c.assignment_id: c.text for c, _ in rows.corrections(session, study.id or 0)}
    for vote in counted(records, aside):
        yield from _vote(newest[vote.assignment, vote.revision], corrections.get(vote.assignment, "").strip())


def _vote(row: cast.VoteRow, ideal: str) -> Iterable[_Said]:
    sides = {"left": (row.left, row.right), "right": (row.right, row.left)}
    if row.choice in sides:
        better, worse = sides[row.choice]
        lost = [worse]
        yield _pair(row, better, worse)
        yield _Said(row.prompt_id, better, "", 1, row.vote_id)
    else:
        good = row.choice == "tie"
        lost = [] if good else [row.left, row.right]
        yield from (_Said(row.prompt_id, text, "", 1 if good else -1, row.vote_id) for text in (row.left, row.right))
    if ideal:
        yield from (_pair(row, ideal, text) for text in lost)
        yield _Said(row.prompt_id, ideal, "", 1, row.vote_id)


def _pair(row: cast.VoteRow, better: str, worse: str) -> _Said:
    first, second = sorted((better, worse))
    return _Said(row.prompt_id, first, second, 1 if first == better else -1, row.vote_id)


def _summed(said: Iterable[_Said], about: dict[int, Prompt]) -> list[Preferred]:
    """One preference for each pair of texts, or text alone, that has a majority."""
    together: dict[tuple[int, str, str], list[_Said]] = defaultdict(list)
    for one in said:
        if one.first.strip() and one.first.strip() != one.second.strip():
            together[one.prompt, one.first, one.second].append(one)
    found = []
    for (prompt, first, second), votes in together.items():
        points = sum(one.points for one in votes)
        if not points:
            continue
        if second:
            better, worse = (first, second) if points > 0 else (second, first)
            found.append(Preferred("pair", about[prompt], better, worse, True, votes[0].vote_id))
        else:
            found.append(Preferred("single", about[prompt], first, "", points > 0, votes[0].vote_id))
    return found


def _far(session: Session, found: Sequence[Preferred]) -> list[Preferred]:
    """Those whose prompt is not near any test prompt."""
    tests = rows.test_prompts(session)
    clusters = {cluster for _, _, cluster in tests if cluster}
    texts = [curate.whole(one.prompt.instruction, one.prompt.input) for one in found]
    near = curate.near(texts, [curate.whole(instruction, context) for instruction, context, _ in tests]) if tests and found else set()
    return [one for at, one in enumerate(found) if at not in near and one.prompt.cluster not in clusters]


def preference_rows(db: Database, snapshot_id: int, objective: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(train, validation) rows of a snapshot for dpo (output over rejected) or kto (output with a label, good or bad)."""
    by_split: dict[str, list[dict[str, str]]] = defaultdict(list)
    with reading(db) as session:
        for one, prompt in kept.of(session, snapshot_id, "pair" if objective == "dpo" else "single"):
            row = {"instruction": prompt.instruction, "input": prompt.input, "output": one.chosen}
            more = {"rejected": one.rejected} if objective == "dpo" else {"label": "good" if one.label else "bad"}
            by_split[one.split].append(row | more)
    return by_split["train"], by_split["validation"]
