"""A whole study file (docs/exchange.md): read, its lines checked against each other, and its result computed from the file alone.

Must not know the database, screens or models.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft.errors import BadInput
from review.protocol.blinding import shown_text
from review.protocol.records import VoteRecord
from review.protocol.verdict import Rule
from review.services.declaring import word_problems
from review.services.strict_csv import read_text
from review.services.study_checks import (
    Answers,
    Cast,
    arm_to_beat_first,
    check_arms,
    check_prompts,
    check_reviewers,
    check_times,
    identical_pairs,
    overlap,
    resolved,
    rule_of,
)
from review.services.study_lines import (
    FORMAT,
    VERSION,
    AnswerLine,
    AnyLine,
    ArmLine,
    Header,
    PromptLine,
    VoteLine,
    read_line,
    wrong,
)

MAX_BYTES = 200_000_000
IDENTICAL = "identical answers"  # why a vote on two equal texts stays out of the primary result


@dataclass(frozen=True, slots=True)
class StudyFile:
    """Checked: every name is known, no vote is there twice, `votes` are in the order cast, `arms` begins with the arm to beat.
    `shown`: each answer as a reviewer reads it; `identical`: live answers of two arms that read the same."""

    header: Header
    rule: Rule
    arms: tuple[ArmLine, ...]
    prompts: tuple[PromptLine, ...]
    answers: tuple[AnswerLine, ...]
    shown: tuple[str, ...]
    votes: tuple[Cast, ...]
    identical: tuple[tuple[int, int], ...]
    reviewers: tuple[str, ...]
    votes_per_pair: int

    @property
    def against(self) -> str:
        return self.arms[0].name

    def is_identical(self, cast: Cast) -> bool:
        """Both answers read the same, so the vote says nothing about the arms."""
        return self.shown[cast.left] == self.shown[cast.right]

    def marked(self, cast: Cast) -> str:
        """Why a vote stays out of the primary result; "" where it does not."""
        return cast.vote.marked or (IDENTICAL if self.is_identical(cast) else "")


def read(path: Path) -> StudyFile:
    """Raises BadInput with the line and what is wrong there, NotFound, Unavailable."""
    by_kind: dict[type, list[Any]] = defaultdict(list)
    for number, raw in enumerate(read_text(path, MAX_BYTES).split("\n"), start=1):
        if raw.strip():
            line = read_line(number, raw)
            _check_order(line, path, first=not by_kind)
            by_kind[type(line)].append(line)
    if not by_kind:
        raise BadInput(f"{path.name} is empty. A study file begins with a study line; see docs/exchange.md.")
    (header,) = by_kind[Header]
    return _together(header, by_kind[ArmLine], by_kind[PromptLine], by_kind[AnswerLine], by_kind[VoteLine])


def records(study: StudyFile) -> list[VoteRecord]:
    """The votes as the pure rules count them, in the order cast."""
    prompts = {prompt.id: at for at, prompt in enumerate(study.prompts)}
    people = {name: at for at, name in enumerate(study.reviewers)}
    lengths = [len(prompt.instruction) + len(prompt.input) for prompt in study.prompts]
    return [
        VoteRecord(
            assignment="\0".join(map(str, cast.place)),
            revision=cast.vote.revision,
            pair=f"{cast.place[1]}-{cast.place[2]}",
            prompt=prompts[cast.vote.prompt],
            reviewer=people[cast.vote.reviewer],
            left_arm=cast.vote.left,
            right_arm=cast.vote.right,
            choice=cast.vote.choice,
            kind=cast.vote.kind,
            marked=bool(study.marked(cast)),
            voided=bool(study.answers[cast.left].voided or study.answers[cast.right].voided),
            seconds=cast.vote.seconds,
            characters=lengths[prompts[cast.vote.prompt]] + sum(len(study.answers[side].text) for side in (cast.left, cast.right)),
        )
        for cast in study.votes
    ]


def _check_order(line: AnyLine, path: Path, first: bool) -> None:
    if isinstance(line, Header) != first:
        raise wrong(
            line.line, "the study line comes first, and once." if first else "there is a second study line; a file holds one study."
        )
    if isinstance(line, Header) and (line.format, line.version) != (FORMAT, VERSION):
        raise wrong(line.line, f"{path.name} is not a “{FORMAT}” file of version {VERSION}; see docs/exchange.md.")


def _together(
    header: Header, arms: list[ArmLine], prompts: list[PromptLine], answers: list[AnswerLine], votes: list[VoteLine]
) -> StudyFile:
    check_times(header)
    check_arms(header, arms)
    arms = arm_to_beat_first(header, arms)
    check_prompts(prompts)
    places = Answers({arm.name for arm in arms}, {prompt.id for prompt in prompts}, answers)
    if not answers:
        raise wrong(header.line, "this study has no answers; a study is about answers, so each arm needs its own.")
    found = resolved(header, votes, places)
    reviewers = tuple(dict.fromkeys((*header.reviewers, *(cast.vote.reviewer for cast in found))))
    check_reviewers(header, reviewers, found)
    shown = tuple(shown_text(answer.text) for answer in answers)
    study = StudyFile(
        header=header, rule=rule_of(header), arms=tuple(arms), prompts=tuple(prompts), answers=tuple(answers), shown=shown,
        votes=tuple(found),
        identical=tuple(identical_pairs(answers, shown)), reviewers=reviewers, votes_per_pair=header.votes_per_pair or overlap(found),
    )  # fmt: skip
    problems = word_problems(header.name.strip(), [arm.name for arm in arms], header.split, study.votes_per_pair, header.reveal, "sides",
                             header.criteria, header.reasons)  # fmt: skip
    if problems:
        raise wrong(header.line, " ".join(problems))
    return study
