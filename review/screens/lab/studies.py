"""The Studies tab: declare a blind comparison of two arms, open, pause and close it, see how far it is.

Must not know votes' contents or storage.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab.room import SPLITS, Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, count, empty_state, escape, heading, note, progress_bar, table

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.studies import StudyView

STATES = {"draft": "plain", "open": "good", "paused": "warn", "closed": "plain"}
NONE_YET = empty_state("No study yet.", "Create one from two arms below. Both need stored answers: see the Answers tab.")


def list_html(house: "House", studies: "list[StudyView]") -> str:
    if not studies:
        return NONE_YET
    rows = []
    for study in reversed(studies):
        told = house.studies.progress(study.name)
        rows.append([
            f'<b dir="auto">{escape(study.name)}</b>',
            badge(study.state, STATES[study.state]),
            escape(f"{study.set_name}, {study.split}"),
            f"{escape(', '.join(arm for arm in study.arms if arm != study.against))} against {escape(study.against)}",
            progress_bar(told.votes, told.needed, f"{told.votes} of {told.needed} votes", label=f"Votes in {study.name}"),
        ])  # fmt: skip
    return table(["Study", "State", "Prompts", "Arms", "Progress"], rows, "Studies, newest first")


def reviewers_html(house: "House", name: str | None) -> str:
    """Who has judged how much in one study, and what is doubtful about it."""
    if not name:
        return ""
    told = house.studies.progress(name)
    aside = f'<p class="tb-muted tb-small">{count(told.identical, "pair")} of equal texts will not be shown.</p>'
    if not told.reviewers:
        return f"<p class='tb-muted'>Nobody has judged a pair of this study yet.</p>{aside if told.identical else ''}"
    rows = [
        [f'<span dir="auto">{escape(r.name)}</span>', str(r.votes), f"{r.seconds:.0f} s", escape(" ".join(r.doubts)) or "—"]
        for r in told.reviewers
    ]
    body = table(["Reviewer", "Votes", "Usual time", "Look again because"], rows, f"Reviewers of {name}", numeric=(1, 2))
    return body + (aside if told.identical else "")


def build(house: "House") -> Room:
    heading("Studies", "A study shows reviewers two arms' answers without saying which is which. What it declares is fixed once it opens.")
    listing = block(elem_id="studies-list", min_height=120)
    with actions():
        chosen = gr.Dropdown([], label="Study", elem_id="study-chosen", scale=2)
        starting = gr.Button("Open for reviewers", elem_id="study-open", variant="primary")
        pausing = gr.Button("Pause", elem_id="study-pause")
        closing = gr.Button("Close for good", elem_id="study-close", variant="stop")
    who = block(elem_id="study-who")
    heading("Create a study", "Test prompts decide what ships. Only votes on train and validation prompts can become training data.")
    with gr.Group():
        with gr.Row():
            name = gr.Textbox(label="Name", max_length=100, elem_id="study-name")
            set_name = gr.Dropdown([], label="Prompt set", elem_id="study-set")
            split = gr.Dropdown(list(SPLITS), value="test", label="Split", elem_id="study-split")
        with gr.Row():
            new = gr.Dropdown([], label="Arm that may ship", elem_id="study-new")
            old = gr.Dropdown([], label="Arm to beat", elem_id="study-old")
            per_pair = gr.Number(1, label="Reviewers for each pair", minimum=1, maximum=20, precision=0, elem_id="study-per-pair")
        with gr.Accordion("The rule that decides (fixed before the first vote)", open=False), gr.Row():
            win = gr.Number(55, label="Ship from a win rate of, %", minimum=50, maximum=99, elem_id="study-win")
            bad = gr.Number(30, label="Hold above both bad, %", minimum=0, maximum=100, elem_id="study-bad")
            votes = gr.Number(None, label="Votes at least", minimum=1, precision=0, elem_id="study-votes",
                              info="Empty: 20, or all where the study can collect fewer.")  # fmt: skip
            people = gr.Number(1, label="Reviewers at least", minimum=1, precision=0, elem_id="study-people")
    with actions():
        create = gr.Button("Create the study", variant="primary", elem_id="study-create")

    outputs = [listing, chosen, who, name, set_name, new, old]

    def state(picked: str | None = None) -> list[Any]:
        found = house.studies.studies()
        names = [study.name for study in reversed(found)]
        picked = picked if picked in names else (names[0] if names else None)
        return [list_html(house, found), choices(names, picked), reviewers_html(house, picked)]

    def show(person: "UserView") -> list[Any]:
        known = house.answers.arms()
        arms = [arm.name for arm in known]
        sets = [one.name for one in house.library.sets()]
        best = house.adapters.in_use() or next((arm.name for arm in reversed(known) if arm.kind == "adapter"), None)
        taken = {study.name for study in house.studies.studies()}
        free = next(f"Study {n}" for n in range(1, len(taken) + 2) if f"Study {n}" not in taken)
        return [*state(), free, choices(sets), choices(arms, best), choices(arms, "base")]

    @acts(house, "engineer", "admin")
    def create_study(person: "UserView", *given: Any) -> list[Any]:
        title, prompts, part, first, second, number, win_rate, both_bad, at_least, reviewers = given
        rule = {"min_win_rate": win_rate / 100, "max_both_bad": both_bad / 100, "min_reviewers": int(reviewers)}
        if at_least:
            rule["min_votes"] = int(at_least)
        made = house.studies.create(title, prompts or "", [one for one in (first, second) if one], part, int(number), rule=rule,
                                    by=person.id, against=second)  # fmt: skip
        note(f"{made.name} is created. Open it when reviewers may start.")
        return state(made.name)

    def moves(verb: str) -> Any:
        @acts(house, "engineer", "admin")
        def move_study(person: "UserView", picked: str | None) -> list[Any]:
            if not picked:
                return state()
            moved = getattr(house.studies, verb)(picked, person.id)
            note(f"{moved.name} is {moved.state} now.")
            return state(picked)

        return move_study

    @acts(house, "engineer", "admin")
    def choose(person: "UserView", picked: str | None) -> str:
        return reviewers_html(house, picked)

    now = [listing, chosen, who]
    create.click(create_study, [name, set_name, split, new, old, per_pair, win, bad, votes, people], now, **SLOW)
    for verb, button in (("open", starting), ("pause", pausing), ("close", closing)):
        button.click(moves(verb), [chosen], now, **SLOW)
    chosen.input(choose, [chosen], [who], **QUICK)

    def live(person: "UserView", picked: str | None) -> list[Any]:
        return [list_html(house, house.studies.studies()), reviewers_html(house, picked)]

    return Room(outputs, show, [listing, who], live, [chosen])
