"""What the Studies tab shows of the studies there are: the list, one study's progress and result, which buttons make sense.

Must not know how it is laid out.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr

from review.screens.evidence import flow, human_html, tags_html, verdict_html
from review.screens.lab.studies_progress import progress_html
from review.screens.parts import badge, count, empty_state, escape, progress_bar, table
from review.screens.trust import trust_html

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.study_views import StudyProgress, StudyView

SECONDS, SHARE = 10.0, 20.0
NEWEST = 6  # studies shown before one asks for the earlier ones
STATES = {"draft": "plain", "open": "good", "paused": "warn", "closed": "plain"}
ALL_IN = (
    "<p class='tb-warn-ink'>It has all the votes it asked for, and they do not settle it. Copy it as a new study with more prompts, or "
    "more reviewers for each pair.</p>"
)
ASIDE = (
    "<p class='tb-warn-ink'>It has all the votes it asked for, but some are aside. Decide first whose votes count: see Progress, or ask an "
    "admin.</p>"
)
NONE_YET = empty_state("No study yet.", "Declare one under “New study”. All its arms need stored answers: see the Answers tab.")


def list_html(studies: "list[StudyView]", told: "dict[str, StudyProgress]") -> str:
    if not studies:
        return NONE_YET
    rows = [
        [
            f'<b dir="auto">{escape(study.name)}</b>',
            badge(study.state, STATES[study.state]),
            escape(f"{study.set_name}, {study.split}"),
            f"{escape(', '.join(arm for arm in study.arms if arm != study.against))} against {escape(study.against)}",
            progress_bar(told[study.name].votes, told[study.name].needed, f"{told[study.name].votes} of {told[study.name].needed} votes",
                         label=f"Votes in {study.name}"),
        ]
        for study in reversed(studies)
    ]  # fmt: skip
    head = ["Study", "State", "Prompts", "Arms", "Progress"]
    earlier = ""
    if len(rows) > NEWEST:
        folded = table(head, rows[NEWEST:], "Earlier studies")
        earlier = f'<details class="tb-more"><summary>{len(rows) - NEWEST} earlier</summary>{folded}</details>'
    return table(head, rows[:NEWEST], "Studies, newest first") + earlier


class Desk:
    """What the tab shows of the studies there are.

    How far a study is takes its votes to count, and pages ask every two seconds: it is counted anew at most every ten seconds, and so
    that counting takes a twentieth of the time at most. Whoever presses a button sees it as it is.
    """

    def __init__(self, house: "House", now: Callable[[], float] = time.monotonic) -> None:
        self.house, self._now = house, now
        self._told: dict[str, tuple[float, StudyProgress]] = {}  # until when it may be shown

    def told(self, name: str, fresh: bool = False) -> "StudyProgress":
        until, kept = self._told.get(name, (0.0, None))
        began = self._now()
        if kept is None or fresh or began >= until:
            kept = self.house.studies.progress(name)
            ended = self._now()
            self._told[name] = (ended + max(SECONDS, SHARE * (ended - began)), kept)
        return kept

    def listing(self) -> str:
        studies = self.house.studies.studies()
        return list_html(studies, {study.name: self.told(study.name) for study in studies})

    def names(self) -> list[str]:
        return [study.name for study in reversed(self.house.studies.studies())]

    def progress(self, name: str | None, fresh: bool = True) -> str:
        return progress_html(self.house.studies.study(name), self.told(name, fresh)) if name else ""

    def result(self, name: str | None) -> str:
        if not name:
            return NONE_YET
        found, told = self.house.studies.result(name), self.told(name)
        full = found.verdict.kind == "more" and 0 < told.needed <= told.votes
        hint = (ASIDE if found.undecided else ALL_IN) if full else ""
        return flow(verdict_html(found), hint, human_html(found), tags_html(found), trust_html(found))

    def buttons(self, name: str | None) -> list[gr.Button]:
        """Open or resume, pause, close, copy: what makes sense in the study's state."""
        state = self.house.studies.study(name).state if name else ""
        start = gr.Button("Resume" if state == "paused" else "Open", interactive=state in ("draft", "paused"))
        pause, close = gr.Button(interactive=state == "open"), gr.Button(interactive=state in ("open", "paused"))
        return [start, pause, close, gr.Button(interactive=bool(state))]

    def closing(self, name: str) -> str:
        """What closing means, before it is done."""
        told = self.told(name, fresh=True)
        left = told.needed - told.votes
        missing = f"{count(left, 'vote')} of {told.needed} are still missing. " if left > 0 else ""
        return (
            f'<p role="alert"><b>Close “<bdi>{escape(name)}</bdi>” for good?</b> {missing}No vote can be given or changed afterwards, '
            "and reviewers may learn who was who. To collect more votes later, copy it as a new study.</p>"
        )
