"""How far a study's result can be trusted, as HTML: blinding, self-consistency, sides, agreement, whose votes are in it.

Each measure is explained in one sentence for somebody who knows none. Must not know how anything is computed.
"""

from typing import TYPE_CHECKING

from review.screens.drawing import interval_bar
from review.screens.evidence import between, flow, percent
from review.screens.parts import count, escape, table

if TYPE_CHECKING:
    from review.services.study_views import StudyResult

WHAT_IS_AGREEMENT = (
    "How far reviewers who judged the same pair say the same: 1 is always, 0 is no more than chance. People often differ on which of two "
    "good answers is better, so 0.3 to 0.6 is usual here; near 0 the question or the criteria may be unclear."
)
BLIND_ENOUGH = "Now and then reviewers are asked which answer they take for the tuned model's. At 0 they cannot tell; at 1 they always can."
CONSISTENT = "Some pairs come back later with the sides swapped. A careful reviewer mostly votes the same again."
SIDES = "Sides are drawn by chance, so the left answer should win about half of the votes. More or less means a habit, not a judgement."


def trust_html(result: "StudyResult | None", named: bool = True) -> str:
    """How far the result can be trusted: blinding, consistency, sides, agreement, whose votes are in it. `named`: reviewers by name."""
    if result is None or not result.votes:
        return ""
    cards = [_blinding(result), _consistency(result), _sides(result)]
    shown = "".join(card for card in cards if card)
    grid = f'<div class="tb-cards tb-thirds">{shown}</div>' if shown else ""
    lead = "A study checks its own reviewing. What follows is about the votes, not the answers."
    head = f'<div class="tb-h2"><h2>How far to trust it</h2><p>{lead}</p></div>'
    return flow(head, grid, _agreement(result), _counted(result, named))


def _card(title: str, said: str, explained: str, bar: str) -> str:
    name = title.lower().replace(" ", "-").replace("?", "")
    return (
        f'<section class="tb-card" aria-labelledby="trust-{name}"><h3 id="trust-{name}">{title}</h3><p>{said}</p>{bar}'
        f'<p class="tb-muted tb-small">{explained}</p></section>'
    )


def _blinding(result: "StudyResult") -> str:
    found = result.blinding
    if found is None:
        return ""
    bar = ""
    if found.index is not None and found.low is not None and found.high is not None:
        words = f"Blinding index {found.index:+.2f}, between {found.low:+.2f} and {found.high:+.2f}"
        drawn = interval_bar(found.index, found.low, found.high, words, bounds=(-1.0, 1.0), middle=0.0)
        bar = f'{drawn}<p class="tb-small tb-num">{words}.</p>'
    return _card("Was it really blind?", escape(found.words), BLIND_ENOUGH, bar)


def _consistency(result: "StudyResult") -> str:
    found = result.consistency
    if found is None:
        return ""
    if found.share is None or found.low is None or found.high is None:
        return _card("Do reviewers agree with themselves?", "No pair came back a second time yet.", CONSISTENT, "")
    said = f"Shown {count(found.n, 'pair')} again, reviewers voted the same in {percent(found.share)}."
    words = between(found.low, found.high)
    drawn = interval_bar(found.share, found.low, found.high, f"{said} {words}")
    return _card("Do reviewers agree with themselves?", said, CONSISTENT, f'{drawn}<p class="tb-small tb-num">Very probably {words}.</p>')


def _sides(result: "StudyResult") -> str:
    found = result.side
    if found is None:
        return ""
    if found.share is None or found.low is None or found.high is None:
        return _card("Does the side matter?", "No vote preferred a side yet.", SIDES, "")
    leaning = "left" if found.share > 0.5 else "right"
    fair = found.low <= 0.5 <= found.high
    said = f"The left answer won {percent(found.share)} of the votes for a side: " + (
        "no habit can be seen." if fair else f"reviewers lean to the {leaning}, whatever stands there."
    )
    words = between(found.low, found.high)
    drawn = interval_bar(found.share, found.low, found.high, f"{said} {words}", middle=0.5)
    return _card("Does the side matter?", said, SIDES, f'{drawn}<p class="tb-small tb-num">Very probably {words}.</p>')


