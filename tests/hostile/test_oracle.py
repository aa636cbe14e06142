"""T13: a classifier that sees every byte and time of the wire, except the answers' texts, cannot tell which side is the tuned one.

A thousand assignments in the suite; `TIEBREAK_FULL=1 pytest tests/hostile/test_oracle.py` judges five thousand. The same classifier finds
a side that is given away by one byte, by the length of a header, or by milliseconds: it has the power to accuse.
"""

import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile.site import Visitor, free_socket, served

pytestmark = pytest.mark.hostile
FULL = bool(os.environ.get("TIEBREAK_FULL"))
ASSIGNMENTS = 5000 if FULL else 1000
LEAKY = 150
PER_REVIEWER = 50
BUCKETS = 1024


@dataclass
class Trace:
    """What the wire showed of one assignment; `left_is_tuned` is the truth, read from the database afterwards."""

    assignment: str
    body: str
    headers: str
    seconds: float
    left_is_tuned: bool = False


@dataclass
class Wire:
    """An app with a study of two arms, and its page's functions by name."""

    house: Any
    base: str
    functions: dict[str, int]

    def ask(self, visitor: Visitor, verb: str, sent: dict[str, Any]) -> tuple[dict[str, Any], Trace]:
        begun = time.perf_counter()
        reply = visitor.post("/review/gradio_api/run/predict", visitor.payload(self.functions[verb], [sent]))
        seconds = time.perf_counter() - begun
        assert reply.status_code == 200, reply.text
        headers = "\n".join(f"{name}: {value}" for name, value in reply.headers.items() if name != "date")
        told = reply.json()["data"][0]
        scene = told.get("scene") or {}
        body = reply.text
        for side in ("left", "right"):
            body = body.replace(json.dumps(scene.get(side, "")), side[0].upper())
        return told, Trace(scene.get("assignment", ""), body, headers, seconds)


@contextmanager
def wire(home: Path) -> Iterator[Wire]:
    from ft.scripted import ScriptedEngine
    from review.services.house import build, open_database
    from review.settings import Settings
    from review.web import build_app
    from storage.tables import Adapter, Answer, Arm, Prompt, PromptSet

    listener = free_socket()
    db = open_database(f"sqlite:///{home / 'tiebreak.db'}")
    db.migrate()
    house = build(Settings(home, engine="scripted", port=listener.getsockname()[1]), db, ScriptedEngine())
    with db.write() as session:
        tickets, adapter = PromptSet(name="tickets"), Adapter(name="tuned", folder="x", content_hash="x", rank=8, alpha=16, bytes=1)
        session.add_all([tickets, adapter])
        session.flush()
        arms = [
            Arm(name="base", kind="base", settings_hash="b"),
            Arm(name="tuned", kind="adapter", adapter_id=adapter.id, settings_hash="t"),
        ]
        prompts = [
            Prompt(set_id=tickets.id or 0, split="test", instruction=f"Question {n}?", content_hash=str(n)) for n in range(PER_REVIEWER)
        ]
        session.add_all([*arms, *prompts])
        session.flush()
        session.add_all(
            Answer(
                arm_id=arm.id or 0, prompt_id=prompt.id or 0, text=f"{arm.name} says {secrets.token_hex(8 if arm.kind == 'base' else 80)}"
            )
            for prompt in prompts
            for arm in arms
        )
    house.studies.create("study", "tickets", ["base", "tuned"], votes_per_pair=100)
    house.studies.open("study")
    guard = build_app(house)
    review = next(route.app.get_blocks() for route in guard.app.routes if route.path == "/review")
    with served(guard, listener) as base:
        yield Wire(house, base, {fn.api_name: index for index, fn in review.fns.items() if isinstance(fn.api_name, str)})
    db.close()


def traces(found: Wire, count: int) -> list[Trace]:
    """Everything that reviewers' browsers receive with each new pair, until there are `count` pairs."""
    seen: list[Trace] = []
    for number in range(count):
        if len(seen) >= count:
            break
        seen += judge_all(found, f"reviewer {number}", count - len(seen))
    with_truth(found, seen)
    return seen


def judge_all(found: Wire, name: str, count: int) -> Iterator[Trace]:
    found.house.people.add(name, "reviewer")
    visitor = Visitor(found.base)
    reply = visitor.http.post(f"/login/{found.house.people.link(name)}", headers={"origin": found.base})
    assert reply.status_code == 303
    told, trace = found.ask(visitor, "begin", {})
    while told["scene"]["stage"] == "practice":
        done, _ = found.ask(visitor, "practise", {"pair": told["scene"]["number"], "choice": "left"})
        told, trace = (done, trace) if done["scene"] else found.ask(visitor, "begin", {})
    for _ in range(count):
        if not trace.assignment:
            return
        yield trace
        sent = {"assignment": trace.assignment, "choice": "tie", "comment": "", "reasons": [], "criteria": {}, "revises": 0}
        _, trace = found.ask(visitor, "vote", sent | {"key": secrets.token_hex(16), "ahead": True})


