"""Every vote of a study as rows for other programs: with its arms, texts, marks, ideal answer, and whether it counts.

Enough to recompute the board. Must not know screens or models.
"""

from dataclasses import asdict
from typing import Any

from sqlmodel import Session

from review.protocol.records import counted
from review.protocol.tally import aside_of
from review.services.study_reading import beside, key, named, record
from storage.queries import decisions as decided
from storage.queries import exchange as whole
from storage.queries import studies as rows
from storage.queries import votes as cast


def exported_votes(session: Session, study: str) -> list[dict[str, Any]]:
    """Every revision of every vote in the order cast. Raises NotFound.

    `counts`: in the primary result; `aside`: its reviewer's votes are in no number; `plain`: of a plain pair, the better side; `guess`:
    which side was taken for the tuned model's; `adjudicated`: the arm that somebody decided for on a disputed pair, "tie" or "both_bad".
    """
    found = named(session, study)
    votes = cast.votes(session, key(found.id))
    records, known = [record(row) for row in votes], beside(session, found, votes)
    aside = aside_of(records, known)
    primary = {(r.assignment, r.revision) for r in counted(records, aside)}
    names = rows.user_names(session, sorted({row.reviewer_id for row in votes}))
    corrections, guesses = whole.corrections(session, key(found.id)), decided.guesses(session, key(found.id))
    newest = {row.assignment_id: row.revision for row in sorted(votes, key=lambda row: row.revision)}
    told = []
    for row, vote in zip(votes, records, strict=True):
        is_newest = row.revision == newest[row.assignment_id]
        told.append(
            {
                "study": study, "reviewer": names[row.reviewer_id], **asdict(row), "winner": vote.winner, "characters": vote.characters,
                "counts": (vote.assignment, vote.revision) in primary, "aside": row.reviewer_id in aside, "plain": vote.plain,
                "guess": guesses.get(row.assignment_id, "") if is_newest else "",
                "correction": corrections.get(row.assignment_id, "") if is_newest else "",
                "adjudicated": known.adjudications.get(row.pair_key, ""),
            }
        )  # fmt: skip
    return told
