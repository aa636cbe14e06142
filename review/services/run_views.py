"""A training run as people see it: where it stands, its curves, what it wrote, what it warns of. Reads rows, changes nothing.

Must not know torch, screens or processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import Session

from ft import runs
from ft.advice import HELP, PRESETS
from ft.errors import UserError
from ft.runs import RunState
from ft.specs import TrainSpec
from storage.queries import training as queries
from storage.tables import Run, RunEvent

__all__ = ["HELP", "PRESETS", "Point", "Pulse", "RunView", "Written", "for_seconds", "megabytes", "spec_of", "view"]
Point = tuple[int, float]
GAVE_UP = "What follows training stopped"
START_AGAIN = "Start it again for this adapter to go on."
SHOWN = ("train", "validation", "samples", "warning", "resumed", "start")


@dataclass(frozen=True, slots=True)
class Written:
    """One evaluation's answers to the same few prompts. `scores` are of `n` answers; `texts` have prompt, answer and reference."""

    step: int
    n: int
    scores: dict[str, float]
    texts: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pulse:
    """The newest numbers of a run under way; None where not known. `memory` in bytes."""

    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory: int | None = None
    perplexity: float | None = None
    margin: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as shown. Curves are (step, loss) points; `seconds_left` is None when not known; `after`: "", registered, answered, scored,
    checked."""

    id: str
    name: str
    status: str
    message: str
    spec: TrainSpec
    snapshot: int
    step: int
    steps: int
    seconds_left: float | None
    curve: tuple[Point, ...]
    validation: tuple[Point, ...]
    warnings: tuple[str, ...]
    adapter: str
    after: str
    log: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    pulse: Pulse = Pulse()
    written: tuple[Written, ...] = ()
    scores: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    rates: tuple[Point, ...] = ()
    norms: tuple[Point, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    asked: str = ""  # "pause", "stop" or "finish" while that is under way

    @property
    def can_pause(self) -> bool:
        return self.status in ("queued", "running") and not self.asked

    @property
    def can_finish(self) -> bool:
        return self.status == "running" and not self.asked

    @property
    def stuck(self) -> bool:
        """What follows training waits for a person."""
        return self.status == "finished" and any(words in self.message for words in (GAVE_UP, START_AGAIN))

    @property
    def can_resume(self) -> bool:
        return self.status in ("paused", "lost", "failed")

    @property
    def can_cancel(self) -> bool:
        return self.status in ("queued", "running", "paused")


def view(session: Session, row: Run, *, whole: bool) -> RunView:
    state = where(session, row)
    adapter = queries.adapter_of(session, row.id)
    events = newest(queries.events(session, row.id, SHOWN)) if whole else []
    spec, running = spec_of(row), row.status == "running"
    written = [Written(e.step, e.data["n"], e.data["scores"], tuple(e.data["texts"])) for e in events if e.kind == "samples"]
    return RunView(
        id=row.id, name=spec.name, status=row.status, message=row.message, spec=spec, snapshot=row.snapshot_id,
        step=state.step, steps=state.steps, seconds_left=state.seconds_left if running else None,
        curve=points(events, "train"), validation=points(events, "validation"),
        warnings=tuple(e.data.get("message", "") for e in events if e.kind == "warning"),
        adapter=adapter.name if adapter else "", after=row.after, log=runs.log_tail(Path(row.folder)) if whole else "",
        created_at=row.created_at, started_at=row.started_at, ended_at=row.ended_at, pulse=pulse(events), written=tuple(written),
        scores={name: tuple((one.step, one.scores[name]) for one in written if name in one.scores) for name in score_names(written)},
        rates=points(events, "train", "learning_rate"), norms=points(events, "train", "grad_norm"),
        facts=next((e.data for e in events if e.kind == "start"), {}),
        asked=asked(state) if running else "",
    )  # fmt: skip


def asked(state: RunState) -> str:
    wishes = {"stop": state.stop_asked, "pause": state.pause_asked, "finish": state.finish_asked}
    return next((wish for wish, is_asked in wishes.items() if is_asked), "")


def where(session: Session, row: Run) -> RunState:
    """Step and time left: by its directory while it runs, since not every step is an event; by its events afterwards."""
    if row.status in ("running", "paused"):
        return runs.state(Path(row.folder))
    last = queries.newest_event(session, row.id, "train")
    return RunState(row.status, step=last.step, steps=last.data.get("steps", 0)) if last else RunState(row.status)


def newest(events: Sequence[RunEvent]) -> list[RunEvent]:
    """After a crash, steps are done again: of events of one kind and step the last counts. Warnings all stay, each once."""
    kept: dict[tuple[str, int, str], RunEvent] = {}
    for event in events:
        kept[event.kind, event.step, event.data.get("message", "") if event.kind == "warning" else ""] = event
    return sorted(kept.values(), key=lambda event: (event.step, event.seq))


def points(events: Sequence[RunEvent], kind: str, name: str = "loss") -> tuple[Point, ...]:
    return tuple((e.step, e.data[name]) for e in events if e.kind == kind and e.data.get(name) is not None)


def score_names(written: Sequence[Written]) -> list[str]:
    return list(dict.fromkeys(name for one in written for name in one.scores))


def pulse(events: Sequence[RunEvent]) -> Pulse:
    train = next((e.data for e in reversed(events) if e.kind == "train"), {})
    checked = next((e.data for e in reversed(events) if e.kind == "validation"), {})
    beat = {name: train.get(name) for name in ("learning_rate", "grad_norm", "tokens_per_second", "memory")}
    return Pulse(**beat, **{name: checked.get(name) for name in ("perplexity", "margin", "accuracy")})


def spec_of(row: Run) -> TrainSpec:
    try:
        return TrainSpec.from_dict(row.spec)
    except UserError:  # written by a newer version of the program
        return TrainSpec(name=str(row.spec.get("name", row.id)))


def for_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def megabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
