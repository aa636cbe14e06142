"""A study that a crowd has been judging: 5,000 prompts, two arms, 200 reviewers and 100,000 votes, put straight into the database.

For measuring what the next pair costs when a study is large. Must not know the web process.
"""

import random
import secrets
import time

from sqlalchemy import insert

from storage.database import Database
from storage.tables import Adapter, Answer, Arm, Assignment, Prompt, PromptSet, Study, StudyArm, User, Vote

PROMPTS, REVIEWERS, VOTES, OVERLAP = 5_000, 200, 100_000, 25
SECONDS = 18.0
WORDS = ("open", "the", "settings", "of", "your", "router", "then", "restart", "it", "and", "wait", "two", "minutes", "before", "password")


def crowd(db: Database, prompts: int = PROMPTS, reviewers: int = REVIEWERS, votes: int = VOTES) -> list[int]:
    """Fill an empty database; the reviewers' ids."""
    rng, began = random.Random(1), time.time() - 30 * 86_400
    with db.write() as session:
        session.add(PromptSet(id=1, name="crowd"))
        session.add(Adapter(id=1, name="tuned", folder="/nowhere", content_hash="tuned", rank=8, alpha=16, bytes=1))
        session.flush()
        session.add_all(
            [
                Arm(id=1, name="base", kind="base", settings_hash="base"),
                Arm(id=2, name="tuned", kind="adapter", adapter_id=1, settings_hash="tuned"),
            ]
        )
        session.execute(insert(User), [{"id": i, "name": f"reviewer {i}", "role": "reviewer"} for i in range(1, reviewers + 1)])
        session.flush()
        session.execute(insert(Prompt), [_prompt(i, rng) for i in range(1, prompts + 1)])
        session.execute(insert(Answer), [_answer(p, arm, rng) for p in range(1, prompts + 1) for arm in (1, 2)])
        session.add(Study(id=1, name="crowd", set_id=1, split="test", votes_per_pair=OVERLAP, last_prompt_id=prompts))
        session.flush()
        session.add_all([StudyArm(study_id=1, arm_id=1), StudyArm(study_id=1, arm_id=2)])
        session.flush()
        given = [_given(n, prompts, reviewers, began, rng) for n in range(votes)]
        session.execute(insert(Assignment), given)
        session.execute(insert(Vote), [_vote(row, rng) for row in given])
        study = session.get_one(Study, 1)
        study.state, study.opened_at = "open", began
    return list(range(1, reviewers + 1))


def _text(words: int, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def _prompt(i: int, rng: random.Random) -> dict[str, object]:
    told = {"instruction": f"Question {i}: {_text(20, rng)}?", "reference": _text(40, rng), "category": f"topic {i % 12}"}
    return told | {"id": i, "set_id": 1, "split": "test", "content_hash": str(i)}


def _answer(prompt: int, arm: int, rng: random.Random) -> dict[str, object]:
    return {"id": 2 * prompt + arm - 2, "arm_id": arm, "prompt_id": prompt, "text": f"{arm}: {_text(80, rng)}."}


def _given(n: int, prompts: int, reviewers: int, began: float, rng: random.Random) -> dict[str, object]:
    turn, place = divmod(n, prompts)
    prompt, both = place + 1, [2 * place + 1, 2 * place + 2]
    rng.shuffle(both)
    told = {"prompt_id": prompt, "left_answer_id": both[0], "right_answer_id": both[1], "pair_key": f"{2 * place + 1}-{2 * place + 2}"}
    reviewer = (place + turn * 7) % reviewers + 1
    return told | {"id": secrets.token_urlsafe(18), "study_id": 1, "reviewer_id": reviewer, "served_at": began + 20 * n}


def _vote(given: dict[str, object], rng: random.Random) -> dict[str, object]:
    cast = {"assignment_id": given["id"], "reviewer_id": given["reviewer_id"], "choice": rng.choice(("left", "right", "tie", "both_bad"))}
    return cast | {
        "id": secrets.token_urlsafe(18),
        "request_key": secrets.token_urlsafe(12),
        "seconds": 18.0,
        "created_at": float(str(given["served_at"])) + 18,
    }
