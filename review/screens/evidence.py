"""What a study found, as HTML: the verdict and the rule behind it, win rates, tag by tag.

Written for somebody who knows none of the measures: each is explained in one sentence. Must not know how anything is computed.
"""

from typing import TYPE_CHECKING

from review.screens.drawing import interval_bar
from review.screens.parts import badge, count, empty_state, escape, table

if TYPE_CHECKING:
    from review.services.study_views import ArmResult, StudyResult

TONES = {"ship": "good", "hold": "bad", "more": "warn"}
HEADLINES = {"ship": "Ship", "hold": "Hold", "more": "Not yet"}
NO_STUDY = empty_state("No study has been opened on these prompts yet.", "An engineer declares one in the lab, under Studies.")
WHAT_IS_A_WIN = (
    "Win rate: how often reviewers, not knowing which was which, preferred this answer. A tie counts half; 50 % means no difference. "
    "The bar is the range the true rate very probably lies in."
)
WHAT_IS_A_TAG = (
    "The same comparison on the prompts of each tag. A good average can hide a subject on which customers would be served worse."
)


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def flow(*sections: str) -> str:
    """Sections one below the other, evenly spaced; empty ones take no room."""
    return f'<div class="tb-flow">{"".join(sections)}</div>' if any(sections) else ""


def between(low: float, high: float) -> str:
    return f"between {percent(low)} and {percent(high)}"


def verdict_html(result: "StudyResult | None") -> str:
    """The answer to "may it ship?", on top of everything, with the rule it rests on."""
    if result is None:
        return NO_STUDY
    kind, study = result.verdict.kind, result.study
    told = count(result.votes, "vote") + (f", both answers bad in {percent(result.both_bad_share)}" if result.votes else "")
    who = f'<b dir="auto">{escape(result.best)}</b> against <b dir="auto">{escape(study.against)}</b>'
    return (
        f'<section class="tb-card tb-verdict tb-verdict-{escape(kind)}" aria-labelledby="verdict-title">'
        f'<h2 id="verdict-title">{badge(HEADLINES.get(kind, kind), TONES.get(kind, "plain"))} {who}</h2>'
        f'<p class="tb-verdict-words">{escape(result.verdict.words)}</p>'
        f'<p class="tb-muted">Study <span dir="auto">{escape(study.name)}</span> ({escape(study.state)}): {told}.</p>'
        f"{_conditions(result)}</section>"
    )


def _conditions(result: "StudyResult") -> str:
    if not result.conditions:
        return ""
    lines = "".join(
        f'<li><span class="tb-{"good" if one.met else "warn"}-ink">{"✓ met" if one.met else "○ not met"}</span> {escape(one.words)}</li>'
        for one in result.conditions
    )
    return (
        '<details class="tb-more"><summary>Why: the rule, fixed before the first vote, point by point</summary>'
        f'<ul class="tb-rule">{lines}</ul></details>'
    )


def human_html(result: "StudyResult | None") -> str:
    """Every arm's win rate."""
    if result is None or not result.votes:
        return empty_state("No votes yet.", "They appear here as reviewers judge pairs.")
    rows = [_human_row(arm) for arm in result.arms]
    method = f'<details class="tb-more"><summary>How this is computed</summary><p class="tb-small">{escape(result.method)}</p></details>'
    shown = table(["Arm", "Win rate", "Range", "Won · lost · tie", "Both bad", "Votes"], rows, "Blind votes", numeric=(1, 4, 5))
    return flow(f"<p class='tb-muted'>{WHAT_IS_A_WIN}</p>", shown, method)


def _human_row(arm: "ArmResult") -> list[str]:
    rate = arm.win_rate
    words = between(rate.low, rate.high)
    bar = interval_bar(rate.value, rate.low, rate.high, f"{arm.arm}: {percent(rate.value)}, {words}", middle=0.5)
    return [
        arm_cell(arm.arm, arm.title),
        f"<b>{percent(rate.value)}</b>" if rate.votes else "—",
        f'{bar}<span class="tb-small tb-muted">{words}</span>',
        f"{rate.wins} · {rate.losses} · {rate.ties}", str(rate.both_bad), str(rate.votes),
    ]  # fmt: skip


def arm_cell(name: str, title: str) -> str:
    more = f'<br><span class="tb-muted tb-small" dir="auto">{escape(title)}</span>' if title and title != name else ""
    return f'<b dir="auto">{escape(name)}</b>{more}'


def tags_html(result: "StudyResult | None") -> str:
    """Tag by tag, the worse ones first; nothing where the prompts have no tags."""
    if result is None or not result.tags:
        return ""
    rows = []
    for one in sorted(result.tags, key=lambda one: (not one.worse, one.too_few, one.win_rate.value)):
        rate, words = one.win_rate, between(one.win_rate.low, one.win_rate.high)
        bar = interval_bar(rate.value, rate.low, rate.high, f"{one.tag}: {percent(rate.value)}, {words}", middle=0.5)
        rows.append([
            f'<b dir="auto">{escape(one.tag)}</b>', badge(one.words, "bad" if one.worse else "plain"), f"<b>{percent(rate.value)}</b>",
            f'{bar}<span class="tb-small tb-muted">{words}</span>', str(one.votes),
        ])  # fmt: skip
    who = f"{result.best} against {result.study.against}, tag by tag"
    return (
        f'<div class="tb-h2"><h2>Subject by subject</h2><p>{WHAT_IS_A_TAG}</p></div>'
        f"{table(['Tag', 'In words', 'Win rate', 'Range', 'Votes'], rows, who, numeric=(2, 4))}"
    )
