"""The blind screen: a prompt, two answers, four votes, the ideal answer, the next pair.

The page holds the two texts and a random assignment id. It must not know arms, adapters, models or the order of sides,
and it never asks the engine for anything: every answer shown was stored before.
"""

from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from review.protocol.ballots import MAX_COMMENT, MAX_CORRECTION, Ballot, BlindPair, Choice
from review.screens.parts import QUICK, acts, block, escape, minutes, on_load, page, progress_bar

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

VOTES: tuple[tuple[str, str, str], ...] = (
    ("left", "vote-left", "Left is better"),
    ("right", "vote-right", "Right is better"),
    ("tie", "vote-tie", "Both good"),
    ("both_bad", "vote-both-bad", "Both bad"),
)
SAID = {choice: words for choice, _, words in VOTES}
KEPT = ("pair", "choice", "key", "revision", "comment as sent", "starting text")
BEFORE_VOTE = "A vote is saved at once. You can change it until you go on."
AFTER_VOTE = "Press another vote to change it, write the ideal answer, or go on."
KEYS = (
    ("1", "or", "←", "Left is better"),
    ("2", "or", "→", "Right is better"),
    ("3", "", "", "Both good"),
    ("4", "", "", "Both bad"),
    ("N", "or", "Enter", "Next pair, after your vote"),
    ("C", "", "", "Write a comment"),
    ("E", "", "", "Write the ideal answer; Ctrl + Enter saves it"),
    ("Esc", "", "", "Leave a text field"),
    ("?", "", "", "These keys"),
)


def pair_html(pair: BlindPair) -> str:
    """Prompt and both answers as plain text; both panes are built by the same line."""
    panes = "".join(
        f'<section class="tb-pane tb-card" aria-labelledby="tb-{side}"><h2 id="tb-{side}">{title}</h2>'
        f'<pre class="tb-plain tb-answer" dir="auto" tabindex="0" aria-labelledby="tb-{side}">{escape(text)}</pre></section>'
        for side, title, text in (("left", "1 · Left answer", pair.left), ("right", "2 · Right answer", pair.right))
    )
    return (
        f'<div data-pair="{escape(pair.assignment)}" tabindex="-1"><section class="tb-prompt tb-card" aria-labelledby="tb-asked">'
        f'<h2 id="tb-asked">The customer asks</h2><pre class="tb-plain" dir="auto" tabindex="0" aria-labelledby="tb-asked">'
        f'{escape(pair.prompt)}</pre></section><div class="tb-panes">{panes}</div></div>'
    )


def progress_html(done: int, total: int, seconds_left: int = 0) -> str:
    if total <= 0:
        return ""
    left = f" · {minutes(seconds_left)} left" if done < total else ""
    return progress_bar(done, total, f"{done} of {total}{left}", label="Pairs you have judged")


def status_html(chosen: str = "") -> str:
    """What was saved, in a live region that is there from the start so that screen readers announce it."""
    said = f"<b>Saved: {escape(SAID[chosen].lower())}.</b> {AFTER_VOTE}" if chosen else BEFORE_VOTE
    return f'<div role="status" class="tb-small">{said}</div>'


def lit(chosen: str) -> list[gr.Button]:
    """The four votes, the chosen one marked."""
    return [gr.Button(elem_classes=["tb-once", "tb-chosen"] if name == chosen else ["tb-once"]) for name, _, _ in VOTES]


def keys_html() -> str:
    rows = "".join(
        f"<dt><kbd>{first}</kbd>{f' {joined} <kbd>{second}</kbd>' if second else ''}</dt><dd>{words}</dd>"
        for first, joined, second, words in KEYS
    )
    return (
        '<dialog id="tb-keys" class="tb-dialog" aria-labelledby="tb-keys-title"><h2 id="tb-keys-title">Keys</h2>'
        f'<dl>{rows}</dl><button type="button" class="tb-quiet" data-tb="close">Close</button></dialog>'
        '<button type="button" class="tb-quiet tb-small" data-tb="keys">Keys <kbd>?</kbd></button>'
    )


