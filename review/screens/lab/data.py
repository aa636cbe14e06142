"""The Data tab: bring a file in, see what came of it line by line, browse the prompts. Must not know file formats or storage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import SPLITS, Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, block, brings_into_view, empty_state, escape, heading, table

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.library import ImportReport, PromptView, SetView
    from review.services.people import UserView

PAGE = 10
SHOWN_REJECTS = 200
BY_ITSELF = "decided for you"
ANY = "all"
FORMATS = """<details class="tb-more"><summary>What a file may look like</summary>
<p>One row for each case: what was asked, and the answer you would have liked. JSON Lines is exact; JSON, CSV and TSV work too.</p>
<pre class="tb-plain tb-small tb-code">{"instruction": "How do I reset my gateway?", "input": "", "output": "Go to Settings &gt; …"}</pre>
<p>Chat exports are read as well:</p>
<pre class="tb-plain tb-small tb-code">{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}</pre>
<p>Other column names? Say below which of your columns is which. A row that cannot be read is kept aside with its line and the reason;
nothing else is lost by it.</p></details>"""


def sets_html(sets: "list[SetView]") -> str:
    if not sets:
        return empty_state("No prompts yet.", "Import a file below. Support tickets with the answers you liked are best.")
    rows = [
        [f'<b dir="auto">{escape(one.name)}</b>', *(str(n) for n in (*map(one.splits.get, SPLITS), one.references, one.rejected))]
        for one in reversed(sets)
    ]
    return table(["Prompt set", *SPLITS, "with an answer", "kept aside"], rows, "Prompt sets, newest first", numeric=(1, 2, 3, 4, 5))


def report_html(report: "ImportReport") -> str:
    """What came in, and every row that did not, by line."""
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items() if count) or "none"
    said = [
        f'<p role="status"><b>{report.added} prompts came into <span dir="auto">{escape(report.set_name)}</span></b> ({escape(splits)}). '
        f"{report.duplicates} were there already, {len(report.rejected)} rows were kept aside, "
        f"{report.examples} became training examples.</p>"
    ]
    if report.findings:
        found = ", ".join(f"{escape(kind)} in {count} rows" for kind, count in report.findings.items())
        done = "It was masked." if report.masked else "It was not changed."
        said.append(f'<p class="tb-warn-ink">Personal data found: {found}. {done}</p>')
    said.append(f'<p class="tb-muted tb-small">{escape(report.note)}</p>')
    if report.moved:
        lines = ", ".join(f"line {line} to {escape(split)}" for line, split in report.moved[:20])
        said.append(f'<p class="tb-small">Moved beside a near-duplicate, so that no test prompt is trained on: {lines}.</p>')
    if report.rejected:
        rows = [[str(line), escape(reason)] for line, reason in report.rejected[:SHOWN_REJECTS]]
        said.append(table(["Line", "The row"], rows, f"The first {len(rows)} of {len(report.rejected)} rows kept aside", numeric=(0,)))
    return f'<div class="tb-card">{"".join(said)}</div>'


def prompts_html(prompts: "list[PromptView]") -> str:
    if not prompts:
        return empty_state("No prompt matches.", "Look for other words, or in all splits.")
    rows = [
        [str(one.line or "—"), escape(one.split), _text("\n\n".join(part for part in (one.instruction, one.input) if part)),
         _text(one.reference), escape(", ".join(filter(None, (one.category, *one.tags))))]
        for one in prompts
    ]  # fmt: skip
    return table(["Line", "Split", "Prompt", "The answer to compare with", "Category"], rows, "Prompts of the set", numeric=(0,))


def _text(text: str) -> str:
    return f'<pre class="tb-plain tb-cell" dir="auto">{escape(text)}</pre>'


def columns(given: str) -> dict[str, str] | None:
    """`instruction = Question; output = Reply` as field -> column. Raises BadInput."""
    pairs = [one.split("=", 1) for one in given.replace("\n", ";").split(";") if one.strip()]
    if any(len(pair) != 2 or not pair[1].strip() for pair in pairs):
        raise BadInput("The columns cannot be read. Write them like: instruction = Question; output = Reply")
    return {field.strip(): column.strip() for field, column in pairs} or None


def build(house: "House") -> Room:
    heading("Prompt sets")
    listing = block(elem_id="data-sets", min_height=80)
    heading("Import a file")
    with gr.Row():
        file = gr.File(
            label="File (JSONL, JSON, CSV or TSV)", file_count="single", type="filepath", elem_id="data-file", height=150, scale=2
        )
        with gr.Column(scale=3):
            name = gr.Textbox(label="Name of the prompt set", placeholder="for example tickets-2026", max_length=100, elem_id="data-name")
            split = gr.Dropdown([BY_ITSELF, *SPLITS], value=BY_ITSELF, label="Split", elem_id="data-split",
                                info="Near-duplicates always stay together, for life, so a test is never trained on.")  # fmt: skip
    with gr.Row():
        approve = gr.Checkbox(
            label="Approve its answers for training", info="Else they wait as drafts under Retrain.", elem_id="data-approve"
        )
        mask = gr.Checkbox(
            label="Mask personal data", info="E-mail, phone, card, IBAN and the like are replaced.", elem_id="data-mask", min_width=240
        )
        fields = gr.Textbox(
            label="Columns, if they have other names",
            placeholder="instruction = Question; output = Reply",
            elem_id="data-fields",
            min_width=240,
        )
    block(FORMATS)
    with actions():
        bring = gr.Button("Import", variant="primary", elem_id="data-import")
    report = block(elem_id="data-report", min_height=24)
    heading("Browse")
    with gr.Row():
        chosen = gr.Dropdown([], label="Prompt set", elem_id="data-chosen")
        part = gr.Dropdown([ANY, *SPLITS], value=ANY, label="Split", elem_id="data-part")
        query = gr.Textbox(label="Look for", placeholder="words in the prompt or the answer", elem_id="data-query")
    prompts = block(elem_id="data-prompts", min_height=200)
    with actions():
        back = gr.Button("← Earlier", elem_id="data-back")
        forward = gr.Button("Later →", elem_id="data-forward")
    place = gr.Textbox("0", label="place", visible="hidden")

    def look(picked: str | None, split_name: str, words: str, offset: int) -> list[Any]:
        if not picked:
            return ["", gr.Button(interactive=False), gr.Button(interactive=False), "0"]
        which = None if split_name == ANY else split_name
        total = house.library.prompt_count(picked, which, words or "")
        offset = max(0, min(offset, (total - 1) // PAGE * PAGE if total else 0))
        found = house.library.prompts(picked, which, words or "", offset, PAGE)
        counted = f'<p class="tb-muted tb-small">{offset + 1} to {offset + len(found)} of {total}</p>' if found else ""
        more = gr.Button(interactive=offset + PAGE < total)
        return [prompts_html(found) + counted, gr.Button(interactive=offset > 0), more, str(offset)]

    def show(person: "UserView", picked: str | None = None) -> list[Any]:
        sets = house.library.sets()
        names = [one.name for one in reversed(sets)]
        picked = picked if picked in names else (names[0] if names else None)
        return [sets_html(sets), choices(names, picked), *look(picked, ANY, "", 0)]

    @acts(house, "engineer", "admin")
    def import_file(person: "UserView", path: str | None, title: str, put: str, good: bool, hide: bool, named: str) -> list[Any]:
        if not path:
            raise BadInput("No file is chosen. Drop one on the field first.")
        title = title.strip() or Path(path).stem
        came = house.library.import_file(
            path, title, person.id, split=None if put == BY_ITSELF else put, approve=good, fields=columns(named or ""), mask=hide
        )
        return [report_html(came), None, *show(person, came.set_name)]

    def turns(by: int) -> Any:
        @acts(house, "engineer", "admin")
        def browse(person: "UserView", picked: str | None, split_name: str, words: str, offset: str) -> list[Any]:
            return look(picked, split_name, words, int(offset or 0) + by * PAGE if by else 0)

        return browse

    outputs = [listing, chosen, prompts, back, forward, place]
    brought = bring.click(import_file, [file, name, split, approve, mask, fields], [report, file, *outputs], **SLOW)
    brings_into_view(brought, "data-report")
    asked, page = [chosen, part, query, place], [prompts, back, forward, place]
    for event in (chosen.input, part.input, query.submit):
        event(turns(0), asked, page, **QUICK)
    back.click(turns(-1), asked, page, **QUICK)
    forward.click(turns(1), asked, page, **QUICK)
    return Room(outputs, show)
