"""Pairs that reviewers judged differently, and what somebody decides on them; reviewers in doubt, and whether their votes count.

Whoever decides on a pair sees its texts and what was said, never an arm's or a reviewer's name. The votes stay as they are. Must not know
screens or models.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from sqlmodel import Session

from ft.errors import BadInput, NotFound
from review.protocol.ballots import bare_reason, text_problem
from review.protocol.blinding import EMPTY, prompt_text, shown_text
from review.protocol.records import current
from review.protocol.tally import aside_of
from review.services.study_reading import beside, key, record
from review.services.study_views import Disagreement, DisputedVote
from storage.queries import decisions as decided
from storage.queries import votes as cast
from storage.tables import Adjudication, Audit, ReviewerDecision, Study

CHOICES = ("first", "second", "tie", "both_bad")
TURNED = {"first": "second", "second": "first"}
MAX_REASON = 2_000


def decide_reviewer(session: Session, study: Study, reviewer: str, counted: bool, reason: str, by: int | None) -> None:
    """Raises NotFound for somebody who never voted in the study, BadInput without a reason."""
    reviewer_id = decided.voters(session, key(study.id)).get(reviewer)
    if reviewer_id is None:
        raise NotFound(f"{reviewer} has no vote in “{study.name}”. Choose one of its reviewers.")
    reason = _reason(reason)
    session.add(ReviewerDecision(study_id=key(study.id), reviewer_id=reviewer_id, counted=counted, reason=reason, decided_by=by))
    detail = {"study": study.name, "reviewer": reviewer, "counted": counted, "reason": reason}
    session.add(Audit(user_id=by, action="study.reviewer_decided", detail=detail))


def disagreements(session: Session, study: Study) -> tuple[Disagreement, ...]:
    """Those nobody decided on first, each in the order it was first voted on."""
    by_pair = _disputed(session, study)
    decisions = decided.adjudications(session, key(study.id))
    found = [_told(study, rows, decisions.get(_answers(rows[0]))) for rows in by_pair.values()]
    return tuple(sorted(found, key=lambda one: bool(one.decided)))


def adjudicate(session: Session, study: Study, prompt_id: int, first: int, second: int, choice: str, reason: str, by: int | None) -> None:
    """`choice` is about the answers as `disagreements` showed them. Raises BadInput, and NotFound for a pair that is not disputed."""
    if choice not in CHOICES:
        raise BadInput(f"A decision is one of {', '.join(CHOICES)}. Choose one of them.")
    pair = (min(first, second), max(first, second))
    if not any(rows[0].prompt_id == prompt_id for rows in _disputed(session, study).values() if _answers(rows[0]) == pair):
        raise NotFound(f"Reviewers of “{study.name}” do not disagree on this pair. See the list of disputed pairs.")
    stored = choice if first <= second else TURNED.get(choice, choice)
    reason = _reason(reason)
    session.add(
        Adjudication(study_id=key(study.id), prompt_id=prompt_id, first_answer_id=pair[0], second_answer_id=pair[1],
                     choice=stored, reason=reason, decided_by=by)
    )  # fmt: skip
    session.add(
        Audit(user_id=by, action="study.adjudicated", detail={"study": study.name, "pair": f"{pair[0]}-{pair[1]}", "choice": stored})
    )


def _disputed(session: Session, study: Study) -> dict[str, list[cast.VoteRow]]:
    """Pair -> its votes that count, where they are not all alike."""
    votes = cast.votes(session, key(study.id))
    records = [record(row) for row in votes]
    aside = aside_of(records, beside(session, study, votes))
    newest = {r.assignment: r for r in current(records)}
    rows: dict[str, list[cast.VoteRow]] = defaultdict(list)
    sides: dict[str, set[str]] = defaultdict(set)
    for row in votes:
        r = newest[row.assignment_id]
        if row.revision == r.revision and r.kind == "real" and not r.voided and r.reviewer not in aside:
            rows[r.pair].append(row)
            sides[r.pair].add(r.side)
    return {pair: found for pair, found in rows.items() if len(sides[pair]) > 1}


def _told(study: Study, votes: Sequence[cast.VoteRow], decision: Adjudication | None) -> Disagreement:
    row = votes[0]
    shown = _answers(row)
    texts = {row.left_answer_id: row.left, row.right_answer_id: row.right}
    turned = hashlib.sha256(f"{study.id}:{row.pair_key}:{study.created_at}".encode()).digest()[0] % 2 == 1
    if turned:
        shown = shown[1], shown[0]
    choice = decision.choice if decision else ""
    return Disagreement(
        id=f"{row.prompt_id}:{shown[0]}:{shown[1]}",
        prompt_id=row.prompt_id,
        prompt=prompt_text(row.instruction, row.input, row.history),
        first=shown_text(texts[shown[0]]) or EMPTY,
        second=shown_text(texts[shown[1]]) or EMPTY,
        first_answer=shown[0],
        second_answer=shown[1],
        votes=tuple(_vote(number, vote, shown[0]) for number, vote in enumerate(votes, start=1)),
        decided=TURNED.get(choice, choice) if turned else choice,
        reason=decision.reason if decision else "",
    )


def _vote(number: int, row: cast.VoteRow, first: int) -> DisputedVote:
    words = {"left": "first", "right": "second"} if row.left_answer_id == first else {"left": "second", "right": "first"}
    reasons = []
    for reason in row.reasons:
        bare = bare_reason(reason)
        side = reason[: len(reason) - len(bare)].removesuffix(": ")
        reasons.append(f"{words[side]}: {bare}" if side else bare)
    return DisputedVote(number, words.get(row.choice, row.choice), tuple(reasons), row.comment)


def _answers(row: cast.VoteRow) -> tuple[int, int]:
    return min(row.left_answer_id, row.right_answer_id), max(row.left_answer_id, row.right_answer_id)


def _reason(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise BadInput("Say why, in a few words: the decision is kept with its reason.")
    if problem := text_problem("The reason", reason, MAX_REASON):
        raise BadInput(problem)
    return reason
