"""Small drawings as inline SVG: a score with its interval, and curves over steps. Built on the server, every text escaped.

Pure: no scripts, no outside references, no colours but the classes of look.css. Must not know services or what is drawn.
"""

import math
from collections.abc import Sequence

from review.screens.parts import escape

Points = Sequence[tuple[float, float]]


def interval_bar(
    value: float, low: float, high: float, words: str, bounds: tuple[float, float] = (0.0, 1.0), middle: float | None = None
) -> str:
    """A dot with its 95 % interval on a line from bounds[0] to bounds[1]; `middle` draws the line of no difference."""
    start, end = bounds
    width = 160.0
    span = (end - start) or 1.0

    def at(number: float) -> float:
        return 4 + (width - 8) * min(1.0, max(0.0, (number - start) / span))

    mark = "" if middle is None else f'<line class="tb-middle" x1="{at(middle):.1f}" x2="{at(middle):.1f}" y1="1" y2="17"/>'
    return (
        f'<svg class="tb-interval" viewBox="0 0 160 18" width="160" height="18" role="img" aria-label="{escape(words)}">'
        f'<line class="tb-axis" x1="4" x2="156" y1="9" y2="9"/>{mark}'
        f'<line class="tb-span" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="9" y2="9"/>'
        f'<circle class="tb-dot" cx="{at(value):.1f}" cy="9" r="4"/></svg>'
    )


def curve(lines: Sequence[tuple[str, Points]], words: str, across: str = "step") -> str:
    """Up to three named lines over the same steps, with axis labels and a legend. `words` says in a sentence what it shows.

    As wide as its place: the lines are stretched, their thickness and the labels, which are text beside them, are not.
    """
    clean = [(name, [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]) for name, points in lines]
    everything = [point for _, points in clean for point in points]
    if not everything:
        return f'<div class="tb-curve tb-curve-empty"><p>{escape(words)}</p></div>'
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x0, x1 = min(xs), max(max(xs), min(xs) + 1)
    low, high, ticks = _axis(min(ys), max(ys))

    def px(x: float) -> float:
        return 100 * (x - x0) / (x1 - x0)

    def py(y: float) -> float:
        return 100 - 100 * (y - low) / (high - low)

    levels, wide = "".join(f'<span style="top:{py(t):.2f}%">{t:g}</span>' for t in ticks), max(len(f"{t:g}") for t in ticks)
    drawn = [f'<line class="tb-grid" x1="0" x2="100" y1="{py(t):.2f}" y2="{py(t):.2f}"/>' for t in ticks]
    for index, (_, points) in enumerate(clean):
        drawn += _line(index, [(px(x), py(y)) for x, y in points])
    legend = "".join(
        f'<span class="tb-key tb-line-{index}">{escape(name)}{_newest(points)}</span>' for index, (name, points) in enumerate(clean)
    )
    return (
        f'<figure class="tb-curve"><div class="tb-plot" role="img" aria-label="{escape(words)}">'
        f'<div class="tb-levels tb-num" style="min-width:{wide}ch">{levels}</div>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(drawn)}</svg>'
        f'<div class="tb-across tb-num"><span>{x0:g}</span><span>{escape(across)}</span><span>{x1:g}</span></div></div>'
        f'<figcaption class="tb-num">{legend}</figcaption></figure>'
    )


def _line(index: int, points: list[tuple[float, float]]) -> list[str]:
    if not points:
        return []
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    shapes = [f'<polyline class="tb-line-{index}" points="{path}"/>'] if len(points) > 1 else []
    marks = points if len(points) <= 12 else points[-1:]
    return shapes + [f'<path class="tb-mark tb-line-{index}" d="M{x:.2f} {y:.2f}h0"/>' for x, y in marks]  # a circle would stretch


def _newest(points: Points) -> str:
    return f" {points[-1][1]:{'.3f' if abs(points[-1][1]) >= 1 else '.3g'}}" if points else ""


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round bounds and three to six ticks that hold [low, high]."""
    spread = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(spread / 3))
    step *= next(m for m in (1, 2, 5, 10) if spread / (step * m) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return first * step, last * step, [round(n * step, 10) for n in range(first, last + 1)]