def with_truth(found: Wire, seen: list[Trace]) -> None:
    with found.house.db.session() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT assignment.id, arm.name FROM assignment JOIN answer ON answer.id = left_answer_id JOIN arm ON arm.id = answer.arm_id"
        )
        truth = {assignment: name == "tuned" for assignment, name in rows}
    for trace in seen:
        trace.left_is_tuned = truth[trace.assignment]


def features(seen: list[Trace]) -> np.ndarray:
    """Hashed 4-grams of the bytes, lengths, and the rank of the time; each scaled to the same spread. (traces, features)"""
    grams = np.zeros((len(seen), BUCKETS))
    for row, trace in zip(grams, seen, strict=True):
        told = trace.headers + "\n" + trace.body
        for at in range(len(told) - 3):
            row[zlib.crc32(told[at : at + 4].encode()) % BUCKETS] += 1
    times = np.argsort(np.argsort([trace.seconds for trace in seen])).astype(float)
    plain = np.array([[len(t.body), len(t.headers), t.body.count(" ")] for t in seen], dtype=float)
    found = np.column_stack([grams, plain, times])
    weight = np.array([1.0] * BUCKETS + [10.0] * 4)  # the likeliest leaks weigh more than one gram among a thousand
    spread = found.std(axis=0)
    told = spread > 0
    return np.asarray((found[:, told] - found[:, told].mean(axis=0)) / spread[told] * weight[told])


def reader(x: np.ndarray, folds: int = 5, ridge: float = 30.0) -> np.ndarray:
    """What turns truths into held-out scores: those of a ridge classifier, in its dual form. (traces, traces)"""
    found = np.zeros((len(x), len(x)))
    fold = np.random.default_rng(1).permutation(len(x)) % folds
    for each in range(folds):
        learn, test = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        kernel = x[learn] @ x[learn].T
        found[np.ix_(test, learn)] = np.linalg.solve(kernel + ridge * np.eye(len(kernel)), x[learn] @ x[test].T).T
    return found


def area(truth: np.ndarray, said: np.ndarray) -> float:
    """Under the curve: how often the score of a tuned side is above that of another one (Mann and Whitney 1947)."""
    order = np.empty(len(said))
    order[np.argsort(said, kind="stable")] = np.arange(1, len(said) + 1)
    ours = truth > 0
    return float((order[ours].sum() - ours.sum() * (ours.sum() + 1) / 2) / (ours.sum() * (~ours).sum()))


@dataclass
class Judged:
    """The classifier's area; `by_lot`: areas where the sides are shuffled, which is what no knowledge at all looks like."""

    area: float
    by_lot: np.ndarray

    @property
    def p(self) -> float:
        """How often lots alone give such an area or a larger one."""
        return float((1 + (self.by_lot >= self.area).sum()) / (1 + len(self.by_lot)))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, as wide as lots alone spread: formulas for independent scores are too narrow here, where they share what was learnt."""
        width = 1.96 * float(self.by_lot.std())
        return self.area - width, self.area + width

    def __str__(self) -> str:
        return f"AUC {self.area:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f}), p {self.p:.3f}"


def judged(seen: list[Trace], shuffles: int = 2000) -> Judged:
    truth, read = np.array([1.0 if trace.left_is_tuned else -1.0 for trace in seen]), reader(features(seen))
    rng = np.random.default_rng(2)
    shuffled = np.array([rng.permutation(truth) for _ in range(shuffles)])
    by_lot = np.array([area(each, said) for each, said in zip(shuffled, shuffled @ read.T, strict=True)])
    return Judged(area(truth, read @ truth), by_lot)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wire(tmp_path_factory.mktemp("oracle")) as found:
        yield found


def test_no_byte_and_no_time_tells_the_sides_apart(app: Wire) -> None:
    seen = traces(app, ASSIGNMENTS)
    assert len({trace.assignment for trace in seen}) == ASSIGNMENTS
    found = judged(seen)
    print(f"{found} over {len(seen)} assignments")
    assert found.p > 0.001, f"{found}: more than lots give"
    assert found.interval[1] < (0.55 if FULL else 0.62)


def leaking(app: Wire, tell: Callable[[dict[str, Any]], None]) -> Callable[[Any], dict[str, Any]]:
    """A scene builder that gives the tuned side away by `tell`, called where it stands left."""
    from review.screens.review.scene import scene_of

    def leaky(found: Any) -> dict[str, Any]:
        scene = scene_of(found)
        if scene["stage"] == "pair" and scene["left"].startswith("tuned"):
            tell(scene)
        return scene

    return leaky


@pytest.mark.parametrize(
    "tell",
    [
        lambda scene: scene.update(total=scene["total"] + 1000),
        lambda scene: scene.update(prompt=scene["prompt"] + " "),
        lambda scene: time.sleep(0.06),
    ],
    ids=["a number", "a space", "sixty milliseconds"],
)
def test_a_leak_is_found(app: Wire, tell: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    from review.screens.review import room

    monkeypatch.setattr(room, "scene_of", leaking(app, tell))
    seen = [
        trace
        for name in (f"leak {secrets.token_hex(4)}" for _ in range(LEAKY // PER_REVIEWER))
        for trace in judge_all(app, name, PER_REVIEWER)
    ]
    with_truth(app, seen)
    found = judged(seen, shuffles=200)
    assert found.area > 0.95, str(found)
