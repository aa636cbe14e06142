"""The Answers tab: let arms answer a prompt set in the background, watch, pause, cancel, score. Must not know engines or metrics."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import SPLITS, Room, choices
from review.screens.parts import SLOW, actions, acts, badge, block, empty_state, escape, heading, note, progress_bar, table, when

if TYPE_CHECKING:
    from review.services.answers import JobView
    from review.services.house import House
    from review.services.people import UserView

TONES = {"queued": "plain", "running": "warn", "paused": "warn", "finished": "good", "failed": "bad", "cancelled": "plain"}
SHOWN = 20
OPEN = ("queued", "running", "paused")


def jobs_html(jobs: "list[JobView]") -> str:
    if not jobs:
        return empty_state("Nothing has been answered or scored yet.", "Choose a set and arms above, then start.")
    rows = [
        [
            escape(job.title),
            badge(job.status, TONES.get(job.status, "plain")),
            progress_bar(job.done, job.total, f"{job.done} of {job.total}", label=job.title),
            escape(job.message) or "—",
            escape(when(job.created_at)),
        ]
        for job in jobs[:SHOWN]
    ]
    return table(["Work", "State", "Progress", "Remark", "Asked"], rows, "Work in the background, newest first")


def newest_first(house: "House") -> "list[JobView]":
    return sorted(house.answers.jobs(), key=lambda job: job.id, reverse=True)


def build(house: "House") -> Room:
    heading("Answers", "Arms answer ahead of time, so that reviewers never wait. What is stored already is not asked again.")
    with gr.Row():
        set_name = gr.Dropdown([], label="Prompt set", elem_id="answer-set")
        split = gr.Dropdown(list(SPLITS), value="test", label="Prompts", elem_id="answer-split")
    arms = gr.CheckboxGroup([], label="Arms", elem_id="answer-arms")
    with actions():
        start = gr.Button("Start answering", variant="primary", elem_id="answer-start")
        score = gr.Button("Score against the human answers", elem_id="answer-score")
    heading("Work in the background", "It goes on when you leave this page.")
    listing = block(elem_id="answer-jobs", min_height=160)
    with actions():
        job = gr.Dropdown([], label="Running, waiting or paused", elem_id="answer-job", scale=3)
        pause = gr.Button("Pause", elem_id="answer-pause")
        resume = gr.Button("Go on", elem_id="answer-resume")
        cancel = gr.Button("Cancel", variant="stop", elem_id="answer-cancel")

    def work(picked: int | None = None) -> list[Any]:
        jobs = newest_first(house)
        going = [(one.title, one.id) for one in jobs if one.status in OPEN]
        value = picked if any(picked == number for _, number in going) else (going[0][1] if going else None)
        return [jobs_html(jobs), gr.Dropdown(choices=going, value=value)]

    def show(person: "UserView") -> list[Any]:
        house.answers.ensure_arms()
        known = [(arm.name if arm.usable else f"{arm.name} (no more answers)", arm.name) for arm in house.answers.arms()]
        usual = [name for name in (house.answers.base_arm(), house.adapters.in_use()) if name]
        sets = [one.name for one in reversed(house.library.sets())]
        return [choices(sets), gr.CheckboxGroup(choices=known, value=usual), *work()]

    def starts(begin: Any, said: str) -> Any:
        @acts(house, "engineer", "admin")
        def start_work(person: "UserView", name: str | None, part: str, chosen: list[str]) -> list[Any]:
            if not name or not chosen:
                raise BadInput("A prompt set and at least one arm are needed. Choose them first.")
            begin(name, part, chosen, person.id)
            note(said)
            return work()

        return start_work

    def changes(act: Any, said: str) -> Any:
        @acts(house, "engineer", "admin")
        def change_work(person: "UserView", picked: int | None) -> list[Any]:
            if picked is None:
                raise BadInput("No work is chosen. Choose some from the list first.")
            act(picked, person.id)
            note(said)
            return work(picked)

        return change_work

    asked, places = [set_name, split, arms], [listing, job]
    start.click(starts(house.answers.start, "The arms start answering within seconds."), asked, places, **SLOW)
    score.click(starts(house.boards.start_score, "Scoring starts within seconds."), asked, places, **SLOW)
    for button, act, said in (
        (pause, house.answers.pause, "It stops within a second. What is answered stays."),
        (resume, house.answers.resume, "It goes on within seconds, with what is missing."),
        (cancel, house.answers.cancel, "It stops after the batch it is at. What is answered stays."),
    ):
        button.click(changes(act, said), [job], places, **SLOW)

    def live(person: "UserView", picked: int | None) -> list[Any]:
        listed, going = work(picked)
        still = any(one.id == picked and one.status in OPEN for one in house.answers.jobs())
        return [listed, gr.skip() if still else going]

    return Room([set_name, arms, *places], show, places, live, [job])
