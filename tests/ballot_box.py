"""Rows for tests that vote at the level of the database: one open study of two arms, and as many assignments as asked for."""

import secrets

from sqlmodel import Session, func, select

from storage import errors
from storage.database import Database
from storage.tables import Answer, Arm, Assignment, Prompt, PromptSet, Study, StudyArm, User, Vote


def fill(db: Database, pairs: int) -> list[str]:
    """Ids of `pairs` assignments of reviewer 1, each of its own prompt, in an open study."""
    with db.write() as session:
        session.add(User(id=1, name="Rita", role="reviewer"))
        session.add(PromptSet(id=1, name="tickets"))
        session.add_all(Arm(id=n, name=f"arm {n}", kind="imported", settings_hash=str(n)) for n in (1, 2))
        session.flush()
        session.add(Study(id=1, name="study", set_id=1))
        session.add_all(Prompt(id=n, set_id=1, split="test", instruction=f"question {n}", content_hash=str(n)) for n in range(1, pairs + 1))
        session.flush()
        session.add_all(StudyArm(study_id=1, arm_id=n) for n in (1, 2))
        session.add_all(Answer(arm_id=arm, prompt_id=n, text=f"answer {n} of {arm}") for n in range(1, pairs + 1) for arm in (1, 2))
        session.flush()
        assignments = [_assignment(session, n) for n in range(1, pairs + 1)]
        session.add_all(assignments)
        study = session.get_one(Study, 1)
        study.state = "open"
        return [assignment.id for assignment in assignments]


def _assignment(session: Session, prompt: int) -> Assignment:
    left, right = (int(answer.id or 0) for answer in session.exec(select(Answer).where(Answer.prompt_id == prompt)))
    return Assignment(
        id=secrets.token_hex(8),
        study_id=1,
        reviewer_id=1,
        prompt_id=prompt,
        left_answer_id=left,
        right_answer_id=right,
        pair_key=f"{left}-{right}",
    )


def vote(db: Database, assignment: str, key: str, revision: int = 1, choice: str = "left") -> str:
    """Id of the vote with this key: stored now, or by an earlier sending of the same."""
    try:
        with db.write() as session:
            cast = Vote(id=secrets.token_hex(8), assignment_id=assignment, reviewer_id=1, revision=revision, choice=choice, request_key=key)
            session.add(cast)
        return cast.id
    except errors.Duplicate:
        with db.session() as session:
            return session.exec(select(Vote.id).where(Vote.request_key == key)).one()


def newest_revision(db: Database, assignment: str) -> int:
    with db.session() as session:
        return session.exec(select(func.max(Vote.revision)).where(Vote.assignment_id == assignment)).one() or 0


def votes(db: Database) -> list[Vote]:
    with db.session() as session:
        return list(session.exec(select(Vote)))
