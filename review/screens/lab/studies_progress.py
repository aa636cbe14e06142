"""How a study goes: votes of what is needed, each reviewer, each tag, what was skipped and why; whose votes count.

Must not know what the votes say.
"""

from typing import TYPE_CHECKING

from review.screens.evidence import flow
from review.screens.parts import badge, count, empty_state, escape, minutes, progress_bar, table, when

if TYPE_CHECKING:
    from review.services.study_views import ReviewerProgress, StudyProgress, StudyView

SHOWN_SKIPS = 50


def declared_html(study: "StudyView") -> str:
    """What the study fixed, folded away: it is asked for seldom, and never changes."""
    rule = study.rule
    asked = [f"win rate from {rule.min_win_rate:.0%}", f"both bad in at most {rule.max_both_bad:.0%}",
             f"{count(rule.min_votes, 'vote')} and {count(rule.min_reviewers, 'reviewer')} at least",
             f"evidence {rule.e_value:g}", *(["clearly worse on no tag"] if rule.no_worse_tag else [])]  # fmt: skip
    facts = [
        ("Prompts", f"{study.set_name}, {study.split}" + (f", only with the tag {' or '.join(study.tags)}" if study.tags else "")),
        ("Compared", f"{', '.join(arm for arm in study.arms if arm != study.against)} against {study.against}"),
        ("Reviewers", (", ".join(study.reviewers) or "everybody") + f"; {study.votes_per_pair} for each pair"),
        ("Criteria", (", ".join(study.criteria) or "none") + (" (1 to 5 points each)" if study.scale == "points" else "")),
        ("Reasons", ", ".join(study.reasons) or "none"),
        ("Reviewing is checked", "yes" if study.checks else "no"),
        ("Reviewers learn who was who", "after each vote" if study.reveal == "after_vote" else "after the study is closed"),
        ("Ships when", "; ".join(asked)),
        ("Opened, closed", " to ".join(filter(None, (when(study.opened_at), when(study.closed_at)))) or "not yet"),
    ]
    rows = [[escape(name), f'<span dir="auto">{escape(value)}</span>'] for name, value in facts]
    body = table(["Setting", "Value"], rows, f"What {study.name} declared")
    return f'<details class="tb-more"><summary>What it declared</summary>{body}</details>'


def progress_html(study: "StudyView", told: "StudyProgress") -> str:
    """Everything the lead wants to see while votes come in. It says nothing about who is ahead."""
    left = max(0, told.needed - told.votes)
    time = f", {minutes(left * told.seconds)} of reviewing" if left and told.seconds else ""
    facts = [f"{count(left, 'vote')} left{time}." if left else "All votes are in."]
    facts += [f"A vote usually takes {told.seconds:.0f} s." if told.seconds else ""]
    if told.agreement is not None:
        facts.append(f"Agreement between reviewers so far: {told.agreement:.2f} (1: always, 0: no more than chance).")
    facts += [f"{count(told.identical, 'pair')} of equal answers will not be shown." if told.identical else ""]
    bar = progress_bar(told.votes, told.needed, f"{told.votes} of {told.needed} votes", label=f"Votes in {study.name}")
    said = f'<p class="tb-muted">{escape(" ".join(filter(None, facts)))}</p>'
    return flow(bar, said, reviewers_html(told), tags_html(told), skips_html(told), declared_html(study))


def reviewers_html(told: "StudyProgress") -> str:
    if not told.reviewers:
        return empty_state("Nobody has judged a pair of this study yet.", "Reviewers find it under Review once it is open.")
    rows = [
        [
            f'<span dir="auto">{escape(one.name)}</span>', standing(one), str(one.votes), f"{one.seconds:.0f} s",
            _share(one.alike, one.compared), _share(one.repeated_alike, one.repeats), _share(one.plain_right, one.plain),
            str(one.skipped), _doubts(one),
        ]
        for one in told.reviewers
    ]  # fmt: skip
    head = ["Reviewer", "Standing", "Votes", "Usual time", "As others", "Same again", "Plain pairs right", "Skipped", "Look again because"]
    return table(head, rows, f"Reviewers of {told.name}", numeric=(2, 3, 4, 5, 6, 7))


def standing(one: "ReviewerProgress") -> str:
    """Whether somebody's votes count, and who said so."""
    if one.decision:
        return badge("counted, as decided", "good") if not one.aside else badge("aside, as decided", "bad")
    return badge("aside until decided", "warn") if one.aside else badge("counted")


def _doubts(one: "ReviewerProgress") -> str:
    words = "; ".join(one.doubts)
    decided = f'<br><span class="tb-muted tb-small">Decided: {escape(one.reason)}</span>' if one.decision and one.reason else ""
    return (escape(words[:1].upper() + words[1:]) or "—") + decided


def _share(hits: int, of: int) -> str:
    return f"{hits} of {of}" if of else "—"


def tags_html(told: "StudyProgress") -> str:
    if not told.tags:
        return ""
    rows = [
        [f'<span dir="auto">{escape(one.tag)}</span>',
         progress_bar(one.votes, one.needed, f"{one.votes} of {one.needed} votes", label=f"Votes on {one.tag}")]
        for one in told.tags
    ]  # fmt: skip
    return f'<div class="tb-h2"><h3>Tag by tag</h3></div>{table(["Tag", "Progress"], rows, f"Votes in {told.name} by tag")}'


def skips_html(told: "StudyProgress") -> str:
    if not told.skipped:
        return ""
    rows = [
        [f'<span dir="auto">{escape(one.reason)}</span>', f'<pre class="tb-plain tb-cell" dir="auto">{escape(one.prompt)}</pre>',
         f'<span dir="auto">{escape(one.reviewer)}</span>', escape(when(one.at))]
        for one in told.skipped[:SHOWN_SKIPS]
    ]  # fmt: skip
    shown = table(["Why", "The pair's prompt", "Reviewer", "When"], rows, f"Pairs skipped in {told.name}")
    return f'<details class="tb-more"><summary>{count(len(told.skipped), "pair")} skipped, and why</summary>{shown}</details>'
