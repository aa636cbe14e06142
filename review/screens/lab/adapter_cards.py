"""What an adapter is, drawn: the list, the card of one, an upload's result, the memory they share. Must not know handlers or engines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from review.screens.parts import badge, empty_state, escape, progress_bar, table, when

if TYPE_CHECKING:
    from review.services.adapter_views import AdapterView, MemoryView

MEGABYTE = 1 << 20
CARD_WORDS = {"license": "Licence, by its card", "base_model": "Base, by its card", "datasets": "Trained on, by its card"}


def where_html(adapter: "AdapterView") -> str:
    """Where an adapter is now, and where it is going."""
    if adapter.status == "quarantined":
        return badge("set aside", "bad")
    if adapter.resident:
        return badge("in memory", "good") if adapter.wanted else badge("leaving memory", "warn")
    return badge("coming into memory", "warn") if adapter.wanted else badge("on disk")


def list_html(adapters: "Sequence[AdapterView]", using: str | None) -> str:
    if not adapters:
        return empty_state("No adapter yet.", "Train one under Retrain, or add one below.")
    rows = [
        [
            f'<b dir="auto">{escape(one.name)}</b><br><span class="tb-muted tb-small" dir="auto">{escape(one.title)}</span>',
            " ".join(
                [
                    where_html(one),
                    *([badge("pinned")] if one.pinned and one.status == "registered" else []),
                    *([badge("in use", "good")] if one.name == using else []),
                ]
            ),
            escape(f"{one.method}, rank {one.rank}"),
            f"{one.bytes / MEGABYTE:.1f} MB",
            escape(one.status_reason) or "—",
        ]
        for one in reversed(adapters)
    ]
    base = ["<b>base</b>", badge("always in memory") + ("" if using else " " + badge("in use", "good")), "the model as it came", "", "—"]
    return table(["Adapter", "State", "Kind", "Size", "Remark"], [*rows, base], "Adapters, newest first", numeric=(3,))


def memory_html(memory: "MemoryView") -> str:
    """How much of the room for adapters is taken."""
    pinned = f", {memory.pinned / MEGABYTE:.1f} MB pinned" if memory.pinned else ""
    words = f"{memory.taken / MEGABYTE:.1f} of {memory.budget / MEGABYTE:.0f} MB for adapters{pinned}. The least recently used leave first."
    return progress_bar(memory.taken, memory.budget, words, label="Memory for adapters")


def _facts(adapter: "AdapterView") -> list[tuple[str, str]]:
    about = adapter.about
    kinds = {"LoRA": "", "rsLoRA": " (scaled by the root of its rank)", "DoRA": " (direction and magnitude)"}
    parts = about.get("parts", [])
    trained = f"here, by run {adapter.run_id}" if adapter.run_id else "blended here" if parts else "elsewhere; its files do not say by whom"
    found = [
        ("Method", adapter.method + kinds.get(adapter.method, "")),
        ("Rank and alpha", f"{adapter.rank} and {adapter.alpha:g}"),
        ("Layers", f"{', '.join(adapter.targets)}" + (f" ({about['layers']} in all)" if about.get("layers") else "")),
        ("Size", f"{adapter.bytes / MEGABYTE:.1f} MB" + (f", {about['dtype']}" if about.get("dtype") else "")),
        ("Made for", about.get("base") or "a base that it does not name"),
        ("Trained", trained),
        ("Added", f"{when(adapter.created_at)} by {adapter.by or 'the command line'}"),
        *((f"Part: {part['name']}", f"{part['weight']:g} times") for part in parts),
        *((CARD_WORDS[key], value) for key, value in about.get("card", {}).items() if key in CARD_WORDS),
        ("Fingerprint", adapter.content_hash),
    ]
    return [(name, str(value)) for name, value in found]


def card_html(adapter: "AdapterView | None") -> str:
    """One adapter in full."""
    if adapter is None:
        return ""
    rows = [[escape(name), f'<span dir="auto">{escape(value)}</span>'] for name, value in _facts(adapter)]
    notes = "".join(f'<p class="tb-muted">{escape(note)}</p>' for note in adapter.about.get("notes", []))
    return table(["What", "It is"], rows, f"What {adapter.name} is") + notes


def accepted_html(adapter: "AdapterView") -> str:
    name = f'<b dir="auto">{escape(adapter.name)}</b>'
    return f'<div class="tb-card" role="status"><h3 class="tb-good-ink">Accepted: {name}</h3>{card_html(adapter)}</div>'


def refused_html(reasons: Sequence[str]) -> str:
    count = "one reason" if len(reasons) == 1 else f"{len(reasons)} reasons"
    listed = "".join(f'<li dir="auto">{escape(reason)}</li>' for reason in reasons)
    return f'<div class="tb-card" role="alert"><h3 class="tb-bad-ink">Not accepted, for {count}</h3><ul class="tb-rule">{listed}</ul></div>'
