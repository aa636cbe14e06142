"""A run as one watches it: progress, curves, the newest numbers, what it writes, what it warns of. Pure HTML from what a service read.

Must not know services' doings, storage or torch.
"""

import json
from typing import TYPE_CHECKING

from review.screens.drawing import curve
from review.screens.evidence import flow
from review.screens.parts import badge, empty_state, escape, minutes, progress_bar, table, when
from review.services.run_views import megabytes

if TYPE_CHECKING:
    from review.services.run_views import Pulse, RunView

TONES = {
    "queued": "plain", "running": "warn", "paused": "warn", "finished": "good", "failed": "bad", "cancelled": "plain", "lost": "bad",
}  # fmt: skip
AFTER = {
    "": "Next, its adapter is registered by itself.",
    "registered": "The adapter is registered and is answering the test prompts.",
    "answered": "The adapter has answered the test prompts and is being scored.",
    "scored": "The adapter is scored and on the board, and is answering what must not get worse.",
    "checked": "The adapter is scored and on the board. What speaks for and against it is under In use.",
}
ASKED = {
    "pause": "It is saving itself and then lets the machine go.", "stop": "It is being stopped.",
    "finish": "It ends after the step it is at, and keeps the best one.",
}  # fmt: skip
LOW_IS_GOOD = "Loss: how much the right answers surprise the model. Lower is better; if validation climbs while training falls, stop."
SCORES = {"bleu": "BLEU", "rougeL": "ROUGE-L", "meteor": "METEOR", "meteor_stem": "METEOR without synonyms"}
LOOKS = 6  # evaluations whose answers are shown side by side


def run_html(run: "RunView | None") -> str:
    """One run: state, progress, curves, what it writes, warnings, and what comes next."""
    if run is None:
        return empty_state("No run yet.", "Approve examples above, then start one.")
    words = f"step {run.step} of {run.steps}" if run.steps else "waiting for the first step"
    if run.seconds_left is not None:
        words += f" · {minutes(run.seconds_left)} left"
    done = (run.steps or 1) if run.status == "finished" else run.step
    parts = [
        f'<div class="tb-run-head"><b dir="auto">{escape(run.name)}</b> {badge(run.status, TONES.get(run.status, "plain"))}'
        f'<span class="tb-muted tb-small">{escape(run.id)} · {escape(when(run.started_at or run.created_at))}</span></div>',
        progress_bar(done, run.steps, words, label="Training"),
    ]
    message = ASKED.get(run.asked) or run.message
    if message:
        parts.append(f'<p dir="auto">{escape(message)}</p>')
    parts += [f'<p class="tb-warn-ink">{escape(words)}</p>' for words in run.warnings]
    if run.status in ("running", "paused"):
        parts.append(pulse_html(run.pulse))
    lines = [("training", run.curve), ("validation", run.validation)]
    parts.append(curve(lines, LOW_IS_GOOD if run.curve or run.validation else "The curve appears with the first steps."))
    parts += [scores_html(run), more_curves(run), settings_html(run)]
    if run.status == "finished":
        made = f'Adapter <b dir="auto">{escape(run.adapter)}</b>. ' if run.adapter else ""
        parts.append(f"<p>{made}{escape(AFTER.get(run.after, ''))}</p>")
    return flow(*parts)


def pulse_html(pulse: "Pulse") -> str:
    """The newest numbers, each with its name."""
    named = [
        ("tokens a second", pulse.tokens_per_second, "{:.0f}"), ("memory", pulse.memory, ""), ("perplexity", pulse.perplexity, "{:.2f}"),
        ("margin on held-out votes", pulse.margin, "{:+.3f}"), ("held-out pairs ranked right", pulse.accuracy, "{:.0%}"),
        ("learning rate", pulse.learning_rate, "{:.2g}"), ("gradient norm", pulse.grad_norm, "{:.2g}"),
    ]  # fmt: skip
    said = [
        f"{name} <b>{shape.format(value) if shape else escape(megabytes(value))}</b>" for name, value, shape in named if value is not None
    ]
    return f'<p class="tb-num tb-small tb-muted">{" · ".join(said)}</p>' if said else ""


def scores_html(run: "RunView") -> str:
    """Scores of written answers over the run, and the answers to the same prompts side by side."""
    if not run.written:
        return ""
    last = run.written[-1]
    said = ", ".join(f"{SCORES.get(name, name)} {value:.3g}" for name, value in last.scores.items())
    lines = [(SCORES.get(name, name), points) for name, points in run.scores.items() if name != "bleu"]
    words = f"Scores of {last.n} validation answers written at each look: a direction, not a result."
    looks = run.written if len(run.written) <= LOOKS else (run.written[0], *run.written[-LOOKS + 1 :])
    columns = ["Asked", "Should be", *(f"Step {one.step}" if one.step else "Before training" for one in looks)]
    rows = []
    for at, text in enumerate(last.texts):
        answers = [one.texts[at]["answer"] if at < len(one.texts) else "" for one in looks]
        cells = [text["prompt"], text["reference"], *answers]
        rows.append([f'<div class="tb-cell tb-plain" dir="auto">{escape(cell) or "—"}</div>' for cell in cells])
    return (
        f'<div class="tb-h2"><h3>What it writes</h3><p>{escape(said)} at step {last.step}, of {last.n} answers.</p></div>'
        f"{curve(lines, words) if len(run.written) > 1 else ''}{table(columns, rows, 'The same prompts answered over the run')}"
    )


def more_curves(run: "RunView") -> str:
    if len(run.rates) < 2:
        return ""
    drawn = curve([("learning rate", run.rates)], "Learning rate over the run") + curve([("gradient norm", run.norms)], "Gradient norm")
    return f'<details><summary>Learning rate and gradients</summary><div class="tb-cards">{drawn}</div></details>'


def settings_html(run: "RunView") -> str:
    """The spec as the command line takes it, and what was resolved with its reasons."""
    reasons = run.facts.get("reasons") or {}
    told = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in reasons.items())
    spec = json.dumps(run.spec.to_dict(), indent=1, ensure_ascii=False)
    return (
        f'<details><summary>Settings</summary><ul class="tb-rule tb-small">{told}</ul>'
        f'<pre class="tb-plain tb-small tb-code" dir="ltr">{escape(spec)}</pre></details>'
    )


def runs_html(runs: "list[RunView]") -> str:
    if not runs:
        return ""
    rows = [
        [escape(run.id), f'<span dir="auto">{escape(run.name)}</span>', badge(run.status, TONES.get(run.status, "plain")),
         f"{run.step} of {run.steps}" if run.steps else "—", escape(run.adapter or "—"), escape(when(run.created_at))]
        for run in runs
    ]  # fmt: skip
    return table(["Run", "Name", "State", "Steps", "Adapter", "Started"], rows, "All runs, newest first")
