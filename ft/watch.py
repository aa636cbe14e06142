"""Watches a training run from inside: writes its events, validates, warns in words, keeps the best weights, stops early.

Torch side. Must not know the database, the screens, or how the run was set up.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft.energy import Energy
from ft.errors import BadInput
from ft.journal import Journal, write_whole
from ft.memory import Memory
from ft.objectives import put_back, trainable
from ft.sampling import scores, side_by_side
from ft.specs import TrainSpec

STEPS_BETWEEN = 5  # validating more often than this would cost a short run more than its training
TELL_SECONDS = 2.0  # a step that is not logged is told this often
RISE = 1.02  # validation loss this much above its best is said at once, less of it at the second time in a row
BEST, STATE = "best.safetensors", "watch.json"


class Wishes(Protocol):
    """What people ask of the run: `stop` for good, `pause` to save and go; called, whether either. `finish`: end with the best."""

    @property
    def stop(self) -> bool: ...

    @property
    def pause(self) -> bool: ...

    @property
    def finish(self) -> bool: ...

    def __call__(self) -> bool: ...


@dataclass(slots=True)
class Kept:
    """What a checkpoint remembers of the watching."""

    before: float = math.inf
    best: float = math.inf  # validation loss at the kept step
    best_value: float = math.inf  # of what stops the run; lower is better, so scores are held negative
    best_step: int = 0
    without_gain: int = 0
    warned: bool = False
    logged_step: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    validated: list[tuple[int, float]] = field(default_factory=list)


class Watch(TrainerCallback):
    """One per run. `validate(model, should_stop)` gives (loss, other numbers), `write(model, should_stop)` the sample answers.

    After training: `kept`, `left` (asked to stop or pause), `early`, `cut` (asked to finish), `restore_best()`.
    """

    def __init__(
        self, journal: Journal, spec: TrainSpec, wishes: Wishes,
        validate: Callable[..., tuple[float, dict[str, float]]], write: Callable[..., list[str]] | None = None, asked: Any = (),
    ) -> None:  # fmt: skip
        self.journal, self.spec, self.wishes = journal, spec, wishes
        self.validate, self.write, self.asked = validate, write, asked
        self.trainer: Any = None
        self.every = 1
        self.left = self.early = self.cut = False
        self.kept = Kept()
        self.energy = Energy()
        self._weights: dict[str, torch.Tensor] = {}
        self._told = self._step_began = self._step_seconds = self._check_seconds = self._last_tokens = 0.0
        self._saved_at = self._began = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        self.every = math.ceil(state.max_steps / min(self.spec.evaluations, max(1, state.max_steps // STEPS_BETWEEN)))
        self._last_tokens = self.trainer.tokens_seen
        if state.global_step:
            self.journal.event("resumed", state.global_step, message=f"Went on from the checkpoint of step {state.global_step}.")
            if state.global_step % self.every == 0 and self.kept.validated[-1][0] < state.global_step:  # paused while validating
                self._check(model, state.global_step, control)
        else:
            loss, _value = self._validate(model, 0)
            self.kept.before = math.inf if self.wishes() else loss
        self.journal.status(message="Training.", step=state.global_step, steps=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step_began = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.wishes.stop:
            self._leave(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        took = time.monotonic() - self._step_began
        self._step_seconds = 0.9 * self._step_seconds + 0.1 * took if self._step_seconds else took
        if time.monotonic() - self._told > TELL_SECONDS:
            self._tell(state)
        if self.wishes.stop:
            self._leave(control)
            return
        self.cut = self.wishes.finish and not self.wishes.pause and state.global_step < state.max_steps
        last = state.global_step == state.max_steps or self.cut
        control.should_training_stop = control.should_training_stop or self.cut
        if state.global_step % self.every == 0 or last:
            self._check(model, state.global_step, control)
            control.should_save = not last and not self.early and not self.left
        if self.wishes.pause and not last:
            control.should_save = math.isfinite(self.kept.before)
            self._leave(control)
        elif time.monotonic() - self._saved_at > 60 * self.spec.checkpoint_minutes and not last:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:  # fmt: skip
        if not logs or "loss" not in logs or state.global_step == self.kept.logged_step:
            return
        step, steps = state.global_step, state.global_step - self.kept.logged_step
        loss, self.trainer.loss_sum = self.trainer.loss_sum / steps, 0.0
        self.kept.logged_step = step
        self._refuse_nan(loss, step)
        self.kept.losses.append((step, loss))
        self.journal.event(
            "train", step, steps=state.max_steps, loss=loss, learning_rate=logs.get("learning_rate"), grad_norm=logs.get("grad_norm"),
            margin=logs.get("rewards/margins"), tokens_per_second=self._pace(steps), memory=peak_memory(), seconds_left=self._tell(state),
        )  # fmt: skip

    def _tell(self, state: TrainerState) -> float:
        """Where it stands, into the status file; returns the seconds left."""
        left = self._seconds_left(state)
        memory = Memory()
        room = memory.free() + memory.held() - peak_memory()  # what is left when this process needs most
        self.journal.status(step=state.global_step, steps=state.max_steps, seconds_left=left, peak_memory=peak_memory(), room=room)
        self._told = time.monotonic()
        if memory.on_gpu:
            self.energy.look()
        return left

    def _refuse_nan(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            rate = self.spec.learning_rate
            cause = "the learning rate is too high" if rate > 3e-4 else "half precision overflowed, or a row holds something odd"
            raise BadInput(
                f"The loss became {loss} at step {step}, so nothing more can be learnt: most likely {cause}. "
                f"Lower the learning rate (now {rate:g}) and start again."
            )

    def _leave(self, control: TrainerControl) -> None:
        self.left = control.should_training_stop = control.should_epoch_stop = True

    def _check(self, model: Any, step: int, control: TrainerControl) -> None:
        loss, value = self._validate(model, step)
        if self.wishes():
            self._leave(control)
            return
        kept = self.kept
        if value < kept.best_value:
            kept.best, kept.best_value, kept.best_step, kept.without_gain = loss, value, step, 0
            self._weights = trainable(model)
        else:
            kept.without_gain += 1
        self._warn_if_memorising(step, loss)
        if self.spec.patience and kept.without_gain >= self.spec.patience:
            self.early = control.should_training_stop = True

    def _validate(self, model: Any, step: int) -> tuple[float, float]:
        """(loss, the value to be lowered)."""
        began = time.monotonic()
        loss, facts = self.validate(model, self.wishes)
        if self.wishes():
            return loss, math.inf
        self._refuse_nan(loss, step)
        more = {"perplexity": math.exp(min(loss, 700))} if self.spec.objective == "sft" else {}
        self.journal.event("validation", step, loss=loss, seconds=time.monotonic() - began, **more, **facts)
        self.kept.validated.append((step, loss))
        found = self._write(model, step)
        self._check_seconds = time.monotonic() - began
        named = next((name for name in found if name.startswith(self.spec.stop_on)), "")
        return loss, -found[named] if named else loss

    def _write(self, model: Any, step: int) -> dict[str, float]:
        """Scores of answers written now; empty where none were asked for."""
        if not self.write or not self.asked:
            return {}
        began = time.monotonic()
        written = self.write(model, self.wishes)
        if len(written) < len(self.asked):
            return {}
        found = scores(written, self.asked)
        self.journal.event(
            "samples", step, n=len(written), scores=found, texts=side_by_side(written, self.asked), seconds=time.monotonic() - began
        )  # fmt: skip
        return found

    def _warn_if_memorising(self, step: int, loss: float) -> None:
        """Once per run, when validation has turned while training still falls."""
        best_step, best = min(self.kept.validated, key=lambda point: point[1])
        since = [value for at, value in self.kept.losses if at > best_step]
        until = [value for at, value in self.kept.losses if at <= best_step][-len(since) :]
        falls = bool(since and until) and sum(since) / len(since) < sum(until) / len(until)
        risen = loss > best * RISE or (loss > best and self.kept.without_gain > 1)
        if self.kept.warned or not risen or not falls:
            return
        self.kept.warned = True
        self.journal.event(
            "warning", step,
            message=f"Validation loss has risen from {best:.3f} (step {best_step}) to {loss:.3f} (step {step}) while training "
            "loss still falls: the adapter is starting to learn its examples by heart. The weights of the best step are kept.",
        )  # fmt: skip

    def _pace(self, steps: int) -> float:
        new, self._last_tokens = self.trainer.tokens_seen - self._last_tokens, self.trainer.tokens_seen
        return new / max(self._step_seconds * max(steps, 1), 1e-9)

    def _seconds_left(self, state: TrainerState) -> float:
        left = state.max_steps - state.global_step
        return left * self._step_seconds + math.ceil(left / self.every) * self._check_seconds

    @property
    def seconds(self) -> float:
        """Time spent on the run, pauses left out."""
        return self.kept.seconds + time.monotonic() - self._began

    def write_state(self, folder: Path) -> None:
        kept = {name: getattr(self.kept, name) for name in Kept.__slots__}
        write_whole(folder / STATE, {**kept, "seconds": self.seconds, "joules": self.energy.joules}, durable=False)
        if self._weights:
            save_file(self._weights, folder / BEST)

    def read_state(self, folder: Path) -> None:
        raw = json.loads((folder / STATE).read_bytes())
        infinite = {name: math.inf if raw[name] is None else raw[name] for name in ("before", "best", "best_value")}
        points = {name: [(at, value) for at, value in raw[name]] for name in ("losses", "validated")}
        self.kept = Kept(**{**raw, **infinite, **points})
        self.energy = Energy(self.kept.joules)
        if (folder / BEST).exists():
            self._weights = load_file(folder / BEST)

    def restore_best(self, model: Any) -> None:
        """Put the weights of the best validation step back into the model."""
        if self._weights:
            put_back(model, self._weights)


def peak_memory() -> int:
    """Bytes: the most that this process has held, on the GPU where there is one, else in main memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
