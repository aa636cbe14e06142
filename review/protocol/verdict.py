"""The decision rule in, the verdict out, in plain words: Ship, Hold, or not enough votes yet (about N more).

Pure. Must not know the database, the models or the screens.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from review.protocol.ranking import WinRate, log_e_value
from review.protocol.spread import MOST, Spread

Kind = Literal["ship", "hold", "more"]
FAR = 5_000  # votes; beyond this the arms are as good as equal


@dataclass(frozen=True, slots=True)
class Rule:
    """Fixed before the first vote. Shares are 0..1; `e_value` is the evidence asked for (20: wrong at most once in 20 equal arms).

    `no_worse_tag`: hold where the arm is clearly worse on the prompts of any one tag, however good it is on the others.
    """

    min_win_rate: float = 0.55
    max_both_bad: float = 0.3
    min_votes: int = 20
    min_reviewers: int = 1
    e_value: float = 20.0
    no_worse_tag: bool = True

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Raises ValueError for unknown names."""
        unknown = sorted(set(raw) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown rule setting {', '.join(unknown)}. Known: {', '.join(f.name for f in fields(cls))}.")
        return cls(**raw)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def problems(self) -> list[str]:
        """Everything wrong at once, each a sentence naming the setting, its value and what would do."""
        checks = [
            (_number(self.min_win_rate, 0.5, 0.99), f"min_win_rate is {self.min_win_rate}: choose 0.5 to 0.99."),
            (_number(self.max_both_bad, 0, 1), f"max_both_bad is {self.max_both_bad}: choose 0 to 1."),
            (_whole(self.min_votes), f"min_votes is {self.min_votes}: choose 1 or more."),
            (_whole(self.min_reviewers), f"min_reviewers is {self.min_reviewers}: choose 1 or more."),
            (_number(self.e_value, 1, 1e6), f"e_value is {self.e_value}: choose 1 to 1000000 (20 is usual)."),
            (isinstance(self.no_worse_tag, bool), f"no_worse_tag is {self.no_worse_tag}: choose true or false."),
        ]
        return [message for good, message in checks if not good]


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**6


@dataclass(frozen=True, slots=True)
class Verdict:
    """`votes_needed` is about how many more votes would settle it: 0 when settled."""

    kind: Kind
    words: str
    votes_needed: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """One setting of the rule as it stands: `met`, and in words what was asked for and what is."""

    setting: str
    met: bool
    words: str


def decide(
    rule: Rule, rate: WinRate, wins: int, decisive: int, worse: Mapping[str, float] | None = None, spread: Spread | None = None
) -> Verdict:
    """The verdict on one arm against the arm it should beat; `wins` of `decisive` as `ranking.first_decisive` counts them, `worse`: tags
    on which it is clearly worse, with its win rate there. The evidence is about the prompts; where reviewers are divided, beyond chance
    and so far that the win rate's interval holds one half, it does not ship: another reviewer may well prefer the others."""
    spread = spread or Spread()
    short = max(rule.min_votes - rate.votes, 0)
    if not rate.votes:
        return Verdict("more", f"No votes yet: {_votes(rule.min_votes)} needed at least.", rule.min_votes)
    if short or rate.reviewers < rule.min_reviewers:
        return _short(rule, rate, short)
    proven = log_e_value(wins, decisive) >= math.log(rule.e_value)
    if proven and 2 * wins < decisive:
        return _worse(rate, spread)
    if rate.both_bad_share > rule.max_both_bad:
        return _too_bad(rule, rate)
    if worse and rule.no_worse_tag:
        where = ", ".join(f"“{tag}” ({_percent(share)})" for tag, share in sorted(worse.items(), key=lambda item: item[1]))
        return Verdict("hold", f"Hold: it wins {_percent(rate.value)} of the votes, but is clearly worse on {where}.")
    if proven and rate.value >= rule.min_win_rate:
        return _divided(rate, spread) if spread.divided and rate.low <= 0.5 else _better(rate, spread)
    if proven and rate.high < rule.min_win_rate:
        return Verdict(
            "hold", f"Hold: better, but {_percent(rate.value)} is less than the {_percent(rule.min_win_rate)} that was asked for."
        )
    return _undecided(rule, rate, wins, decisive, proven)


def conditions(
    rule: Rule, rate: WinRate, wins: int, decisive: int, worse: Mapping[str, float] | None = None, spread: Spread | None = None
) -> tuple[Condition, ...]:
    """The rule, setting by setting, for somebody who asks why; and whether reviewers are divided, where several judged enough."""
    evidence = math.exp(min(log_e_value(wins, decisive), 700.0))
    ahead = 2 * wins > decisive
    found = [
        Condition("min_votes", rate.votes >= rule.min_votes, f"{rate.votes} votes; at least {rule.min_votes} asked for."),
        Condition("min_reviewers", rate.reviewers >= rule.min_reviewers, f"{rate.reviewers} reviewers; at least {rule.min_reviewers}."),
        Condition("min_win_rate", rate.votes > 0 and rate.value >= rule.min_win_rate,
                  f"It wins {_percent(rate.value)}; at least {_percent(rule.min_win_rate)} asked for."),
        Condition("max_both_bad", rate.both_bad_share <= rule.max_both_bad,
                  f"Both answers bad in {_percent(rate.both_bad_share)}; at most {_percent(rule.max_both_bad)} allowed."),
        Condition("e_value", ahead and evidence >= rule.e_value,
                  f"Evidence {_amount(evidence)} that it is {'better' if ahead else 'different'}; {rule.e_value:.0f} asked for."),
    ]  # fmt: skip
    if rule.no_worse_tag:
        where = f"Clearly worse on {', '.join(sorted(worse))}." if worse else "Clearly worse on no tag."
        found.append(Condition("no_worse_tag", not worse, where))
    if spread and spread.reviewers > 1:
        found.append(Condition("reviewers", not (spread.divided and rate.low <= 0.5), _reviewers(spread)))
    return tuple(found)


def _reviewers(spread: Spread) -> str:
    told = f"It wins {_between(spread)} of a reviewer's votes, depending on whom one asks"
    if not spread.differ:
        return f"{told}: no more apart than by chance."
    return f"{told}: reviewers are divided." if spread.divided else f"{told}: more apart than by chance, but all lean the same way."


def _between(spread: Spread) -> str:
    return f"{_percent(spread.lowest)} to {_percent(spread.highest)}"


def _better(rate: WinRate, spread: Spread) -> Verdict:
    """What is sure of these reviewers may be open for others: that is said where the interval holds one half."""
    asked = "one reviewer" if rate.reviewers == 1 else f"these {rate.reviewers} reviewers"
    votes = "one reviewer's votes" if rate.reviewers == 1 else "the votes"
    words = f"Ship: it wins {_percent(rate.value)} of {votes}, and that is very unlikely to be chance"
    if rate.low > 0.5:
        return Verdict("ship", f"{words}.")
    differ = f" They differ among themselves ({_between(spread)})." if spread.differ else ""
    others = f"how others would judge is open, anything between {_percent(rate.low)} and {_percent(rate.high)}"
    return Verdict("ship", f"{words} for {asked}; {others}.{differ}")


def _worse(rate: WinRate, spread: Spread) -> Verdict:
    shares = f"{_percent(1 - rate.value)} against {_percent(rate.value)}"
    if spread.divided and rate.high >= 0.5:
        return Verdict("hold", f"Hold: most votes prefer the other answers ({shares}), though reviewers are divided ({_between(spread)}).")
    return Verdict("hold", f"Hold: reviewers prefer the other answers ({shares}).")


def _divided(rate: WinRate, spread: Spread) -> Verdict:
    """More votes of the same people would not help."""
    why = f"it wins {_percent(rate.value)}, but reviewers are divided: {_between(spread)}, depending on whom one asks"
    if not spread.more:
        needed = _round(math.ceil(MOST * rate.votes / rate.reviewers))
        return Verdict("more", f"Not enough votes yet (more than {MOST} more reviewers): {why}. Agree first on what is better.", needed)
    people = f"{spread.more} more {'reviewer' if spread.more == 1 else 'reviewers'}"
    needed = _round(math.ceil(spread.more * rate.votes / rate.reviewers))
    return Verdict("more", f"Not enough votes yet (about {needed} more, by {people}): {why}.", needed)


def _amount(evidence: float) -> str:
    return f"{evidence:.1f}" if evidence < 100 else f"{evidence:.0f}" if evidence < 1e6 else "beyond a million"


def _short(rule: Rule, rate: WinRate, short: int) -> Verdict:
    people = rule.min_reviewers - rate.reviewers
    needed = max(short, 1)
    asked = [f"about {needed} more"] if short else []
    if people > 0:
        asked.append(f"{people} more {'reviewer' if people == 1 else 'reviewers'}")
    return Verdict("more", f"Not enough votes yet ({' and '.join(asked)}).", needed)


def _too_bad(rule: Rule, rate: WinRate) -> Verdict:
    """Holds once the share is above the limit beyond chance (one-sided 95 % by prompts)."""
    limit, share, n = rule.max_both_bad, rate.both_bad_share, max(rate.prompts, 1)
    if share - 1.645 * math.sqrt(max(share * (1 - share), 0.0) / n) > limit:
        return Verdict("hold", f"Hold: both answers were bad in {_percent(share)} of the votes, more than the {_percent(limit)} allowed.")
    needed = math.ceil(2.7 * share * (1 - share) / max(share - limit, 0.01) ** 2) - rate.votes
    return _more("both answers are often bad, and it is not yet clear how often", max(needed, 1))


def _undecided(rule: Rule, rate: WinRate, wins: int, decisive: int, proven: bool) -> Verdict:
    if proven:
        gap = max(rule.min_win_rate - rate.value, 0.01)
        return _more(
            "better, but not yet clear by how much", max(math.ceil(rate.votes * ((rate.high - rate.value) / gap) ** 2) - rate.votes, 1)
        )
    return _more("the difference could still be chance", _votes_to_evidence(rule, rate, wins, decisive))


def _votes_to_evidence(rule: Rule, rate: WinRate, wins: int, decisive: int) -> int:
    """Votes until the evidence suffices if the rest goes like the votes so far, of which some are ties or fall on known prompts."""
    share = (wins + 1) / (decisive + 2)
    needed, target = decisive + 1, math.log(rule.e_value)
    while needed < FAR and log_e_value(share * needed, needed) < target:
        needed += max(1, needed // 50)
    if needed >= FAR:
        return FAR
    return max(1, math.ceil((needed - decisive) * rate.votes / max(decisive, 1)))


def _more(why: str, needed: int) -> Verdict:
    if needed >= FAR:
        return Verdict("more", "Not enough votes yet: so far the two are about equal, and thousands more would be needed to tell.", needed)
    return Verdict("more", f"Not enough votes yet (about {_round(needed)} more): {why}.", _round(needed))


def _round(votes: int) -> int:
    step = 1 if votes < 20 else 5 if votes < 100 else 10 if votes < 1000 else 100
    return math.ceil(votes / step) * step


def _votes(count: int) -> str:
    return f"{count} {'vote' if count == 1 else 'votes'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
