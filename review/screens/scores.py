"""The automatic scores of a board as HTML: one card a metric, each explained in plain words. Must not know how scores are computed."""

from typing import TYPE_CHECKING

from review.screens.drawing import interval_bar
from review.screens.evidence import flow
from review.screens.parts import badge, empty_state, escape, table

if TYPE_CHECKING:
    from review.services.boards import Board, BoardRow, Difference, ScoreView


def scores_html(board: "Board") -> str:
    """Every metric's card, what to be careful about, and the exact signatures folded away."""
    notes = [
        f'<p class="tb-small"><b dir="auto">{escape(row.arm)}</b>: {mark(row)}{escape(row.note)}</p>' for row in board.rows if row.note
    ]
    if not board.metrics:
        return flow(empty_state("No scores yet.", "An engineer lets arms answer and scores them in the lab, under Answers."), *notes)
    cards = "".join(card(board, metric) for metric in board.metrics)
    return (
        f'<p class="tb-muted tb-lead">Each arm’s answers to {board.prompts} {escape(board.split)} prompts, compared with the human '
        f"answers to {board.references} of them. {escape(board.caution)}</p>"
        f'{"".join(notes)}<div class="tb-cards">{cards}</div>'
        f'<p class="tb-muted tb-small">{escape(board.interval_words)}</p>{signatures(board)}'
    )


def mark(row: "BoardRow") -> str:
    return badge("stale", "warn") + " " if row.stale else ""


def card(board: "Board", metric: str) -> str:
    scored = [(row, row.scores[metric]) for row in board.rows if metric in row.scores]
    most = max(score.high for _, score in scored) or 1.0
    digits = 1 if most >= 2 else 3
    rows = [score_row(board, row, score, metric, most, digits) for row, score in scored]
    title = board.titles.get(metric, metric)
    return (
        f'<section class="tb-card" aria-labelledby="metric-{escape(metric)}"><h3 id="metric-{escape(metric)}">{escape(title)}</h3>'
        f'<p class="tb-muted tb-small">{escape(board.words.get(metric, ""))}</p>'
        f"{table(['Arm', 'Score', 'Range', 'Against the base'], rows, f'{title} of each arm', numeric=(1,))}</section>"
    )


def score_row(board: "Board", row: "BoardRow", score: "ScoreView", metric: str, most: float, digits: int) -> list[str]:
    value, between = f"{score.value:.{digits}f}", f"{score.low:.{digits}f} to {score.high:.{digits}f}"
    bar = interval_bar(score.value, score.low, score.high, f"{row.arm}: {value}, {between}", bounds=(0.0, most))
    return [
        f'<b dir="auto">{escape(row.arm)}</b> {badge("stale", "warn") if row.stale else ""}',
        f"<b>{value}</b>",
        f'{bar}<span class="tb-small tb-muted tb-num">{between}</span>',
        "the base itself" if row.arm == board.base else difference(row.versus_base.get(metric), digits),
    ]


def difference(found: "Difference | None", digits: int) -> str:
    """Better, worse or no clear difference, in words first."""
    if found is None:
        return "—"
    tone, words = ("good", "better") if found.low > 0 else ("bad", "worse") if found.high < 0 else ("plain", "no clear difference")
    numbers = f"{found.value:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
    return f'{badge(words, tone)}<br><span class="tb-small tb-num">{numbers}</span>'


def signatures(board: "Board") -> str:
    rows = [
        [
            f'<span dir="auto">{escape(row.arm)}</span>',
            escape(board.titles.get(metric, metric)),
            str(score.n),
            f"<code>{escape(score.signature)}</code>",
        ]
        for row in board.rows
        for metric, score in row.scores.items()
    ]
    body = table(["Arm", "Metric", "Prompts", "Signature"], rows, "Signatures of all scores", numeric=(2,))
    return f'<details class="tb-more"><summary>What exactly was computed (signatures)</summary>{body}</details>'
