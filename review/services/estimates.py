"""Looking at a run before it starts: its rows as tokens with their loss mask, and time and memory measured in a process of its own.

The check lives in a folder under `checks`, laid out like a run's; the newest few are kept. Must not know torch or screens.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ft
from ft import locks, runs
from ft.errors import BadInput, Busy, NotFound, UserError
from ft.memory import SPARE
from ft.specs import TrainSpec
from review.services.training import Training

KEPT = 5
ALIKE = ("objective", "quantisation", "batch_size", "packing")
OVER = ("done", "failed", "too large")
NO_WORD = "The check ended without a word. Check again."
TOO_LARGE = "It does not fit: the check was ended by the system, most likely for want of memory."


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of a run before it starts. `state`: reading, measuring, done, failed or too large; `raw`: what was measured."""

    id: str
    state: str
    message: str
    raw: dict[str, Any] = field(default_factory=dict)
    advice: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def fits(self) -> bool | None:
        """None while it is not known."""
        if self.state == "too large":
            return False
        estimate = self.raw.get("estimate")
        return None if not estimate else not self.advice


class Estimates:
    def __init__(self, training: Training, home: Path) -> None:
        self._training, self._folder, self._lease = training, home / "checks", home / "runs" / "lease"

    def start(self, snapshot_id: int, spec: TrainSpec) -> str:
        """Begin a check and return its id. Raises BadInput with every problem, Busy while another check runs."""
        if problems := self._training.check(snapshot_id, spec).problems:
            raise BadInput(" ".join(problems))
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lease.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidy()
        busy = locks.take(self._folder / "lock", 0)
        if busy is None:
            raise Busy("Another check is running. Wait until it is over, then check again.")
        try:
            check_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)
            folder, _ = self._training.lay_out(self._folder, check_id, snapshot_id, spec)
            self._spawn(folder, busy)
        finally:
            os.close(busy)
        return check_id

    def _spawn(self, folder: Path, lock: int) -> None:
        """The process holds the lock while it lives, so that a killed check is seen as over."""
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ft.rehearsal", str(folder.resolve()), str(self._lease.resolve())],
                cwd=Path(ft.__file__).parent.parent, env=runs.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=(lock,),
            )  # fmt: skip
        finally:
            os.close(log)
        threading.Thread(target=process.wait, name=f"reap-{folder.name}", daemon=True).start()

    def check(self, check_id: str) -> Check:
        """Raises NotFound."""
        folder = self._folder / check_id
        if not check_id.replace("-", "").isalnum() or not folder.is_dir():
            raise NotFound(f"There is no check {check_id}. Start one with the settings.")
        alive = locks.is_held(self._folder / "lock")
        try:
            raw = json.loads((folder / "check.json").read_bytes())
        except (OSError, ValueError):
            raw = {"state": "reading", "message": "Starting."}
        state, message = raw.get("state", "reading"), raw.get("message", "")
        if state not in OVER and not alive:
            state, message = ("too large", TOO_LARGE) if state == "measuring" else ("failed", NO_WORD)
        spec = runs.read(folder).spec
        return Check(check_id, state, message, raw, tuple(advice(spec, raw, state)))

    def wait(self, check_id: str, seconds: float = 3600) -> Check:
        """The check, once it is over."""
        deadline = time.monotonic() + seconds
        while not (found := self.check(check_id)).over and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def seconds(self, spec: TrainSpec) -> float | None:
        """What one run of `spec` would take, by the newest check of a like one: the same objective, base precision and batch. None where
        there is none."""
        for path in sorted(self._folder.glob("*/check.json"), reverse=True):
            try:
                found = json.loads(path.read_bytes())
                measured, like = found["estimate"], runs.read(path.parent).spec
                rows = found["tokens"]["train"]["rows"]
            except (OSError, ValueError, KeyError, TypeError, UserError):
                continue
            if all(getattr(like, name) == getattr(spec, name) for name in ALIKE):
                passes = [one.max_steps * one.batch_size * one.accumulation / max(rows, 1) or one.epochs for one in (spec, like)]
                return float(measured["seconds"] * passes[0] / max(passes[1], 1e-9))
        return None

    def _tidy(self) -> None:
        for old in sorted(path for path in self._folder.iterdir() if path.is_dir())[: -(KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)


def advice(spec: TrainSpec, raw: dict[str, Any], state: str) -> list[str]:
    """What to change when it does not fit; empty where it does."""
    estimate, there = raw.get("estimate") or {}, raw.get("memory_there") or 0
    found = []
    if state == "too large" or (there and SPARE * estimate.get("peak_memory", 0) > there):
        found += smaller(spec, raw)
    needed = estimate.get("disk_needed", 0)
    free = raw.get("disk_free", needed)
    if needed > free:
        found.append(f"Checkpoints and the adapter need about {needed >> 20} MB of disk, and {free >> 20} MB are free: make room.")
    return found


def smaller(spec: TrainSpec, raw: dict[str, Any]) -> list[str]:
    """Ways to need less memory, the gentlest first."""
    found = []
    if spec.batch_size > 1 + (spec.objective == "kto"):
        half = max(1, spec.batch_size // 2)
        more = spec.accumulation * 2
        found.append(f"Lower examples at once from {spec.batch_size} to {half}, and raise batches a step to {more}: the same result.")
    train = (raw.get("tokens") or {}).get("train") or {}
    longest, p95 = train.get("longest", 0), train.get("p95", 0)
    if p95 and longest > 1.3 * p95:
        found.append(f"Lower the longest example from {min(spec.max_length, longest)} to {p95} tokens: 5 in 100 examples are left out.")
    if spec.quantisation != "4bit":
        found.append("Hold the base in 4 bits.")
    if spec.lora.rank > 16:
        found.append("Lower the rank to 16.")
    return found or ["Take a smaller base model, or a machine with more memory."]
