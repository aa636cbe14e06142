"""A whole study file (docs/exchange.md): read, its lines checked against each other, and its result computed from the file alone.

Must not know the database, screens or models.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ft.errors import BadInput
from review.protocol.blinding import shown_text
from review.protocol.records import Beside, VoteRecord
from review.protocol.verdict import Rule
from review.services import study_checks as checks
from review.services.csv_columns import read_text
from review.services.declaring import word_problems
from review.services.study_checks import Answers, Cast, Skipped
from review.services.study_lines import (
    DOUBTED,
    FORMAT,
    VERSION,
    AdjudicationLine,
    AnswerLine,
    AnyLine,
    ArmLine,
    DecisionLine,
    Header,
    PromptLine,
    SkipLine,
    VoteLine,
    read_line,
    wrong,
)
from review.services.study_results import Given, plain_side
from review.services.study_views import StudyView

MAX_BYTES = 200_000_000
IDENTICAL = "identical answers"  # why a vote on two equal texts stays out of the primary result


@dataclass(frozen=True, slots=True)
class StudyFile:
    """Checked: every name is known, no vote is there twice, `votes` are in the order cast, `arms` begins with the arm to beat and ends with
    those that only stand in plain pairs. `shown`: each answer as a reviewer reads it; `identical`: live answers of two arms that read the
    same; `adjudications`: with the places of their answers; `ignored`: fields that are not of the format, as "vote.mood"."""

    header: Header
    rule: Rule
    arms: tuple[ArmLine, ...]
    prompts: tuple[PromptLine, ...]
    answers: tuple[AnswerLine, ...]
    shown: tuple[str, ...]
    votes: tuple[Cast, ...]
    skips: tuple[Skipped, ...]
    identical: tuple[tuple[int, int], ...]
    reviewers: tuple[str, ...]
    votes_per_pair: int
    decisions: tuple[DecisionLine, ...]
    adjudications: tuple[tuple[AdjudicationLine, int, int], ...]
    ignored: tuple[str, ...]

    @property
    def against(self) -> str:
        return self.arms[0].name

    @property
    def compared(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms if arm.compared)

    def is_identical(self, cast: Cast) -> bool:
        """Both answers read the same, so the vote says nothing about the arms."""
        return self.shown[cast.left] == self.shown[cast.right]

    def marked(self, cast: Cast) -> str:
        """Why a vote stays out of the primary result; "" where it does not."""
        return cast.vote.marked or (IDENTICAL if self.is_identical(cast) else "")


def read(path: Path) -> StudyFile:
    """Raises BadInput with the line and what is wrong there, NotFound, Unavailable."""
    by_kind: dict[type, list[Any]] = defaultdict(list)
    ignored: set[str] = set()
    for number, raw in enumerate(_raw_lines(read_text(path, MAX_BYTES)), start=1):
        if raw.strip():
            line = read_line(number, raw, ignored)
            _check_order(line, path, first=not by_kind)
            by_kind[type(line)].append(line)
    if not by_kind:
        raise BadInput(f"{path.name} is empty. A study file begins with a study line; see docs/exchange.md.")
    return _together(by_kind, path, tuple(sorted(ignored)))


def _raw_lines(text: str) -> list[str]:
    """A file that is one JSON list has a line for each of its items."""
    if text.lstrip().startswith("["):
        try:
            return [json.dumps(item, ensure_ascii=False) for item in json.loads(text)]
        except (ValueError, RecursionError):
            pass  # the first line will be refused with its reason
    return text.split("\n")


def given(study: StudyFile) -> Given:
    """What the file's result is made from."""
    header = study.header
    view = StudyView(
        id=0, name=header.name, state=header.state, set_name=header.set, split=header.split, arms=study.compared, against=study.against,
        votes_per_pair=study.votes_per_pair, criteria=header.criteria, reasons=header.reasons, rule=study.rule, reveal=header.reveal,
        created_at=header.created_at or 0.0, opened_at=header.opened_at, closed_at=header.closed_at, tags=header.tags,
        reviewers=header.invited, scale=header.scale, checks=header.checks, tuned=header.tuned,
    )  # fmt: skip
    about = {arm.name: (arm.kind, arm.title) for arm in study.arms}
    return Given(view, about, list(records(study)), beside(study), dict(enumerate(study.reviewers)), len(study.identical))