def build(house: "House") -> gr.Blocks:
    """The blocks of /review."""
    with gr.Blocks(title="Review · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        progress = page(house, "review", "Which answer is better?")
        pair = block('<p class="tb-muted">Fetching your next pair…</p>', elem_id="tb-pair")
        assignment, choice, key, revision, said, start = (gr.Textbox(label=name, visible="hidden") for name in KEPT)
        with gr.Column(visible=False, elem_id="tb-desk") as desk:
            comment = gr.Textbox(label="Comment (optional)", max_length=MAX_COMMENT, lines=1, max_lines=4, elem_id="tb-comment")
            with gr.Column(visible=False, elem_id="tb-ideal") as ideal:
                text = gr.Textbox(
                    label="The ideal answer (optional)", lines=3, max_lines=14, max_length=MAX_CORRECTION, elem_id="tb-ideal-text",
                    info="Change it until you would send it to the customer. Approved ideal answers are what the model learns next.",
                )  # fmt: skip
                save = gr.Button("Save the ideal answer and go on", elem_id="save-ideal", elem_classes=["tb-once"])
        with gr.Column(visible=False, elem_id="tb-foot") as foot:
            status = block(status_html(), elem_id="tb-status", min_height=22)
            with gr.Row(elem_id="tb-votes"):
                votes = [gr.Button(words, elem_id=name, elem_classes=["tb-once"], min_width=120) for _, name, words in VOTES]
                onward = gr.Button("Next pair", elem_id="next-pair", elem_classes=["tb-once"], interactive=False, min_width=120)
        block(keys_html(), elem_id="tb-keys-place")

        after_vote = [status, ideal, text, start, choice, said, revision, onward, *votes]
        shown = [pair, progress, assignment, comment, desk, foot, *after_vote]

        def next_pair(person: "UserView") -> list[Any]:
            found = house.comparisons.next_pair(person.id)
            here = isinstance(found, BlindPair)
            onward_now = gr.Button(interactive=False, variant="secondary")
            fresh = [status_html(), gr.Column(visible=False), "", "", "", "", "0", onward_now, *lit("")]
            places = [gr.Column(visible=here), gr.Column(visible=here), *fresh]
            if isinstance(found, BlindPair):
                return [pair_html(found), progress_html(found.done, found.total, found.seconds_left), found.assignment, "", *places]
            rest = f'<div class="tb-done tb-card"><p>{escape(found.message)}</p><a href="/review">Look again</a></div>'
            return [rest, progress_html(found.done, found.total), "", "", *places]

        @acts(house, "reviewer")
        def show_pair(person: "UserView") -> list[Any]:
            return next_pair(person)

        @acts(house, "reviewer")
        def vote(
            person: "UserView", pair_id: str, chosen: str, words: str, request_key: str, revises: str, better: str, before: str
        ) -> list[Any]:
            ballot = Ballot(pair_id, cast(Choice, chosen), request_key, comment=words, revises=int(revises or 0))
            receipt = house.comparisons.vote(person.id, ballot)
            begin = house.comparisons.starting_text(person.id, pair_id)
            kept = gr.skip() if better != before else begin
            onward_now = gr.Button(interactive=True, variant="primary")
            return [
                status_html(chosen),
                gr.Column(visible=True),
                kept,
                begin,
                chosen,
                words,
                str(receipt.revision),
                onward_now,
                *lit(chosen),
            ]

        def finishes(ideal_too: bool) -> Any:
            @acts(house, "reviewer")
            def finish(
                person: "UserView",
                pair_id: str,
                chosen: str,
                words: str,
                request_key: str,
                revises: str,
                better: str,
                before: str,
                sent: str,
            ) -> list[Any]:
                """Keep what was written since the vote, then go on; an untouched starting text is kept only when asked for."""
                if ideal_too or (better.strip() and better != before):
                    house.comparisons.correct(person.id, pair_id, better, request_key)
                if chosen and words != sent:
                    ballot = Ballot(pair_id, cast(Choice, chosen), f"{request_key}-comment", comment=words, revises=int(revises or 0))
                    house.comparisons.vote(person.id, ballot)
                return next_pair(person)

            return finish

        for (name, _, _), button in zip(VOTES, votes, strict=True):
            button.click(
                vote, [assignment, choice, comment, key, revision, text, start], after_vote,
                js=f"(...sent) => window.tb.vote('{name}', ...sent)", **QUICK,
            ).then(None, js="() => window.tb.free()")  # fmt: skip
        for button, ideal_too in ((onward, False), (save, True)):
            button.click(
                finishes(ideal_too), [assignment, choice, comment, key, revision, text, start, said], shown,
                js="(...sent) => window.tb.finish(...sent)", **QUICK,
            ).then(None, js="() => window.tb.shown()")  # fmt: skip
        on_load(show_pair, shown)
    return blocks
