"""Pairs that reviewers judged differently, one at a time and blind: a lead reads both answers and what was said, and decides.

The reviewers' votes stay as they are. Must not know arms, nor which of them stands first.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.evidence import flow
from review.screens.lab.room import TOLD
from review.screens.parts import QUICK, actions, acts, badge, block, empty_state, escape, heading, note

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.study_views import Disagreement, DisputedVote

CHOICES = (("first", "1 · First is better"), ("second", "2 · Second is better"), ("tie", "3 · Both good"), ("both_bad", "4 · Both bad"))
SAID = {"first": "first is better", "second": "second is better", "tie": "both good", "both_bad": "both bad"}
WHY = ("I read both answers again.", "One answer has a wrong fact.", "One answer leaves out what was asked.", "Both do what was asked.",
       "It is a matter of taste.")  # fmt: skip
NOBODY = empty_state("Reviewers differ on no pair of this study.", "Pairs come here once two reviewers judge the same one differently.")


def pair_html(one: "Disagreement", at: int, of: int, left: int) -> str:
    """The prompt, both answers by the same line of code, and the reviewers' votes beneath."""
    panes = "".join(
        f'<section class="tb-pane tb-card" aria-labelledby="dispute-answer-{side}"><h3 id="dispute-answer-{side}">{title}</h3>'
        f'<pre class="tb-plain tb-dispute" dir="auto" tabindex="0" aria-labelledby="dispute-answer-{side}">{escape(text)}</pre></section>'
        for side, title, text in (("first", "1 · First answer", one.first), ("second", "2 · Second answer", one.second))
    )
    done = f" {badge('decided: ' + SAID.get(one.decided, one.decided), 'good')}" if one.decided else ""
    why = f'<p class="tb-muted tb-small">Because: <span dir="auto">{escape(one.reason)}</span></p>' if one.decided and one.reason else ""
    status = f"{left} to decide" if left else "all are decided"
    return flow(
        f'<p class="tb-muted tb-num" role="status">Pair {at + 1} of {of} · {status}{done}</p>',
        why,
        f'<section class="tb-prompt tb-card" aria-labelledby="dispute-asked"><h3 id="dispute-asked">The customer asks</h3>'
        f'<pre class="tb-plain" dir="auto" tabindex="0" aria-labelledby="dispute-asked">{escape(one.prompt)}</pre></section>',
        f'<div class="tb-panes">{panes}</div>',
        f'<ul class="tb-said">{"".join(map(_vote, one.votes))}</ul>',
    )


def _vote(vote: "DisputedVote") -> str:
    reasons = "".join(f" {badge(reason)}" for reason in vote.reasons)
    comment = f' <q dir="auto">{escape(vote.comment)}</q>' if vote.comment else ""
    return f"<li>Reviewer {vote.number}: <b>{escape(SAID.get(vote.choice, vote.choice))}</b>{reasons}{comment}</li>"


def build(house: "House", chosen: gr.Dropdown) -> tuple[list[Any], Any]:
    """The tab's moving parts, and `draw(study)` that gives their values."""
    heading(
        "Where reviewers differ",
        "Decide without knowing whose answer is whose. Nobody's vote is changed; your decision stands beside them.",
    )
    shown = block(elem_id="dispute-pair", min_height=260)
    with actions():
        votes = [gr.Button(words, interactive=False, elem_id=f"dispute-{name.replace('_', '-')}", elem_classes=[f"tb-press-{at}"])
                 for at, (name, words) in enumerate(CHOICES, start=1)]  # fmt: skip
    with actions():
        reason = gr.Dropdown(list(WHY), value=WHY[0], allow_custom_value=True, label="Why (choose, or write it)", elem_id="dispute-reason")
        back = gr.Button("← Earlier (P)", elem_id="dispute-back", elem_classes=["tb-press-p"])
        forward = gr.Button("Later → (N)", elem_id="dispute-forward", elem_classes=["tb-press-n"])
    place = gr.Textbox("", label="place", visible="hidden")
    outputs = [shown, *votes, back, forward, place]

    def draw(study: str | None, at: str = "", step: int = 0) -> list[Any]:
        found = house.studies.disagreements(study) if study else ()
        if not found:
            off = gr.Button(interactive=False)
            return [NOBODY, *(off for _ in votes), off, off, ""]
        ids = [one.id for one in found]
        undecided = next((i for i, one in enumerate(found) if not one.decided), 0)
        here = ids.index(at) + step if at in ids else undecided
        here = max(0, min(here, len(found) - 1))
        one = found[here]
        lit = [gr.Button(interactive=True, variant="primary" if one.decided == name else "secondary") for name, _ in CHOICES]
        ends = [gr.Button(interactive=here > 0), gr.Button(interactive=here < len(found) - 1)]
        left = sum(not each.decided for each in found)
        return [pair_html(one, here, len(found), left), *lit, *ends, one.id]

    def steps(by: int) -> Any:
        @acts(house, "engineer", "admin")
        def look_at(person: "UserView", study: str | None, at: str) -> list[Any]:
            return draw(study, at, by)

        return look_at

    def decides(name: str) -> Any:
        @acts(house, "engineer", "admin")
        def adjudicate(person: "UserView", study: str | None, at: str, why: str) -> list[Any]:
            found = house.studies.disagreements(study) if study else ()
            one = next((each for each in found if each.id == at), None)
            if one is None or study is None:
                raise BadInput("There is no pair to decide here any more. Open the tab again.")
            onward = found[min(found.index(one) + 1, len(found) - 1)].id
            house.studies.adjudicate(study, one.prompt_id, one.first_answer, one.second_answer, name, (why or "").strip(), by=person.id)
            note(f"Decided: {SAID[name]}.")
            return draw(study, onward)

        return adjudicate

    for button, by in ((back, -1), (forward, 1)):
        button.click(steps(by), [chosen, place], outputs, **QUICK)
    for (name, _), button in zip(CHOICES, votes, strict=True):
        button.click(decides(name), [chosen, place, reason], outputs, **TOLD)
    return outputs, draw
