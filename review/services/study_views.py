"""What is told about a study: its declaration, how far it is, what its votes say. Data only.

Must not know the database, screens or models.
"""

from dataclasses import dataclass

from review.protocol.agreement import Agreement
from review.protocol.blinding_index import Blinding
from review.protocol.ranking import Strength, WinRate
from review.protocol.shares import Share, Side
from review.protocol.tags import TagResult
from review.protocol.verdict import Condition, Rule, Verdict


@dataclass(frozen=True, slots=True)
class StudyView:
    """`tags`: only prompts with one of them; `reviewers`: only they may judge; both empty: all. `tuned`: the arms of adapters."""

    id: int
    name: str
    state: str
    set_name: str
    split: str
    arms: tuple[str, ...]
    against: str
    votes_per_pair: int
    criteria: tuple[str, ...]
    reasons: tuple[str, ...]
    rule: Rule
    reveal: str
    created_at: float
    opened_at: float | None
    closed_at: float | None
    tags: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    scale: str = "sides"
    checks: bool = True
    tuned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewerProgress:
    """`votes`: all of them, repeats and plain pairs too; `seconds`: the median from served to vote; `doubts`: why to look at these votes
    again, in words. `aside`: their votes are in no number; `decision`: "counted" or "aside" where somebody decided, with `reason`.
    `alike`: how many of the `compared` votes that others gave on the same pairs say the same."""

    name: str
    votes: int
    seconds: float
    doubts: tuple[str, ...]
    aside: bool = False
    decision: str = ""
    reason: str = ""
    repeats: int = 0
    repeated_alike: int = 0
    plain: int = 0
    plain_right: int = 0
    skipped: int = 0
    last_at: float | None = None
    compared: int = 0
    alike: int = 0


@dataclass(frozen=True, slots=True)
class TagProgress:
    """`votes` of `needed` on the pairs of prompts with this tag; a prompt with several tags is in each."""

    tag: str
    pairs: int
    votes: int
    needed: int


@dataclass(frozen=True, slots=True)
class SkippedPair:
    reviewer: str
    prompt: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """`votes` of `needed` pairs-times-reviewers have been given; `identical` pairs are not voted on. `agreement`: Krippendorff's alpha so
    far; `seconds`: the median vote's."""

    name: str
    state: str
    votes: int
    needed: int
    pairs: int
    identical: int
    reviewers: tuple[ReviewerProgress, ...]
    tags: tuple[TagProgress, ...] = ()
    agreement: float | None = None
    skipped: tuple[SkippedPair, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm against all others (`win_rate`) and against the arm to beat (`versus`, `verdict`; the arm to beat has none)."""

    arm: str
    kind: str
    title: str
    votes: int
    win_rate: WinRate
    strength: Strength | None
    versus: WinRate | None
    verdict: Verdict | None
    e_value: float


@dataclass(frozen=True, slots=True)
class StudyResult:
    """`best` is the arm the verdict speaks of. `marked` and `voided` votes are kept out of every number, as are those of the reviewers
    `aside`, of whom `undecided` are only in doubt so far; `flips` names reviewers without whom the verdict would be another;
    `agreement` is Krippendorff's alpha, None without pairs that several reviewers judged, and `agreements` tells it for the vote and
    each criterion with intervals. `tags`: `best` against the arm to beat, tag by tag. `adjudicated_rate`: the win rate of `best` with
    `adjudicated` pairs counted as decided; the verdict rests on the votes as given. `conditions`: the rule, setting by setting, and
    whether each is met."""

    study: StudyView
    arms: tuple[ArmResult, ...]
    best: str
    verdict: Verdict
    e_value: float
    votes: int
    both_bad_share: float
    identical: int
    marked: int
    voided: int
    agreement: float | None
    flips: tuple[str, ...]
    method: str
    tags: tuple[TagResult, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    blinding: Blinding | None = None
    consistency: Share | None = None
    side: Side | None = None
    aside: tuple[str, ...] = ()
    aside_votes: int = 0
    undecided: tuple[str, ...] = ()
    disagreements: int = 0
    adjudicated: int = 0
    adjudicated_rate: WinRate | None = None
    conditions: tuple[Condition, ...] = ()

    def arm(self, name: str) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.arm == name), None)


@dataclass(frozen=True, slots=True)
class DisputedVote:
    """What one reviewer said, in terms of the answers as shown: first, second, tie or both_bad. `number` stands for the reviewer."""

    number: int
    choice: str
    reasons: tuple[str, ...]
    comment: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair that reviewers judged differently, for somebody who decides without knowing whose answer is whose. `first_answer` and
    `second_answer` are what `Studies.adjudicate` wants back; which arm stands first is drawn anew for each pair. `decided`: the newest
    decision in the same terms, or ""."""

    id: str
    prompt_id: int
    prompt: str
    first: str
    second: str
    first_answer: int
    second_answer: int
    votes: tuple[DisputedVote, ...]
    decided: str
    reason: str
