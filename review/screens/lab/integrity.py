"""The Integrity tab: whether each arm is what it says, what was found, what was taken back; and each arm's passport.

Must not know engines or storage.
"""

import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, count, empty_state, escape, heading, note, table, when

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.integrity import ArmState, CheckView, IntegrityView
    from review.services.passports import Passport
    from review.services.people import UserView

PROOF = {"good": ("as it should be", "good"), "bad": ("not as it should be", "bad"), "unknown": ("not looked at yet", "plain")}
KINDS = {"base": "the base", "adapter": "alone", "pair": "in one batch with the base"}
SHOWN = 20


def arms_html(arms: "tuple[ArmState, ...]") -> str:
    def row(arm: "ArmState") -> list[str]:
        name = f'<b dir="auto">{escape(arm.name)}</b><br><code class="tb-muted tb-small">{escape(arm.fingerprint[:16])}</code>'
        return [name, badge(*PROOF[arm.proof]), escape(arm.where), escape(arm.words), escape(when(arm.at)) or "—"]

    return table(
        ["Arm and fingerprint", "Proof", "Where", "What was found", "Last look"], [row(arm) for arm in arms], "Arms and their proof"
    )


def checks_html(checks: "tuple[CheckView, ...]") -> str:
    if not checks:
        return empty_state("No look yet.", "The first comes when the model has loaded.")
    rows = [
        [
            escape(when(check.at)),
            f'<span dir="auto">{escape(check.adapter or "base")}</span>' + (f", {KINDS[check.kind]}" if check.adapter else ""),
            badge("good", "good") if check.ok else badge("bad", "bad"),
            escape(check.words),
            str(check.voided) if check.voided else "—",
        ]
        for check in checks[:SHOWN]
    ]
    return table(["When", "Of", "Found", "In words", "Answers taken back"], rows, "Looks, newest first", numeric=(4,))


def voided_html(view: "IntegrityView") -> str:
    if not view.voided:
        return '<p class="tb-muted">No answer was ever taken back.</p>'
    waiting = {(arm, name, split) for arm, name, split in view.waiting}
    rows = [
        [
            escape(when(gone.at)),
            f'<span dir="auto">{escape(gone.arm)}</span>',
            f'<span dir="auto">{escape(gone.set_name)}</span> ({escape(gone.split)})',
            str(gone.answers),
            escape(gone.reason),
            "waits for its adapter" if (gone.arm, gone.set_name, gone.split) in waiting else "asked again",
        ]
        for gone in view.voided
    ]
    return table(["When", "Arm", "Prompts", "Answers", "Why", "Now"], rows, "Answers taken back", numeric=(3,))


def passport_html(passport: "Passport | None") -> str:
    """Everything needed to answer the same again, as a table and as JSON to keep."""
    if passport is None:
        return ""
    rows = [("Kind", passport.kind), ("Settings", passport.settings_hash), ("System text", passport.system_prompt or "none")]
    rows += [("Decoding", ", ".join(f"{key} {value}" for key, value in passport.decode.items()) or "none")]
    rows += _told("Adapter", passport.adapter) + _told("Model loaded now", passport.model) + _told("Remote", passport.remote)
    for made in passport.answers:
        facts = {key: value for key, value in made.items() if key not in ("answers", "last")}
        rows += [
            (f"{count(made['answers'], 'stored answer')} by", ", ".join(f"{key} {_plain(value)}" for key, value in facts.items() if value))
        ]
    missing = "".join(f'<p class="tb-warn-ink">{escape(words)}</p>' for words in passport.missing)
    drawn = table(["What", "It is"], [[escape(a), f'<span dir="auto">{escape(b)}</span>'] for a, b in rows], f"Passport of {passport.arm}")
    return drawn + missing


def _told(title: str, facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"{title}: {key.replace('_', ' ')}", _plain(value)) for key, value in facts.items() if value not in ("", None, {}, [])]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return ", ".join(str(one) for one in value) if isinstance(value, list) else json.dumps(value) if isinstance(value, bool) else str(value)


def build(house: "House") -> Room:
    minutes = round(house.integrity.view().every / 60)
    heading(
        "Integrity",
        "Proof that each arm is what it says: that the base was never touched, that each adapter does something, and that in one batch "
        f"every row is computed by its own arm. Looked at when an adapter comes or goes, and every {minutes} minutes.",
    )
    arms = block(elem_id="integrity-arms", min_height=80)
    with actions():
        look = gr.Button("Look now", variant="primary", elem_id="integrity-look")
    heading("Looks", "An adapter that fails is set aside, and what it answered since the last good look is taken back.")
    checks = block(elem_id="integrity-checks", min_height=80)
    heading("Answers taken back", "Their pairs are void in studies; the arms answer these prompts again by themselves.")
    voided = block(elem_id="integrity-voided", min_height=24)
    heading("Passport", "Everything needed to give an arm's answers again: tiebreak answer --replay NUMBER does it.")
    arm = gr.Dropdown([], label="Arm", elem_id="passport-arm")
    passport = block(elem_id="passport", min_height=80)

    def drawn() -> list[Any]:
        view = house.integrity.view()
        return [arms_html(view.arms), checks_html(view.checks), voided_html(view)]

    def show(person: "UserView") -> list[Any]:
        names = [one.name for one in house.answers.arms()]
        first = house.adapters.in_use() or house.answers.base_arm()
        return [*drawn(), choices(names, first), passport_html(house.passports.passport(first)) if first in names else ""]

    @acts(house, "engineer", "admin")
    def look_now(person: "UserView") -> list[Any]:
        good = house.integrity.check()
        note("All is as it should be." if good else "Something is not as it should be: see the table.")
        return drawn()

    @acts(house, "engineer", "admin")
    def show_passport(person: "UserView", name: str | None) -> str:
        return passport_html(house.passports.passport(name)) if name else ""

    moving = [arms, checks, voided]
    look.click(look_now, None, moving, **SLOW)
    arm.input(show_passport, [arm], [passport], **QUICK)
    return Room([*moving, arm, passport], show, moving, lambda person: drawn())
