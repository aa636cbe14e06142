"""The blind screen: a prompt, two answers, four votes, the ideal answer, the next pair.

The page holds the two texts and a random assignment id. It must not know arms, adapters, models or the order of sides,
and it never asks the engine for anything: every answer shown was stored before.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Desk:
    """What stands on the screen. `kept` remembers, in the page, what the next event needs: it survives a restart of the server."""

    progress: gr.HTML
    pair: gr.HTML
    written: gr.Column
    comment: gr.Textbox
    ideal: gr.Column
    text: gr.Textbox
    save: gr.Button
    foot: gr.Column
    status: gr.HTML
    votes: list[gr.Button]
    onward: gr.Button
    kept: dict[str, gr.Textbox]

    @property
    def sent(self) -> list[Any]:
        """The inputs of every event, in the order of `Sent`."""
        kept = self.kept
        return [kept["pair"], kept["choice"], self.comment, kept["key"], kept["revision"], self.text, kept["start"], kept["said"]]

    @property
    def shown(self) -> list[Any]:
        kept = [box for name, box in self.kept.items() if name != "key"]
        return [
            self.progress,
            self.pair,
            self.written,
            self.comment,
            self.ideal,
            self.text,
            self.foot,
            self.status,
            self.onward,
            *self.votes,
            *kept,
        ]


@dataclass(frozen=True)
class Sent:
    """What an event brings: the pair and vote, and what is written now beside what it was when it was last kept."""

    pair: str
    choice: str
    comment: str
    key: str
    revision: str
    text: str
    start: str
    said: str

    def ballot(self, key: str) -> Ballot:
        return Ballot(self.pair, cast(Choice, self.choice), key, comment=self.comment, revises=int(self.revision or 0))

    @property
    def edited(self) -> bool:
        return bool(self.text.strip()) and self.text != self.start


def lay_out(house: "House") -> Desk:
    """The components, inside the Blocks."""
    progress = page(house, "review", "Which answer is better?")
    pair = block('<p class="tb-muted">Fetching your next pair…</p>', elem_id="tb-pair")
    kept = {name: gr.Textbox(label=name, visible="hidden") for name in ("pair", "choice", "key", "revision", "said", "start")}
    with gr.Column(visible=False, elem_id="tb-desk") as written:
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
    return Desk(progress, pair, written, comment, ideal, text, save, foot, status, votes, onward, kept)


def next_pair(house: "House", desk: Desk, person: "UserView") -> dict[Any, Any]:
    """The whole screen anew, for the next pair or for the rest."""
    found = house.comparisons.next_pair(person.id)
    here = isinstance(found, BlindPair)
    new: dict[Any, Any] = dict.fromkeys((desk.comment, desk.text, *(box for name, box in desk.kept.items() if name != "key")), "")
    new |= {desk.written: gr.Column(visible=here), desk.foot: gr.Column(visible=here), desk.ideal: gr.Column(visible=False)}
    new |= {desk.status: status_html(), desk.onward: gr.Button(interactive=False, variant="secondary")}
    new |= dict(zip(desk.votes, lit(""), strict=True))
    if isinstance(found, BlindPair):
        new |= {desk.pair: pair_html(found), desk.kept["pair"]: found.assignment}
        return new | {desk.progress: progress_html(found.done, found.total, found.seconds_left)}
    rest = f'<div class="tb-done tb-card"><p>{escape(found.message)}</p><a href="/review">Look again</a></div>'
    return new | {desk.pair: rest, desk.progress: progress_html(found.done, found.total)}


def build(house: "House") -> gr.Blocks:
    """The blocks of /review."""
    with gr.Blocks(title="Review · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        desk = lay_out(house)

        @acts(house, "reviewer")
        def show_pair(person: "UserView") -> dict[Any, Any]:
            return next_pair(house, desk, person)

        @acts(house, "reviewer")
        def vote(person: "UserView", *values: str) -> dict[Any, Any]:
            sent = Sent(*values)
            receipt = house.comparisons.vote(person.id, sent.ballot(sent.key))
            start = house.comparisons.starting_text(person.id, sent.pair)
            new: dict[Any, Any] = {desk.kept["choice"]: sent.choice, desk.kept["said"]: sent.comment, desk.kept["start"]: start}
            new |= {} if sent.edited else {desk.text: start}
            new |= {
                desk.kept["revision"]: str(receipt.revision),
                desk.status: status_html(sent.choice),
                desk.ideal: gr.Column(visible=True),
            }
            return new | {
                desk.onward: gr.Button(interactive=True, variant="primary"),
                **dict(zip(desk.votes, lit(sent.choice), strict=True)),
            }

        def goes_on(with_ideal: bool) -> Any:
            @acts(house, "reviewer")
            def go_on(person: "UserView", *values: str) -> dict[Any, Any]:
                """Keep what was written since the vote, then go on; an untouched starting text is kept only when asked for."""
                sent = Sent(*values)
                if with_ideal or sent.edited:
                    house.comparisons.correct(person.id, sent.pair, sent.text, sent.key)
                if sent.choice and sent.comment != sent.said:
                    house.comparisons.vote(person.id, sent.ballot(f"{sent.key}-comment"))
                return next_pair(house, desk, person)

            return go_on

        for (name, _, _), button in zip(VOTES, desk.votes, strict=True):
            cast_it = button.click(vote, desk.sent, desk.shown, js=f"(...sent) => window.tb.vote('{name}', ...sent)", **QUICK)
            cast_it.then(None, js="() => window.tb.free()")
        for button, with_ideal in ((desk.onward, False), (desk.save, True)):
            went_on = button.click(goes_on(with_ideal), desk.sent, desk.shown, js="(...sent) => window.tb.finish(...sent)", **QUICK)
            went_on.then(None, js="() => window.tb.shown()")
        on_load(show_pair, desk.shown)
    return blocks
