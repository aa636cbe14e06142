"""The form that declares a study: every setting with one sentence of help, how much work it would be, all mistakes at once.

Must not know storage, or how a study is stored.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab.room import SPLITS, choices
from review.screens.parts import actions, block, count, escape, heading
from review.services.study_plans import Plan, Wish, free_name, possible_reviewers

if TYPE_CHECKING:
    from review.services.answers import ArmView
    from review.services.house import House
    from review.services.study_views import StudyView

KINDS = {"base": "the model as it came", "adapter": "tuned model", "human": "the human agent's own reply",
         "imported": "came in from elsewhere", "remote": "a model elsewhere"}  # fmt: skip
SCALES = [("Left, right or same", "sides"), ("1 to 5 points for each answer", "points")]
REVEALS = [("After the study is closed", "after_close"), ("After each vote", "after_vote")]
EVIDENCE = [("Usual: wrong at most once in 20 equal arms", 20.0), ("Strict: once in 100", 100.0), ("Light: once in 10", 10.0)]
CHECKS = (
    "About one pair in ten is a repeat with sides swapped, or one with a plainly better answer; now and then reviewers are asked which "
    "answer they take for the tuned model's. None of it counts as a vote, and reviewers cannot tell it apart."
)
BEST_FIRST = "the base, or the first ticked"


@dataclass(frozen=True)
class Form:
    """The components, in the order in which a handler gets their values."""

    name: gr.Textbox
    set_name: gr.Dropdown
    split: gr.Dropdown
    tags: gr.Dropdown
    arms: gr.CheckboxGroup
    against: gr.Dropdown
    reviewers: gr.Dropdown
    per_pair: gr.Number
    criteria: gr.Textbox
    scale: gr.Radio
    reasons: gr.Textbox
    checks: gr.Checkbox
    reveal: gr.Radio
    win: gr.Number
    bad: gr.Number
    votes: gr.Number
    people: gr.Number
    no_worse_tag: gr.Checkbox
    evidence: gr.Dropdown

    @property
    def all(self) -> list[Any]:
        return [getattr(self, name) for name in self.__dataclass_fields__]


def lay_out() -> Form:
    """The form, inside the Blocks."""
    heading("1 · What is compared", "Test prompts decide what ships. Only votes on train and validation prompts can become training data.")
    with gr.Row():
        name = gr.Textbox(label="Name of the study", max_length=100, min_width=260, elem_id="study-name")
        set_name = gr.Dropdown([], label="Prompt set", elem_id="study-set")
        split = gr.Dropdown(list(SPLITS), value="test", label="Split", elem_id="study-split")
        tags = gr.Dropdown([], multiselect=True, label="Only with a tag", elem_id="study-tags", info="None chosen: all prompts.")
    arms = gr.CheckboxGroup([], label="Compare the answers of", elem_id="study-arms",
                            info="Two, or more: then each is compared with each, the unclear ones most. All need stored answers.",
                            )  # fmt: skip
    against = gr.Dropdown([], label="The one to beat", elem_id="study-against", info="The verdict says whether another may replace it.")
    heading("2 · Who judges, and what they are asked")
    with gr.Row():
        reviewers = gr.Dropdown([], multiselect=True, label="Reviewers", elem_id="study-reviewers", scale=2,
                                info="Nobody chosen: every reviewer may judge.")  # fmt: skip
        per_pair = gr.Number(1, label="Reviewers for each pair", precision=0, elem_id="study-per-pair",
                             info="Two or more show how far people agree.")  # fmt: skip
    with gr.Row():
        criteria = gr.Textbox(label="Criteria, one a line", lines=4, max_lines=10, min_width=280, elem_id="study-criteria",
                              info="Judged beside the vote, if the reviewer likes. Empty: none.")  # fmt: skip
        reasons = gr.Textbox(label="Reasons to tap, one a line", lines=4, max_lines=12, min_width=280, elem_id="study-reasons",
                             info="Offered for each side: why an answer is worse. Empty: none.")  # fmt: skip
    with gr.Row():
        scale = gr.Radio(SCALES, value="sides", label="How a criterion is judged", min_width=280, elem_id="study-scale")
        reveal = gr.Radio(REVEALS, value="after_close", label="Reviewers learn who was who", min_width=280, elem_id="study-reveal",
                          info="After each vote is for demos: it teaches reviewers the models' habits.")  # fmt: skip
    checks = gr.Checkbox(True, label="Check the reviewing too", elem_id="study-checks", info=CHECKS)
    rule = _rule()
    return Form(name, set_name, split, tags, arms, against, reviewers, per_pair, criteria, scale, reasons, checks, reveal, *rule)


def _rule() -> list[Any]:
    heading("3 · What decides", "Fixed before the first vote, so that nobody can move the goal afterwards. The usual settings suit most.")
    with gr.Row():
        win = gr.Number(55, label="Ship from a win rate of, %", elem_id="study-win",
                        info="50 is a draw: ask for a little more.")  # fmt: skip
        bad = gr.Number(30, label="Hold above both bad, %", elem_id="study-bad",
                        info="Better than bad is not yet good.")  # fmt: skip
        votes = gr.Number(0, label="Votes at least", precision=0, elem_id="study-votes",
                          info="0: 20, or all where it collects fewer.")  # fmt: skip
        people = gr.Number(1, label="Reviewers at least", precision=0, elem_id="study-people",
                           info="Two or more, so that it is no one's taste.")  # fmt: skip
    with gr.Row():
        no_worse = gr.Checkbox(True, label="Hold where it is clearly worse on any tag", min_width=280, elem_id="study-no-worse",
                               info="A good average must not hide a subject on which customers are served worse.")  # fmt: skip
        evidence = gr.Dropdown(EVIDENCE, value=20.0, label="How sure to be", min_width=280, elem_id="study-evidence", filterable=False,
                               info="Holds however often people look at the result meanwhile.")  # fmt: skip
    return [win, bad, votes, people, no_worse, evidence]


def wish_of(values: tuple[Any, ...]) -> Wish:
    """The values of `Form.all` as a wish. Emptied numbers become 0, which the plan then names as wrong."""
    given = dict(zip(Form.__dataclass_fields__, values, strict=True))
    rule: dict[str, Any] = {
        "min_win_rate": (given["win"] or 0) / 100,
        "max_both_bad": (given["bad"] if given["bad"] is not None else -1) / 100,
        "min_reviewers": int(given["people"] or 0),
        "no_worse_tag": bool(given["no_worse_tag"]),
        "e_value": float(given["evidence"] or 20.0),
    }
    if given["votes"]:
        rule["min_votes"] = int(given["votes"])
    return Wish(
        name=(given["name"] or "").strip(), set_name=given["set_name"] or "", split=given["split"] or "test",
        tags=tuple(given["tags"] or ()), arms=tuple(given["arms"] or ()), against=given["against"] or "",
        reviewers=tuple(given["reviewers"] or ()), votes_per_pair=int(given["per_pair"] or 0),
        criteria=lines(given["criteria"]), scale=given["scale"] or "sides", reasons=lines(given["reasons"]),
        checks=bool(given["checks"]), reveal=given["reveal"] or "after_close", rule=rule,
    )  # fmt: skip


def wish_like(study: "StudyView") -> Wish:
    """What a study declared, to begin a new one from."""
    return Wish(
        study.name, study.set_name, study.split, study.tags, study.arms, study.against, study.reviewers, study.votes_per_pair,
        study.criteria, study.scale, study.reasons, study.checks, study.reveal, study.rule.to_dict(),
    )  # fmt: skip


def filled(house: "House", wish: Wish, tags: dict[str, int]) -> list[Any]:
    """A value for each of `Form.all`, with the choices there are now."""
    arms = house.answers.arms()
    known = [arm.name for arm in arms]
    sets = [one.name for one in reversed(house.library.sets())]
    people = possible_reviewers(house.db)
    rule = wish.rule
    return [
        free_name(house.db, wish.name), choices(sets, wish.set_name), wish.split, tags_of(tags, wish.tags),
        gr.CheckboxGroup(choices=[(f"{arm.name} · {_kind(arm)}", arm.name) for arm in arms],
                         value=[arm for arm in wish.arms if arm in known]),
        gr.Dropdown(choices=[(BEST_FIRST, ""), *known], value=wish.against if wish.against in known else ""),
        gr.Dropdown(choices=people, multiselect=True,
                    value=[name for name in wish.reviewers if name in people]),
        wish.votes_per_pair, "\n".join(wish.criteria), wish.scale, "\n".join(wish.reasons), wish.checks, wish.reveal,
        round(rule.get("min_win_rate", 0.55) * 100, 2), round(rule.get("max_both_bad", 0.3) * 100, 2), rule.get("min_votes", 0),
        rule.get("min_reviewers", 1), rule.get("no_worse_tag", True), _nearest(rule.get("e_value", 20.0)),
    ]  # fmt: skip


def _kind(arm: "ArmView") -> str:
    """Which kind it is, or that it is of an earlier base."""
    return arm.title[:1].lower() + arm.title[1:] if arm.earlier else KINDS.get(arm.kind, arm.kind)


def _nearest(evidence: float) -> float:
    return min((value for _, value in EVIDENCE), key=lambda value: abs(value - evidence))


def tags_of(tags: dict[str, int], chosen: tuple[str, ...] = ()) -> gr.Dropdown:
    """The tags that the prompts have, each with how many have it."""
    found = [(f"{tag} ({count(number, 'prompt')})", tag) for tag, number in tags.items()]
    return gr.Dropdown(choices=found, value=[tag for tag in chosen if tag in tags], multiselect=True, interactive=bool(tags))


def lines(text: str | None) -> tuple[str, ...]:
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def plan_html(plan: Plan, wish: Wish) -> str:
    """How much work this would be, and everything that is still missing or wrong."""
    said = ""
    if plan.votes:
        arms = len(set(wish.arms))
        pairs = count(arms * (arms - 1) // 2, "pair")
        total = f"{count(plan.prompts, 'prompt')} × {pairs} × {count(wish.votes_per_pair, 'reviewer')} = <b>{count(plan.votes, 'vote')}</b>"
        more = f", and about {plan.checks} more that check the reviewing" if plan.checks else ""
        said = f"<p>This study: {total}{more}; {_time(plan.minutes)} of reviewing in total. {escape(plan.turns)}</p>"
        said += "<p class='tb-muted tb-small'>Pairs of equal answers are left out, so it may be less.</p>"
    if not plan.problems:
        return f'<div class="tb-card" role="status">{said}<p class="tb-good-ink">Nothing is missing: it can be declared.</p></div>'
    wrong = "".join(f"<li dir='auto'>{escape(one)}</li>" for one in plan.problems)
    return f'<div class="tb-card" role="status">{said}<p><b>Still missing</b></p><ul class="tb-rule">{wrong}</ul></div>'


def _time(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {round(minutes)} minute{'s' if round(minutes) != 1 else ''}"
    return f"about {minutes / 60:.0f} hours"


def foot() -> tuple[gr.HTML, gr.Button]:
    """The preview and the button that declares."""
    preview = block(elem_id="study-plan", min_height=90)
    with actions():
        create = gr.Button("Declare the study", variant="primary", elem_id="study-create")
    return preview, create
