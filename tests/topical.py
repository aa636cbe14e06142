"""A study whose questions are about different things, so that an answer to another question is plainly worse. Not a test itself."""

from typing import Any

from sqlalchemy import insert, select

from review.services.comparisons import Comparisons
from review.services.studies import Studies
from storage.database import Database
from storage.tables import Answer, Arm, Prompt, PromptSet, User
from tests.judging import Clock, House, add_arm, arm_id

TOPICS = {
    "printer": ("Why does the printer leave stripes on every sheet?", "Clean the printer's drum, then print a sheet without stripes"),
    "invoice": ("Where can I download last month's invoice?", "Every invoice lies under Billing; download last month's there"),
    "antenna": ("The antenna of my router finds no signal.", "Turn the antenna upright until the router shows a signal"),
    "parcel": ("My parcel was left with a neighbour, which one?", "The parcel card names the neighbour who took it"),
    "keyboard": ("Two letters on my keyboard are swapped.", "Choose another keyboard layout, and the letters are right again"),
    "holiday": ("How do I enter a day of holiday?", "Open the calendar, mark the holiday and enter it with Save"),
}
STYLES = ("{} (short form).", "Certainly! {}, and tell me how it went.", "{}; so says chapter 4.", "Well, {}, perhaps.")


def topical(db: Database, prompts: int = 60, arms: tuple[str, ...] = ("base", "tuned-v3"), reviewers: int = 2, **declared: Any) -> House:
    """An open study "winter" on such questions; `declared` as for Studies.create, `reviewers` how many people there are, `named` which of
    them it asks, `without`: its arms say little of the reference, but a human agent's reply is stored."""
    clock, vague = Clock(), declared.pop("without", False)
    with db.write() as session:
        people = [User(name=f"reviewer {i}", role="reviewer") for i in range(reviewers)]
        engineer, tickets = User(name="engineer", role="engineer"), PromptSet(name="tickets")
        session.add_all([*people, engineer, tickets])
        session.flush()
        for name in arms:
            add_arm(session, name)
        session.flush()
        names = list(TOPICS)
        rows = [_prompt(tickets.id, i, names[i % len(names)]) for i in range(prompts)]
        session.execute(insert(Prompt), rows)
        ids = session.scalars(select(Prompt.id).order_by(Prompt.id)).all()
        session.execute(
            insert(Answer),
            [
                {
                    "arm_id": arm_id(session, arm),
                    "prompt_id": p,
                    "text": style.format(f"{_said(TOPICS[names[i % len(names)]][1], vague)} ({i})"),
                }
                for i, p in enumerate(ids)
                for arm, style in zip(arms, STYLES, strict=False)
            ],
        )
        if vague:
            _human(session, ids)
        house = House(db, Studies(db), Comparisons(db, now=clock), clock, [p.id for p in people], engineer.id)
    named = declared.pop("named", ())
    house.studies.create("winter", "tickets", arms, reviewers=[f"reviewer {i}" for i in named], **declared)
    house.studies.open("winter")
    return house


def _prompt(set_id: int, i: int, topic: str) -> dict[str, Any]:
    question, answer = TOPICS[topic]
    told = {"instruction": f"{question} (case {i})", "reference": answer, "tags": [topic], "content_hash": f"p{i}"}
    return told | {"set_id": set_id, "split": "test"}


def _said(answer: str, vague: bool) -> str:
    """The first words only, where the arms are to be vague."""
    return " ".join(answer.split()[:4]) if vague else answer


def _human(session: Any, ids: Any) -> None:
    session.add(Arm(name="human", kind="human", settings_hash="human"))
    session.flush()
    replies = [
        {"arm_id": arm_id(session, "human"), "prompt_id": p, "text": list(TOPICS.values())[i % len(TOPICS)][1]} for i, p in enumerate(ids)
    ]
    session.execute(insert(Answer), replies)
