"""Watches a training run from inside: writes its events, validates, warns in words, keeps the best weights, stops early.

Torch side. Must not know the database, the screens, or how the run was set up.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft.errors import BadInput
from ft.journal import Journal
from ft.losses import answer_nll, can_use_own_head

STEPS_BETWEEN = 5  # validating more often than this would cost a short run more than its training
TELL_SECONDS = 2.0  # a step that is not logged is told this often
Batch = dict[str, torch.Tensor]


def validation_loss(model: Any, batches: list[Batch], should_stop: Callable[[], bool]) -> float:
    """Mean negative log-likelihood over every answer token of `batches`: long answers weigh as much as they are long."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        with torch.no_grad():
            for batch in batches:
                if should_stop():
                    break
                moved = {key: value.to(model.device) for key, value in batch.items()}
                nll, count = answer_nll(model, moved, own_head=can_use_own_head(model, 1))
                total, tokens = total + float(nll), tokens + int(count)
    finally:
        model.train(was_training)
    return total / max(tokens, 1)


class Watch(TrainerCallback):
    """One per run. After training: `best_step`, `before`, `best` (validation losses), `stopped`, `restore_best()`."""

    def __init__(
        self, journal: Journal, batches: list[Batch], evaluations: int, patience: int, learning_rate: float, should_stop: Callable[[], bool]
    ) -> None:
        self.journal, self.batches, self.should_stop = journal, batches, should_stop
        self.evaluations, self.patience, self.learning_rate = evaluations, patience, learning_rate
        self.every = 1
        self.count_tokens: Callable[[], int] = lambda: 0
        self.stopped = self.early = False
        self.before = self.best = math.inf
        self.best_step = self.without_gain = self.tokens = 0
        self._weights: dict[str, torch.Tensor] = {}
        self._losses: list[tuple[int, float]] = []
        self._validated: list[tuple[int, float]] = []
        self._warned = False
        self._told = self._step_began = self._step_seconds = self._check_seconds = self._last_tokens = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        self.every = math.ceil(state.max_steps / min(self.evaluations, max(1, state.max_steps // STEPS_BETWEEN)))
        self.before = self._validate(model, 0)
        self.journal.status(message="Training.", step=0, steps=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step_began = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._heed_stop(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        took = time.monotonic() - self._step_began
        self._step_seconds = took if state.global_step == 1 else 0.9 * self._step_seconds + 0.1 * took
        if time.monotonic() - self._told > TELL_SECONDS:
            self._tell(state)
        self._heed_stop(control)
        if not self.stopped and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            self._check(model, state.global_step, control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:  # fmt: skip
        if not logs or "loss" not in logs:
            return
        step, loss = state.global_step, float(logs["loss"])
        self._refuse_nan(loss, step)
        self._losses.append((step, loss))
        self.tokens = self.count_tokens()
        left = self._tell(state)
        self.journal.event(
            "train", step, steps=state.max_steps, loss=loss, learning_rate=logs.get("learning_rate"), grad_norm=logs.get("grad_norm"),
            tokens_per_second=self._pace(args.logging_steps), seconds_left=left,
        )  # fmt: skip

    def _tell(self, state: TrainerState) -> float:
        """Where it stands, into the status file; returns the seconds left."""
        left = self._seconds_left(state)
        self.journal.status(step=state.global_step, steps=state.max_steps, seconds_left=left)
        self._told = time.monotonic()
        return left

    def _refuse_nan(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss became {loss} at step {step}, so nothing more can be learnt. "
                f"Lower the learning rate (now {self.learning_rate:g}) and start again."
            )

    def _heed_stop(self, control: TrainerControl) -> None:
        if self.should_stop():
            self.stopped = control.should_training_stop = control.should_epoch_stop = True

    def _check(self, model: Any, step: int, control: TrainerControl) -> None:
        loss = self._validate(model, step)
        self._heed_stop(control)
        if self.stopped:
            return
        if loss < self.best:
            self.best, self.best_step, self.without_gain = loss, step, 0
            self._weights = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}
        else:
            self.without_gain += 1
            self._warn_if_memorising(step, loss)
        if self.patience and self.without_gain >= self.patience:
            self.early = control.should_training_stop = True

    def _validate(self, model: Any, step: int) -> float:
        began = time.monotonic()
        loss = validation_loss(model, self.batches, self.should_stop)
        self._check_seconds = time.monotonic() - began
        if not self.should_stop():
            self._refuse_nan(loss, step)
            self.journal.event("validation", step, loss=loss, perplexity=math.exp(min(loss, 700)), seconds=self._check_seconds)
            self._validated.append((step, loss))
        return loss

    def _warn_if_memorising(self, step: int, loss: float) -> None:
        """Once per run, when validation has turned while training still falls."""
        since = [value for at, value in self._losses if at > self.best_step]
        until = [value for at, value in self._losses if at <= self.best_step][-len(since) :]
        if self._warned or not since or not until or sum(since) / len(since) >= sum(until) / len(until):
            return
        self._warned = True
        self.journal.event(
            "warning", step,
            message=f"Validation loss has risen from {self.best:.3f} (step {self.best_step}) to {loss:.3f} (step {step}) while training "
            "loss still falls: the adapter is starting to learn its examples by heart. The weights of the best step are kept.",
        )  # fmt: skip

    def _pace(self, steps: float) -> float:
        new, self._last_tokens = self.tokens - self._last_tokens, self.tokens
        return new / max(self._step_seconds * max(steps, 1), 1e-9)

    def _seconds_left(self, state: TrainerState) -> float:
        left = state.max_steps - state.global_step
        return left * self._step_seconds + math.ceil(left / self.every) * self._check_seconds

    def restore_best(self, model: Any) -> None:
        """Put the weights of the best validation step back into the model."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])
