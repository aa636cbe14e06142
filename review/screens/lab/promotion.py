"""The In use tab: what speaks for and against an adapter, the click that puts it in use, and the one that takes it back.

Must not know engines, runs or storage.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput, NotFound
from review.screens.evidence import HEADLINES, TONES, flow
from review.screens.lab.exporting import export_part
from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, count, empty_state, escape, heading, note, table, when

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.keeping import Regression, WhatGotWorse
    from review.services.people import UserView
    from review.services.promotions import Case, PromotionView, ScoreLine

SHOWN = 30
LONGEST = 4_000


def used_html(used: str, history: "list[PromotionView]") -> str:
    last = history[0] if history else None
    since = f" since {escape(when(last.at))}, by {escape(last.by)}" if last and last.adapter == used else ""
    why = f' <span class="tb-muted">“{escape(last.reason)}”</span>' if since and last and last.reason else ""
    what = "the base model alone" if used == "base" else used
    return f'<p>In use: <b dir="auto">{escape(what)}</b>{since}.{why}</p>'


def case_html(case: "Case | None") -> str:
    if case is None:
        return empty_state("No adapter to judge yet.", "Train one under Retrain, or add one under Adapters.")
    return flow(_headline(case), _studies(case), _scores(case), worse_html(case.got_worse), _integrity(case))


def _headline(case: "Case") -> str:
    if case.forbidden:
        return f'<section class="tb-card"><h2>{badge("Not possible", "bad")}</h2><p>{escape(case.forbidden)}</p></section>'
    now = case.adapter.name == case.used
    if not case.against:
        words = f"<p>Reviewers prefer it to {escape(case.got_worse.old)}, nothing got worse, and it is what it says it is.</p>"
        mark = badge("In use" if now else "Nothing speaks against it", "good")
    else:
        words = '<ul class="tb-rule">' + "".join(f"<li>{escape(line)}</li>" for line in case.against) + "</ul>"
        mark = badge(f"{count(len(case.against), 'point')} to look at first", "warn")
    title = f'<b dir="auto">{escape(case.adapter.name)}</b> in place of <b dir="auto">{escape(case.got_worse.old)}</b>'
    return f'<section class="tb-card"><h2>{mark} {title}</h2>{words}</section>'


def _studies(case: "Case") -> str:
    title = '<h3 class="tb-h2">What reviewers say</h3>'
    if not case.studies:
        return title + empty_state("No study compares the two yet.", "A draft waits under Studies once it is scored.")
    rows = [
        [
            f'<span dir="auto">{escape(line.study)}</span>',
            escape(line.state),
            str(line.votes),
            badge(HEADLINES.get(line.verdict.kind, line.verdict.kind), TONES.get(line.verdict.kind, "plain")),
            escape(line.verdict.words),
        ]
        for line in case.studies
    ]
    return title + table(["Study", "State", "Votes", "Verdict", "In words"], rows, "Studies that compare the two", numeric=(2,))


def _scores(case: "Case") -> str:
    title = '<h3 class="tb-h2">Automatic scores</h3>'
    rows = [row for line in case.scores for row in _score_rows(line)]
    if not rows:
        return title + empty_state("Not scored on a test set yet.", "Answer and score it under Answers.")
    hint = "Difference on the same test prompts, with its 95 % range. They count shared words: a hint, no proof."
    words = f'<p class="tb-muted tb-small">{hint}</p>'
    used = any(line.versus_used for line in case.scores)
    headings = ["Test set", "Measure", "Against the base", *(["Against what is in use"] if used else [])]
    return title + words + table(headings, [row[: len(headings)] for row in rows], "Differences in scores")


def _score_rows(line: "ScoreLine") -> list[list[str]]:
    def told(found: Any) -> str:
        if found is None:
            return "—"
        tone = "good" if found.low > 0 else "bad" if found.high < 0 else "plain"
        return f'<span class="tb-{tone}-ink">{found.value:+.3g}</span> ({found.low:+.3g} to {found.high:+.3g})'

    names = list(dict.fromkeys([*line.versus_base, *line.versus_used]))
    return [
        [
            f'<span dir="auto">{escape(line.set_name)}</span>',
            escape(name),
            told(line.versus_base.get(name)),
            told(line.versus_used.get(name)),
        ]
        for name in names
    ]


def worse_html(found: "WhatGotWorse") -> str:
    """Regressions first, by group, old and new side by side."""
    title = '<h3 class="tb-h2">What got worse</h3>'
    if not found.compared:
        words = (
            "It is asked general questions and the keep-list once it is scored." if not found.total else "The questions are being answered."
        )
        return title + empty_state("Not looked at yet.", words)
    missing = "" if found.complete else f" {count(found.total - found.compared, 'prompt')} wait for an answer."
    told = f"{len(found.worse)} of {found.compared} answers got worse, {found.better} got better, beside {found.old}.{missing}"
    groups = [
        [escape(g.name), f"{g.old_good} of {g.total}", f"{g.new_good} of {g.total}", str(g.worse) if g.worse else "—"] for g in found.groups
    ]
    drawn = table(["Subject", f"Good with {found.old}", f"Good with {found.new}", "Got worse"], groups, "By subject", (1, 2, 3))
    return title + f"<p>{escape(told)}</p>" + drawn + "".join(_regression(each, found) for each in found.worse[:SHOWN])


def _regression(each: "Regression", found: "WhatGotWorse") -> str:
    def pane(name: str, text: str) -> str:
        cut = text if len(text) <= LONGEST else text[:LONGEST] + " …"
        return f'<section class="tb-pane tb-card"><h3>{escape(name)}</h3><pre class="tb-plain" dir="auto">{escape(cut)}</pre></section>'

    kept = pane("The good answer that was kept", each.kept) if each.kept and each.kept != each.old else ""
    first = " ".join(each.prompt.split())
    return (
        f'<details class="tb-more"><summary><span dir="auto">{escape(each.group)}: {escape(first[:100])}</span></summary>'
        f'<p class="tb-muted">{escape(each.why)}</p><pre class="tb-plain tb-card" dir="auto">{escape(each.prompt[:LONGEST])}</pre>'
        f'<div class="tb-panes">{pane(found.old, each.old)}{pane(found.new, each.new)}</div>{kept}</details>'
    )


def _integrity(case: "Case") -> str:
    looked = badge("good", "good") if case.integrity.at else badge("not looked at yet")
    mark = looked if case.integrity.ok else badge("bad", "bad")
    at = f", {escape(when(case.integrity.at))}" if case.integrity.at else ""
    return f'<h3 class="tb-h2">Integrity</h3><p>{mark} {escape(case.integrity.words.rstrip("."))}{at}.</p>'


def history_html(history: "list[PromotionView]") -> str:
    if not history:
        return empty_state("Nothing was put in use yet.", "The base model answers alone until then.")
    rows = [
        [
            escape(when(one.at)),
            f'<b dir="auto">{escape(one.adapter)}</b>',
            escape(one.by),
            f'<span dir="auto">{escape(one.reason) or "—"}</span>',
        ]
        for one in history
    ]
    return table(["When", "In use from then on", "By", "Why"], rows, "What was in use, newest first")


def build(house: "House") -> Room:
    heading(
        "In use", "The adapter in use comes first in chat and in new studies. It changes by a person's click, never because a run ended."
    )
    used = block(elem_id="promotion-used", min_height=24)
    chosen = gr.Dropdown([], label="Adapter to look at", elem_id="promotion-chosen")
    case = block(elem_id="promotion-case", min_height=120)
    drawn = gr.Textbox(label="drawn", visible="hidden")
    with actions():
        ask = gr.Button("Look for what got worse", elem_id="promotion-ask")
    reason = gr.Textbox(label="Why (optional, kept with the decision)", max_length=2000, elem_id="promotion-reason")
    with actions():
        put = gr.Button("Put it in use", variant="primary", elem_id="promotion-put")
        back = gr.Button("Back to what was in use before", elem_id="promotion-back")
        base = gr.Button("Use the base alone", elem_id="promotion-base")
    heading("History")
    history = block(elem_id="promotion-history", min_height=24)
    rule = _rule(house)
    exporting = export_part(house)
    places = [used, chosen, case, drawn, reason, put, back, base, history]

    def state(picked: str | None) -> list[Any]:
        names = [one.name for one in reversed(house.adapters.adapters())]
        now_used, told, before = house.adapters.in_use() or "base", house.promotions.history(), house.promotions.previous()
        now = picked if picked in names else next((name for name in names if name != now_used), names[0] if names else None)
        mark = house.promotions.looked_at(now) if now else ""
        found = house.promotions.case(now) if now else None
        may = found is not None and found.adapter.name != now_used and not found.forbidden
        return [
            used_html(now_used, told),
            choices(names, now),
            case_html(found),
            mark,
            "",
            gr.Button(f"Put {now} in use" if now else "Put it in use", interactive=may),
            gr.Button(
                f"Back to {'the base alone' if before == 'base' else before}" if before else "Nothing to go back to",
                interactive=before is not None,
            ),
            gr.Button(interactive=now_used != "base", visible=before != "base"),
            history_html(told),
        ]

    _decide(house, (put, back, base), chosen, reason, places, state)

    @acts(house, "engineer", "admin")
    def look(person: "UserView", picked: str | None) -> list[Any]:
        return state(picked)

    @acts(house, "engineer", "admin")
    def look_for_worse(person: "UserView", picked: str | None) -> list[Any]:
        if not picked:
            raise BadInput("No adapter is chosen. Choose one from the list first.")
        queued = house.promotions.ask(picked, person.id)
        note("The questions are being answered; what got worse appears here." if queued else "Every question is answered already.")
        return state(picked)

    chosen.input(look, [chosen], places, **QUICK)
    ask.click(look_for_worse, [chosen], places, **SLOW)
    outputs = [*places, *rule.outputs, *exporting.outputs]

    def show(person: "UserView") -> list[Any]:
        return [*state(None), *rule.show(person), *exporting.show(person)]

    def live(person: "UserView", picked: str | None, seen: str) -> list[Any]:
        """Draws the case anew when another answer came, and not while somebody reads it."""
        try:
            mark = house.promotions.looked_at(picked) if picked else ""
        except NotFound:  # it has no arm yet, as the page says
            mark = seen
        news = [gr.skip(), gr.skip()] if mark == seen else [case_html(house.promotions.case(picked) if picked else None), mark]
        return [*news, *(exporting.live(person) if exporting.live else ())]

    return Room(outputs, show, [case, drawn, *exporting.moving], live, [chosen, drawn])


def _decide(
    house: "House", buttons: tuple[gr.Button, gr.Button, gr.Button], chosen: Any, reason: Any, places: list[Any], state: Any
) -> None:
    put, back, base = buttons

    @acts(house, "engineer", "admin")
    def put_in_use(person: "UserView", picked: str | None, why: str | None) -> list[Any]:
        if not picked:
            raise BadInput("No adapter is chosen. Choose one from the list first.")
        house.promotions.promote(picked, person.id, why or "")
        note(f"{picked} is in use now.")
        return state(picked)  # type: ignore[no-any-return]

    @acts(house, "engineer", "admin")
    def take_back(person: "UserView", picked: str | None, why: str | None) -> list[Any]:
        now = house.promotions.roll_back(person.id, why or "").adapter
        note("The base alone is in use again." if now == "base" else f"{now} is in use again.")
        return state(picked)  # type: ignore[no-any-return]

    @acts(house, "engineer", "admin")
    def use_base_alone(person: "UserView", picked: str | None, why: str | None) -> list[Any]:
        house.promotions.demote(person.id, why or "")
        note("The base alone is in use now.")
        return state(picked)  # type: ignore[no-any-return]

    for button, do in ((put, put_in_use), (back, take_back), (base, use_base_alone)):
        button.click(do, [chosen, reason], places, **SLOW)


def _rule(house: "House") -> Room:
    """A rule that stands in for the click, off until somebody declares it."""
    with gr.Accordion("A rule instead of the click", open=False):
        automatic = gr.Checkbox(
            label="Put an adapter in use by itself",
            info="When a closed study against what is in use says Ship, its integrity is good, and not too much got worse.",
            elem_id="promotion-automatic",
        )
        most = gr.Number(0, label="At most this many answers got worse", minimum=0, maximum=1000, precision=0, elem_id="promotion-most")
        save = gr.Button("Declare the rule", elem_id="promotion-declare")

    def shown() -> list[Any]:
        rule = house.promotions.rule()
        return [rule.automatic, rule.max_worse]

    @acts(house, "engineer", "admin")
    def declare_rule(person: "UserView", by_itself: bool, worse: float | None) -> list[Any]:
        from review.services.promotions import PromotionRule

        house.promotions.declare(PromotionRule(bool(by_itself), -1 if worse is None else int(worse)), person.id)
        note("The rule is declared." if by_itself else "Only a click puts an adapter in use.")
        return shown()

    save.click(declare_rule, [automatic, most], [automatic, most], **QUICK)
    return Room([automatic, most], lambda person: shown())
