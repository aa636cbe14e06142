"""What is known before a run starts, as HTML: what stands against it, the tokens with their loss mask, what it would take.

Pure HTML from what services found. Must not know services' doings, storage or torch.
"""

from typing import TYPE_CHECKING, Any

from review.screens.parts import escape, progress_bar, table
from review.services.run_views import for_seconds, megabytes

if TYPE_CHECKING:
    from review.services.estimates import Check
    from review.services.learning import TooClose
    from review.services.training import Checked

SHOWN = 8
SHARES = {"reading": 0.25, "measuring": 0.6}


def settings_html(found: "Checked") -> str:
    """Problems apart from warnings, and what is worth knowing."""
    said = listed("This stands against it", found.problems, "tb-bad-ink") + listed("Known to go wrong", found.warnings, "tb-warn-ink")
    said += listed("Worth knowing", found.notes, "")
    return said or "<p>Nothing stands against these settings.</p>"


def listed(title: str, words: tuple[str, ...], ink: str) -> str:
    if not words:
        return ""
    lines = "".join(f'<li class="{ink}">{escape(one)}</li>' for one in words)
    return f'<div class="tb-h2"><h3>{escape(title)}</h3></div><ul class="tb-rule">{lines}</ul>'


def excluded_html(excluded: "list[TooClose]") -> str:
    if not excluded:
        return ""
    rows = [
        [f'<div class="tb-cell tb-plain" dir="auto">{escape(text)}</div>' for text in (one.prompt, one.like)] for one in excluded[:SHOWN]
    ]
    more = f" The first {SHOWN} are shown." if len(excluded) > SHOWN else ""
    words = f"{len(excluded)} approved examples ask nearly the same as a test prompt: learning them would spoil the test.{more}"
    return (
        f'<div class="tb-h2"><h3>Left out</h3><p>{escape(words)}</p></div>'
        f"{table(['Example', 'Test prompt that it resembles'], rows, 'Examples too close to a test prompt')}"
    )


def check_html(check: "Check") -> str:
    raw, parts = check.raw, []
    if not check.over:
        parts.append(progress_bar(SHARES.get(check.state, 0.1), 1, check.message, label="Check"))
    elif check.message:
        parts.append(f'<p class="{"tb-bad-ink" if check.state != "done" else ""}">{escape(check.message)}</p>')
    parts += [estimate_html(check), listed("What to change", check.advice, "tb-bad-ink"), tokens_html(raw), batch_html(raw)]
    return f'<div class="tb-flow">{"".join(parts)}</div>'


def estimate_html(check: "Check") -> str:
    found, raw = check.raw.get("estimate"), check.raw
    if not found:
        return ""
    there, free = megabytes(raw.get("memory_there", 0)), megabytes(raw.get("disk_free", 0))
    verdict = "It fits." if check.fits else "It does not fit."
    took, memory, disk = for_seconds(found["seconds"]), megabytes(found["peak_memory"]), megabytes(found["disk_needed"])
    words = f"{took.capitalize()} for {found['steps']} steps, looks at validation included; at most {memory} of {there} memory; "
    words += f"about {disk} of disk, {free} are free."
    how = f"Measured by two real steps at the longest batch ({found['longest']} tokens a row): {found['step_seconds']:.2f} seconds a step."
    return f'<div class="tb-card"><p><b>{verdict}</b> {escape(words)}</p><p class="tb-small tb-muted">{escape(how)}</p></div>'


def tokens_html(raw: dict[str, Any]) -> str:
    if not raw.get("tokens"):
        return ""
    shown = ("rows", "total", "trained", "median", "p95", "longest")
    rows = [[escape(name), *(f"{found[key]:g}" for key in shown)] for name, found in raw["tokens"].items()]
    titles = ["Tokens", "Rows", "All", "With a loss", "Middle row", "95 of 100 below", "Longest"]
    said = table(titles, rows, "Tokens of the rows")
    if packed := raw.get("packed"):
        said += f"<p>Packing joins {packed['examples']} examples into {packed['rows']} rows.</p>"
    if raw.get("cut"):
        cut = [[f'<span dir="auto">{escape(one["question"])}</span>', escape(one["split"]), str(one["tokens"]), str(one["over"])]
               for one in raw["cut"][:SHOWN]]  # fmt: skip
        words = f"Rows longer than {raw['limit']} tokens, which are left out: {raw['cut_total']}. Raise the longest example to keep them."
        said += f'<p class="tb-warn-ink">{escape(words)}</p>{table(["Asked", "Split", "Tokens", "Over by"], cut, "Rows that are too long")}'
    return said


def batch_html(raw: dict[str, Any]) -> str:
    """The first batch, token by token. Few elements: one a token, no attributes."""
    if not raw.get("batch"):
        return ""
    rows = "".join(f'<p class="tb-mask" dir="ltr">{"".join(map(token_html, row))}</p>' for row in raw["batch"])
    words = "The run learns the marked tokens, and only those: the answer and its end. What is not marked is read, not learned."
    return f'<div class="tb-h2"><h3>The first batch</h3><p>{words}</p></div>{rows}'


def token_html(token: list[Any]) -> str:
    text, learned = token
    name = "b" if learned else "i"
    return f"<{name}>{escape(text)}</{name}>"
