"""The boards: the verdict in plain words, then every arm's human and automatic results with their intervals.

Readable by somebody who knows none of the metrics. Must not know how anything is computed or stored.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from review.screens.evidence import flow, human_html, tags_html, verdict_html
from review.screens.parts import QUICK, acts, block, empty_state, escape, heading, on_load, page, roles_of
from review.screens.scores import scores_html
from review.screens.trust import trust_html

if TYPE_CHECKING:
    from review.services.boards import Board, BoardLink
    from review.services.house import House
    from review.services.people import UserView


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
        trust = block(elem_id="board-trust", min_height=20)
        heading("What the automatic scores say")
        scores = block(elem_id="board-scores", min_height=240)
        take = block(elem_id="board-take", min_height=20)
        shown = [study, verdict, human, trust, scores, take]

        def look(picked: str | None, named: str | None = None) -> list[Any]:
            if not picked:
                empty = empty_state("Nothing to compare yet.", "An engineer imports prompts and lets two arms answer them in the lab.")
                return [gr.Dropdown(choices=[], value=None), verdict_html(None), "", "", empty, ""]
            set_name, split = split_key(picked)
            board = house.boards.board(set_name, split, named)
            name = board.study.study.name if board.study else None
            return [
                gr.Dropdown(choices=list(board.studies), value=name),
                verdict_html(board.study),
                human_html(board.study),
                flow(tags_html(board.study), trust_html(board.study, named=False)),
                scores_html(board),
                take_html(board, name),
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


def take_html(board: "Board", study: str | None) -> str:
    """Links to the board as a file."""
    asked = {"prompts": board.set_name, "split": board.split, **({"study": study} if study else {})}
    table, whole = (f"/download/board?{urlencode(asked | {'form': form})}" for form in ("csv", "json"))
    return (
        f'<p class="tb-take">Take this board with you: <a href="{escape(table)}" download>table for a spreadsheet (CSV)</a> '
        f'<a href="{escape(whole)}" download>everything, exactly (JSON)</a></p>'
    )


def key_of(link: "BoardLink") -> str:
    return f"{link.split} {link.set_name}"


def title_of(link: "BoardLink") -> str:
    return f"{link.set_name} · {link.split} prompts"


def split_key(key: str) -> tuple[str, str]:
    split, _, set_name = key.partition(" ")
    return set_name, split
