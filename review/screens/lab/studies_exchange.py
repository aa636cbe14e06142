"""Take a study out, and bring one in that was run elsewhere. The file is that of docs/exchange.md. Must not know its lines."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from ft.errors import BadInput
from review.screens.parts import SLOW, actions, acts, block, brings_into_view, count, escape, heading
from review.services.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from review.services.exchange import ExchangeReport
    from review.services.house import House
    from review.services.people import UserView

FORMS = (
    (
        "study",
        "The whole study, one file",
        "Arms, prompts, answers, votes and skipped pairs. Another Tiebreak reads it, and computes the same result from it.",
    ),
    ("votes.csv", "Votes as a table (CSV)", "For a spreadsheet. Nothing in it runs as a formula."),
    ("votes", "Votes line by line (JSONL)", "Exact, every change of mind included."),
)
FORMAT = """<details class="tb-more"><summary>What the file looks like</summary>
<p>One JSON object a line: first the study, then its arms, prompts, answers and votes in any order.</p>
<pre class="tb-plain tb-small tb-code">{"type": "study", "format": "tiebreak study", "version": 1, "name": "spring"}
{"type": "arm", "name": "old"}
{"type": "arm", "name": "new"}
{"type": "prompt", "id": "p1", "instruction": "How do I reset it?"}
{"type": "answer", "prompt": "p1", "arm": "old", "text": "No idea."}
{"type": "answer", "prompt": "p1", "arm": "new", "text": "Hold the button for ten seconds."}
{"type": "vote", "reviewer": "Rita", "prompt": "p1", "left": "old", "right": "new", "choice": "right"}</pre>
<p>A file comes in whole or not at all. What is wrong is said with its line. All fields are in docs/exchange.md.</p></details>"""


def take_html(study: str | None) -> str:
    """Links to the chosen study's files."""
    if not study:
        return '<p class="tb-muted">Choose a study above to take it out.</p>'
    rows = "".join(
        f'<li><a href="/download/study?{escape(urlencode({"name": study, "form": form}))}" download>{title}</a> '
        f'<span class="tb-muted">{words}</span></li>'
        for form, title, words in FORMS
    )
    return (
        f'<ul class="tb-rule tb-take">{rows}</ul>'
        '<p class="tb-muted tb-small">They name arms and reviewers: keep them from people who still vote.</p>'
    )


def report_html(report: "ExchangeReport") -> str:
    """What came in."""
    lines = [
        f"{count(report.votes, 'vote')} of {count(report.reviewers, 'reviewer')} on {count(report.prompts, 'prompt')} and "
        f"{count(report.arms, 'arm')}, {count(report.answers, 'answer')} in all. It is closed, and its reviewers cannot sign in here."
    ]
    if report.identical:
        lines.append(
            f"{count(report.identical, 'pair')} of equal answers; {report.identical_votes} votes on them are kept, but not counted."
        )
    if report.skips:
        lines.append(f"{count(report.skips, 'skipped pair')} came along, with the reasons.")
    if report.ignored:
        lines.append(f"Fields that this format does not know were left out: <bdi>{escape(', '.join(report.ignored))}</bdi>.")
    lines += [
        f"<bdi>{escape(old)}</bdi> is called <b><bdi>{escape(new)}</bdi></b> here: that name was taken."
        for old, new in report.renamed.items()
    ]
    shown = "".join(f"<li>{line}</li>" for line in lines)
    return (
        f'<div class="tb-card" role="status"><p class="tb-good-ink"><b>“<bdi>{escape(report.study)}</bdi>” came in.</b></p>'
        f'<ul class="tb-rule">{shown}</ul></div>'
    )


def build(house: "House", redraw: "Callable[[str], list[Any]]", shown: list[Any]) -> gr.HTML:
    """The tab. `redraw(study)` gives a value for each of `shown` once a study came in. Returns the place of the links."""
    heading("Take the chosen study out")
    links = block(elem_id="study-take", min_height=60)
    heading(
        "Bring in a study that was run elsewhere",
        "Votes collected with other tools become a closed study, with a board like your own.",
    )
    with gr.Row():
        file = gr.File(label="Study file (.jsonl)", type="filepath", elem_id="study-file", height=130, scale=2)
        name = gr.Textbox(
            label="Name here", placeholder="empty: the name in the file", max_length=100, elem_id="study-import-name", scale=2
        )
    block(FORMAT)
    with actions():
        bring = gr.Button("Bring it in", variant="primary", elem_id="study-import")
    report = block(elem_id="study-report", min_height=24)

    @acts(house, "engineer", "admin")
    def import_study(person: "UserView", path: str | None, title: str) -> list[Any]:
        if not path:
            raise BadInput("No file is chosen. Drop one on the field first.")
        came = Exchange(house.db).import_file(Path(path), (title or "").strip(), by=person.id)
        return [report_html(came), None, "", *redraw(came.study)]

    brought = bring.click(import_study, [file, name], [report, file, name, *shown], show_progress_on=[report], **SLOW)
    brings_into_view(brought, "study-report")
    return links