def _agreement(result: "StudyResult") -> str:
    several = [one for one in result.agreements if one.units]
    if not several:
        words = "No pair was judged by two reviewers yet, so their agreement cannot be said."
        return f'<p class="tb-muted">{words}</p>'
    rows = []
    for one in several:
        spread = ""
        if one.nominal is not None and one.low is not None and one.high is not None:
            words = f"between {one.low:.2f} and {one.high:.2f}"
            drawn = interval_bar(one.nominal, one.low, one.high, f"{one.criterion}: {one.nominal:.2f}, {words}", (-0.5, 1.0), middle=0.0)
            spread = f'{drawn}<span class="tb-small tb-muted">{words}</span>'
        title = "Which is better" if one.criterion == "vote" else one.criterion
        rows.append([f'<b dir="auto">{escape(title)}</b>', _alpha(one.nominal), spread or "—", _alpha(one.ordinal), str(one.units)])
    head = ["Question", "Agreement", "Range", "Ties as halfway", "Pairs"]
    note = "“Ties as halfway” takes left against a tie for a smaller difference than left against right. Both are Krippendorff's alpha."
    return flow(
        f'<div class="tb-h2"><h3>Do reviewers agree with each other?</h3><p>{WHAT_IS_AGREEMENT}</p></div>',
        table(head, rows, "Agreement between reviewers", numeric=(1, 3, 4)),
        f'<p class="tb-muted tb-small">{note}</p>',
    )


def _alpha(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def _people(names: tuple[str, ...], named: bool) -> str:
    return ", ".join(f"<bdi>{escape(name)}</bdi>" for name in names) if named else count(len(names), "reviewer")


def _counted(result: "StudyResult", named: bool) -> str:
    """Whose votes and which pairs are in the numbers, and which are not."""
    lines = []
    if result.aside:
        votes = count(result.aside_votes, "vote")
        until = f"; those of {_people(result.undecided, named)} until an admin decides" if result.undecided else ", as an admin decided"
        lines.append(f"Votes of {_people(result.aside, named)} are aside ({votes}): they are in no number{until}.")
    if result.flips:
        who = _people(result.flips, named) if named else "one of the reviewers"
        lines.append(f"Without {who} the verdict would be another: let more people judge before you rely on it.")
    if result.disagreements:
        open_ones = result.disagreements - result.adjudicated
        lines.append(
            f"Reviewers differ on {count(result.disagreements, 'pair')}; a lead decided {result.adjudicated}"
            + (f", {open_ones} are open." if open_ones > 0 else ".")
        )
    if result.adjudicated and result.adjudicated_rate is not None:
        rate, given = result.adjudicated_rate, result.arm(result.best)
        as_given = f"{percent((given.versus or given.win_rate).value)} by the votes as given, " if given else ""
        lines.append(
            f"Win rate of <b dir='auto'>{escape(result.best)}</b>: {as_given}<b>{percent(rate.value)}</b> "
            f"({between(rate.low, rate.high)}) with those pairs as the lead decided. The verdict rests on the votes as given."
        )
    if result.identical:
        lines.append(f"{count(result.identical, 'pair')} of equal answers needed no vote.")
    if result.marked:
        lines.append(f"{count(result.marked, 'vote')} kept apart, since an answer named a model or its maker.")
    if result.voided:
        lines.append(f"{count(result.voided, 'vote')} on answers that were withdrawn later.")
    if not lines:
        return ""
    shown = "".join(f"<li>{line}</li>" for line in lines)
    return (
        '<section class="tb-card" aria-labelledby="trust-counted"><h3 id="trust-counted">Whose votes are in it</h3>'
        f'<ul class="tb-rule">{shown}</ul></section>'
    )
