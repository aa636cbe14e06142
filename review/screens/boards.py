"""The boards: the verdict in plain words, then every arm's human and automatic results with their intervals.

Readable by somebody who knows none of the metrics. Must not know how anything is computed or stored.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.drawing import interval_bar
from review.screens.parts import QUICK, acts, badge, block, count, empty_state, escape, heading, on_load, page, roles_of, table
from review.screens.scores import scores_html

if TYPE_CHECKING:
    from review.services.boards import BoardLink
    from review.services.house import House
    from review.services.people import UserView
    from review.services.studies import ArmResult, StudyResult

TONES = {"ship": "good", "hold": "bad", "more": "warn"}
HEADLINES = {"ship": "Ship", "hold": "Hold", "more": "Not yet"}
WHAT_IS_A_WIN = (
    "Win rate: how often reviewers, not knowing which was which, preferred this answer. A tie counts half; 50 % means no difference. "
    "The bar is the range the true rate very probably lies in."
)


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def verdict_html(result: "StudyResult | None") -> str:
    """The answer to "may it ship?", on top of everything."""
    if result is None:
        return empty_state(
            "No study has been opened on these prompts yet.", "An engineer creates one from two arms in the lab, under Studies."
        )
    kind = result.verdict.kind
    study = result.study
    told = count(result.votes, "vote") + (f", both answers bad in {percent(result.both_bad_share)}" if result.votes else "")
    aside = [f"{count(result.identical, 'pair')} of equal texts did not need a vote."] if result.identical else []
    aside += [f"{count(result.marked, 'vote')} kept apart, since an answer named a model or a vendor."] if result.marked else []
    aside += [f"Without {escape(', '.join(result.flips))} the verdict would be another."] if result.flips else []
    aside += [f"Reviewers' agreement (alpha): {result.agreement:.2f}."] if result.agreement is not None else []
    who = f'<b dir="auto">{escape(result.best)}</b> against <b dir="auto">{escape(study.against)}</b>'
    return (
        f'<section class="tb-card tb-verdict tb-verdict-{escape(kind)}" aria-labelledby="verdict-title">'
        f'<h2 id="verdict-title">{badge(HEADLINES.get(kind, kind), TONES.get(kind, "plain"))} {who}</h2>'
        f'<p class="tb-verdict-words">{escape(result.verdict.words)}</p>'
        f'<p class="tb-muted">Study <span dir="auto">{escape(study.name)}</span> ({escape(study.state)}): {told}. '
        f"{' '.join(aside)}</p></section>"
    )


def human_html(result: "StudyResult | None") -> str:
    if result is None or not result.votes:
        return empty_state("No votes yet.", "They appear here as reviewers judge pairs.")
    rows = [human_row(arm) for arm in result.arms]
    return (
        f"<p class='tb-muted'>{WHAT_IS_A_WIN}</p>"
        + table(["Arm", "Win rate", "Range", "Won · lost · tie", "Both bad", "Votes"], rows, "Blind votes", numeric=(1, 4, 5))
        + f'<details class="tb-more"><summary>How this is computed</summary><p class="tb-small">{escape(result.method)}</p></details>'
    )


def human_row(arm: "ArmResult") -> list[str]:
    rate = arm.win_rate
    between = f"between {percent(rate.low)} and {percent(rate.high)}"
    bar = interval_bar(rate.value, rate.low, rate.high, f"{arm.arm}: {percent(rate.value)}, {between}", middle=0.5)
    return [
        arm_cell(arm.arm, arm.title),
        f"<b>{percent(rate.value)}</b>" if rate.votes else "—",
        f'{bar}<span class="tb-small tb-muted">{between}</span>',
        f"{rate.wins} · {rate.losses} · {rate.ties}", str(rate.both_bad), str(rate.votes),
    ]  # fmt: skip


def arm_cell(name: str, title: str) -> str:
    more = f'<br><span class="tb-muted tb-small" dir="auto">{escape(title)}</span>' if title and title != name else ""
    return f'<b dir="auto">{escape(name)}</b>{more}'


def build(house: "House") -> gr.Blocks:
    """The blocks of /boards."""
    roles = roles_of("boards")
    with gr.Blocks(title="Boards · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        page(house, "boards", "Boards")
        with gr.Row():
            chosen = gr.Dropdown([], label="Prompts", elem_id="board-set")
            study = gr.Dropdown([], label="Study", elem_id="board-study")
        verdict = block(elem_id="board-verdict", min_height=120)
        heading("What people prefer")
        human = block(elem_id="board-human", min_height=120)
        heading("What the automatic scores say")
        scores = block(elem_id="board-scores", min_height=240)
        shown = [study, verdict, human, scores]

        def look(picked: str | None, named: str | None = None) -> list[Any]:
            if not picked:
                empty = empty_state("Nothing to compare yet.", "An engineer imports prompts and lets two arms answer them in the lab.")
                return [gr.Dropdown(choices=[], value=None), verdict_html(None), "", empty]
            set_name, split = split_key(picked)
            board = house.boards.board(set_name, split, named)
            name = board.study.study.name if board.study else None
            return [
                gr.Dropdown(choices=list(board.studies), value=name),
                verdict_html(board.study),
                human_html(board.study),
                scores_html(board),
            ]

        @acts(house, *roles)
        def show_boards(person: "UserView") -> list[Any]:
            links = house.boards.boards()
            first = key_of(links[0]) if links else None
            return [gr.Dropdown(choices=[(title_of(link), key_of(link)) for link in links], value=first), *look(first)]

        @acts(house, *roles)
        def choose_board(person: "UserView", picked: str | None) -> list[Any]:
            return look(picked)

        @acts(house, *roles)
        def choose_study(person: "UserView", picked: str | None, named: str | None) -> list[Any]:
            return look(picked, named)

        chosen.input(choose_board, [chosen], shown, **QUICK)
        study.input(choose_study, [chosen, study], shown, **QUICK)
        on_load(show_boards, [chosen, *shown])
    return blocks


def key_of(link: "BoardLink") -> str:
    return f"{link.split} {link.set_name}"


def title_of(link: "BoardLink") -> str:
    return f"{link.set_name} · {link.split} prompts"


def split_key(key: str) -> tuple[str, str]:
    split, _, set_name = key.partition(" ")
    return set_name, split
