"""What is told about a study: its declaration, how far it is, what its votes say. Data only.

Must not know the database, screens or models.
"""

from dataclasses import dataclass

from review.protocol.ranking import Strength, WinRate
from review.protocol.verdict import Rule, Verdict


@dataclass(frozen=True, slots=True)
class StudyView:
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


@dataclass(frozen=True, slots=True)
class ReviewerProgress:
    """`seconds` is the median from served to vote; `doubts` are reasons in words to look at these votes again."""

    name: str
    votes: int
    seconds: float
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """`votes` of `needed` pairs-times-reviewers have been given; `identical` pairs are not voted on."""

    name: str
    state: str
    votes: int
    needed: int
    pairs: int
    identical: int
    reviewers: tuple[ReviewerProgress, ...]


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
    """`best` is the arm the verdict speaks of. `marked` and `voided` votes are kept out of every number; `flips` names reviewers
    without whom the verdict would be another; `agreement` is Krippendorff's alpha, None without pairs that several reviewers judged."""

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

    def arm(self, name: str) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.arm == name), None)