def records(study: StudyFile) -> Iterator[VoteRecord]:
    """The votes as the pure rules count them, in the order cast."""
    prompts = {prompt.id: at for at, prompt in enumerate(study.prompts)}
    people = {name: at for at, name in enumerate(study.reviewers)}
    for cast in study.votes:
        vote, prompt = cast.vote, study.prompts[prompts[cast.vote.prompt]]
        left, right = study.answers[cast.left], study.answers[cast.right]
        yield VoteRecord(
            assignment=cast.key,
            revision=vote.revision,
            pair=_pair(cast.left, cast.right),
            prompt=prompts[vote.prompt],
            reviewer=people[vote.reviewer],
            left_arm=vote.left,
            right_arm=vote.right,
            choice=vote.choice,
            kind=vote.kind,
            marked=bool(study.marked(cast)),
            voided=bool(left.voided or right.voided),
            seconds=vote.seconds,
            characters=sum(map(len, (prompt.instruction, prompt.input, left.text, right.text))),
            criteria=vote.criteria,
            tags=prompt.tags or (prompt.category,) * bool(prompt.category),
            plain=plain_side(vote.prompt, (left.prompt, left.text), (right.prompt, right.text)) if vote.kind == "gold" else "",
        )


def beside(study: StudyFile) -> Beside:
    """Guesses and decisions of the file."""
    people = {name: at for at, name in enumerate(study.reviewers)}
    return Beside(
        guesses={cast.key: cast.vote.guess for cast in study.votes if cast.vote.guess},
        decisions={people[line.reviewer]: line.counted for line in study.decisions},
        adjudications={_pair(first, second): line.winner for line, first, second in study.adjudications},
        tuned=frozenset(study.header.tuned),
        doubted_aside=study.header.aside == DOUBTED,
    )


def _pair(one: int, other: int) -> str:
    return f"{min(one, other)}-{max(one, other)}"


def _check_order(line: AnyLine, path: Path, first: bool) -> None:
    if isinstance(line, Header) != first:
        raise wrong(
            line.line, "the study line comes first, and once." if first else "there is a second study line; a file holds one study."
        )
    if isinstance(line, Header) and (line.format, line.version) != (FORMAT, VERSION):
        raise wrong(line.line, f"{path.name} is not a “{FORMAT}” file of version {VERSION}; see docs/exchange.md.")


def _together(lines: dict[type, list[Any]], path: Path, ignored: tuple[str, ...]) -> StudyFile:
    votes: list[VoteLine] = lines[VoteLine]
    prompts: list[PromptLine] = lines[PromptLine]
    answers: list[AnswerLine] = lines[AnswerLine]
    header = checks.with_words_of(lines[Header][0], votes)
    header = header if header.name else replace(header, name=path.stem)
    checks.check_header(header)
    arms = checks.arms_of(lines[ArmLine], answers)
    checks.check_arms(header, arms)
    arms = checks.arm_to_beat_first(header, arms)
    checks.check_prompts(prompts)
    prompts.sort(key=lambda prompt: not prompt.compared)
    places = Answers({arm.name for arm in arms}, {prompt.id for prompt in prompts}, answers)
    if not answers:
        raise wrong(header.line, "this study has no answers; a study is about answers, so each arm needs its own.")
    found = checks.resolved(header, votes, places)
    skips = tuple(checks.skipped(lines[SkipLine], found, places))
    people = (*header.reviewers, *header.invited, *(cast.vote.reviewer for cast in found), *(one.skip.reviewer for one in skips))
    reviewers = tuple(dict.fromkeys(people))
    checks.check_reviewers(header, reviewers, found, skips)
    checks.check_decisions(lines[DecisionLine], {cast.vote.reviewer for cast in found})
    shown = tuple(shown_text(answer.text) for answer in answers)
    compared = {arm.name for arm in arms if arm.compared}, {prompt.id for prompt in prompts if prompt.compared}
    study = StudyFile(
        header=header, rule=checks.rule_of(header), arms=tuple(arms), prompts=tuple(prompts), answers=tuple(answers), shown=shown,
        votes=tuple(found), skips=skips, identical=tuple(checks.identical_pairs(answers, shown, *compared)), reviewers=reviewers,
        votes_per_pair=header.votes_per_pair or checks.overlap(found), decisions=tuple(lines[DecisionLine]),
        adjudications=tuple(checks.adjudicated(lines[AdjudicationLine], places)), ignored=ignored,
    )  # fmt: skip
    problems = word_problems(header.name.strip(), study.compared, header.split, study.votes_per_pair, header.reveal, header.scale,
                             header.criteria, header.reasons, header.tags)  # fmt: skip
    if problems:
        raise wrong(header.line, " ".join(problems))
    return study
