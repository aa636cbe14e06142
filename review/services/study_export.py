"""A study of the database as the lines of a study file (docs/exchange.md), all of one moment.

Plain pairs may show answers of other arms, or to other prompts, than the study compares: these go along, marked as not compared. Must not
know screens or models.
"""

from collections.abc import Iterator, Sequence

from sqlmodel import Session

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
)
from review.services.study_reading import ASIDE, key, prompt_ids, rule_of, view
from review.services.study_views import StudyView
from storage.queries import decisions as decided
from storage.queries import exchange as rows
from storage.queries import studies as declared
from storage.queries import votes as cast
from storage.tables import Answer, Assignment, Skip, Study


def lines(session: Session, study: Study) -> Iterator[AnyLine]:
    study_id, told = key(study.id), view(session, study)
    votes, skips = cast.votes(session, study_id), rows.skips(session, study_id)
    people = {vote.reviewer_id for vote in votes} | {skip.reviewer_id for skip, _ in skips}
    reviewers = declared.user_names(session, sorted(people))
    yield _header(study, told, tuple(name for _, name in sorted(reviewers.items())))
    answers = rows.answers(session, study)
    arms = rows.arms(session, sorted({answer.arm_id for answer in answers}), study_id)
    names = {arm.id: arm.name for arm, _ in arms}
    for arm, title in sorted(arms, key=lambda found: found[0].name != told.against):
        yield ArmLine(arm.name, arm.kind, title, arm.system_prompt, dict(arm.decode), arm.name in told.arms)
    wanted = prompt_ids(session, study)
    own = {prompt.id for prompt in rows.prompts(session, study) if wanted is None or prompt.id in wanted}
    seen: list[cast.VoteRow | Assignment] = [*votes, *(given for _, given in skips)]
    shown = {answer for pair in seen for answer in (pair.left_answer_id, pair.right_answer_id)}
    answers = [a for a in answers if a.id in shown or a.prompt_id in own]
    for prompt in rows.prompts_by_id(session, sorted({*map(key, own), *(a.prompt_id for a in answers)})):
        yield PromptLine(
            str(prompt.id), prompt.instruction, prompt.input, prompt.reference, prompt.category, tuple(prompt.tags), tuple(prompt.history),
            prompt.id in own,
        )  # fmt: skip
    named_ids = _named_ids(seen, answers)
    for answer in answers:
        gone = (answer.void_reason or "voided") if answer.voided_at is not None else ""
        yield AnswerLine(str(answer.prompt_id), names[answer.arm_id], answer.text, str(answer.id) if answer.id in named_ids else "", gone)
    yield from _votes(session, study_id, votes, reviewers, named_ids)
    arm_of = {a.id or 0: names[a.arm_id] for a in answers}
    yield from _skips(skips, reviewers, arm_of, named_ids)
    yield from _decisions(session, study_id, reviewers, arm_of, named_ids)


def _named_ids(seen: Sequence[cast.VoteRow | Assignment], answers: Sequence[Answer]) -> set[int | None]:
    """Answers that votes and skips must name by their id."""
    plain = {answer for pair in seen if pair.kind == "gold" for answer in (pair.left_answer_id, pair.right_answer_id)}
    return {answer.id for answer in answers if answer.voided_at is not None or answer.id in plain}


def _votes(
    session: Session, study_id: int, votes: Sequence[cast.VoteRow], reviewers: dict[int, str], named_ids: set[int | None]
) -> Iterator[VoteLine]:
    """What was said of an assignment as a whole stands beside its last vote."""
    corrections, guesses = rows.corrections(session, study_id), decided.guesses(session, study_id)
    last = {vote.assignment_id: vote.vote_id for vote in votes}
    for vote in votes:
        is_last = last[vote.assignment_id] == vote.vote_id
        yield VoteLine(
            reviewer=reviewers[vote.reviewer_id],
            prompt=str(vote.prompt_id),
            left=vote.left_arm,
            right=vote.right_arm,
            choice=vote.choice,
            revision=vote.revision,
            kind=vote.kind,
            marked=vote.marked,
            seconds=vote.seconds,
            at=vote.created_at,
            criteria=dict(vote.criteria),
            reasons=tuple(vote.reasons),
            comment=vote.comment,
            correction=corrections.get(vote.assignment_id, "") if is_last else "",
            left_answer=str(vote.left_answer_id) if vote.left_answer_id in named_ids else "",
            right_answer=str(vote.right_answer_id) if vote.right_answer_id in named_ids else "",
            guess=guesses.get(vote.assignment_id, "") if is_last else "",
        )


def _skips(
    skips: Sequence[tuple[Skip, Assignment]], reviewers: dict[int, str], arms: dict[int, str], named_ids: set[int | None]
) -> Iterator[SkipLine]:
    for skip, given in skips:
        left, right = given.left_answer_id, given.right_answer_id
        yield SkipLine(
            prompt=str(given.prompt_id),
            left=arms[left],
            right=arms[right],
            reason=skip.reason,
            reviewer=reviewers[skip.reviewer_id],
            kind=given.kind,
            at=skip.created_at,
            left_answer=str(left) if left in named_ids else "",
            right_answer=str(right) if right in named_ids else "",
        )


def _decisions(
    session: Session, study_id: int, reviewers: dict[int, str], arms: dict[int, str], named_ids: set[int | None]
) -> Iterator[DecisionLine | AdjudicationLine]:
    """The newest of each."""
    for reviewer, decision in decided.decisions(session, study_id).items():
        if reviewer in reviewers:
            yield DecisionLine(reviewers[reviewer], decision.counted, decision.reason, decision.created_at)
    for (first, second), row in decided.adjudications(session, study_id).items():
        if first in arms and second in arms:
            one, other = (str(answer) if answer in named_ids else "" for answer in (first, second))
            winner = {"first": arms[first], "second": arms[second]}.get(row.choice, row.choice)
            yield AdjudicationLine(str(row.prompt_id), arms[first], arms[second], winner, row.reason, row.created_at, one, other)


def _header(study: Study, told: StudyView, reviewers: tuple[str, ...]) -> Header:
    return Header(
        name=study.name,
        format=FORMAT,
        version=VERSION,
        set=told.set_name,
        split=study.split,
        against=told.against,
        votes_per_pair=study.votes_per_pair,
        criteria=told.criteria,
        reasons=told.reasons,
        rule=rule_of(study).to_dict(),
        reveal=study.reveal,
        reviewers=reviewers,
        tags=told.tags,
        invited=told.reviewers,
        scale=study.scale,
        checks=study.checks,
        tuned=told.tuned,
        aside=study.rule.get(ASIDE, DOUBTED),
        state=study.state,
        created_at=study.created_at,
        opened_at=study.opened_at,
        closed_at=study.closed_at,
    )
