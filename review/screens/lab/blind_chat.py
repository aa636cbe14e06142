"""Chat, blind: ask two arms without knowing which is which, vote, see who was who. For practice and demos; never stored or counted.

Before the vote nothing that this screen sends names an arm or depends on the sides. Must not know engines or votes of studies.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.specs import DecodeSpec
from review.screens.lab.room import Room
from review.screens.lab.talking import EVERY, STREAMS, exchange_html, talking_arms, until_ready
from review.screens.parts import QUICK, actions, acts, badge, block, count, empty_state, escape, heading
from review.services.live import LiveCompare, Shown

if TYPE_CHECKING:
    from review.protocol.ballots import Choice
    from review.services.house import House
    from review.services.people import UserView

VOTES: "tuple[tuple[Choice, str], ...]" = (
    ("left", "1 · Left is better"),
    ("right", "2 · Right is better"),
    ("tie", "3 · Both good"),
    ("both_bad", "4 · Both bad"),
)
SAID = {"left": "You preferred the left answer", "right": "You preferred the right answer", "tie": "You found both good",
        "both_bad": "You found both bad"}  # fmt: skip
EMPTY = empty_state("Ask something, judge both answers, then see who was who.", "Sides are drawn by chance for each conversation.")
VOTE_NOW = "Which is better? Vote, or ask on: both remember what they said themselves."


def talk_html(shown: Shown) -> str:
    """The conversation so far. Names stand over the answers only where `shown` has them, which is after the vote."""
    titles = [f"{side} · {arm}" if arm else side for side, arm in (("Left answer", shown.left_arm), ("Right answer", shown.right_arm))]
    turns = [exchange_html(turn.question, dict(zip(titles, (turn.left, turn.right), strict=True)), "") for turn in shown.turns]
    return "".join(turns) or EMPTY


def status_html(shown: Shown) -> str:
    words = shown.remark or ("Answering…" if shown.answering else VOTE_NOW if shown.may_vote else "")
    if shown.choice:
        who = f"left was <b dir='auto'>{escape(shown.left_arm)}</b>, right was <b dir='auto'>{escape(shown.right_arm)}</b>"
        return f'<p role="status">{SAID[shown.choice]}: {who}. Start over to compare again.</p>'
    return f'<p role="status" class="{"tb-bad-ink" if shown.remark else "tb-muted"}">{escape(words)}</p>'


def tally_html(winners: list[str]) -> str:
    """How this sitting's votes fell. Sent only with a vote, so it says nothing about a conversation that goes on."""
    if not winners:
        return ""
    won = Counter(winner for winner in winners if winner)
    parts = [f"<bdi>{escape(arm)}</bdi> {count(times, 'time')}" for arm, times in won.most_common()]
    parts += [f"no side {count(winners.count(''), 'time')}"] if "" in winners else []
    return f'<p class="tb-muted tb-small">In this sitting you preferred {", ".join(parts)}. It counts nowhere.</p>'


def build(house: "House") -> Room:
    heading("Blind, for practice", "Both answer the same question from one batch; you vote before you know who is who.")
    block(f'<p>{badge("practice", "warn")} <span class="tb-muted">Nothing here is stored, and no vote counts in a study.</span></p>')
    with gr.Accordion("Who answers", open=False), gr.Row():
        first = gr.Dropdown([], label="One", elem_id="blind-first")
        second = gr.Dropdown([], label="The other", elem_id="blind-second")
        longest = gr.Number(256, label="Longest answer, tokens", minimum=1, maximum=4096, precision=0, elem_id="blind-longest")
        warmth = gr.Number(0, label="Temperature (0: always the same)", minimum=0, maximum=2, step=0.1, elem_id="blind-temperature")
    away = block(elem_id="blind-away")
    talk = block(EMPTY, elem_id="blind-talk", min_height=180)
    status = block(elem_id="blind-status", min_height=28)
    with actions():
        votes = [gr.Button(words, interactive=False, elem_id=f"blind-{name.replace('_', '-')}", elem_classes=[f"tb-press-{at}"])
                 for at, (name, words) in enumerate(VOTES, start=1)]  # fmt: skip
    question = gr.Textbox(label="Question", placeholder="What would a customer ask?", lines=2, max_lines=8, elem_id="blind-question")
    with actions():
        send = gr.Button("Ask both", variant="primary", elem_id="blind-send")
        stop = gr.Button("Stop", elem_id="blind-stop")
        anew = gr.Button("Start over", elem_id="blind-anew")
    tally = block(elem_id="blind-tally", min_height=20)
    kept, winners = gr.State(None), gr.State([])
    moving = [talk, status, *votes, send]

    def drawn(shown: Shown) -> list[Any]:
        can_ask = not shown.answering and not shown.choice
        return [
            talk_html(shown),
            status_html(shown),
            *(gr.Button(interactive=shown.may_vote) for _ in votes),
            gr.Button(interactive=can_ask),
        ]

    @acts(house, "engineer", "admin")
    def ask_blind(
        person: "UserView", words: str, one: str | None, other: str | None, tokens: float, heat: float, live: LiveCompare | None
    ) -> Iterator[list[Any]]:
        live = live or LiveCompare(house.answers)
        decode = DecodeSpec(max_new_tokens=int(tokens or 0), temperature=float(heat or 0))
        steps = live.ask(words or "", [arm for arm in (one, other) if arm], decode)
        for waiting in until_ready(house):
            yield [live, words, talk_html(live.shown()), waiting, *(gr.skip() for _ in (*votes, send))]
        last, at = live.shown(), 0.0
        for last in steps:
            if time.monotonic() - at > EVERY:
                at = time.monotonic()
                yield [live, "", *drawn(last)]
        yield [live, words if last.remark else "", *drawn(last)]

    @acts(house, "engineer", "admin")
    def stop_blind(person: "UserView", live: LiveCompare | None) -> list[Any]:
        return drawn(live.shown() if live else Shown((), False))

    @acts(house, "engineer", "admin")
    def start_over(person: "UserView") -> list[Any]:
        return [None, *drawn(Shown((), False))]

    def votes_for(name: "Choice") -> Any:
        @acts(house, "engineer", "admin")
        def vote_blind(person: "UserView", live: LiveCompare | None, past: list[str]) -> list[Any]:
            live = live or LiveCompare(house.answers)
            shown = live.vote(name)
            past = [*past, live.winner]
            return [past, tally_html(past), *drawn(shown)]

        return vote_blind

    inputs, outputs = [question, first, second, longest, warmth, kept], [kept, question, *moving]
    runs = [send.click(ask_blind, inputs, outputs, **STREAMS), question.submit(ask_blind, inputs, outputs, **STREAMS)]
    stop.click(stop_blind, [kept], moving, cancels=list[Any](runs), **QUICK)
    anew.click(start_over, None, [kept, *moving], cancels=list[Any](runs), **QUICK)
    for (name, _), button in zip(VOTES, votes, strict=True):
        button.click(votes_for(name), [kept, winners], [winners, tally, *moving], **QUICK)

    def show(person: "UserView") -> list[Any]:
        return talking_arms(house)

    return Room([first, second, away], show)
