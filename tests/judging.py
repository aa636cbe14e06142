"""A small study in a real database, for the tests of studies and comparisons. Not a test itself."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select

from review.protocol.ballots import Ballot, BlindPair
from review.services.comparisons import Comparisons
from review.services.onboarding import Onboarding
from review.services.studies import Studies
from storage.database import Database
from storage.tables import Adapter, Answer, Arm, Prompt, PromptSet, User

VARIANTS = ("adjust the cable", "restart the client", "open the settings", "call the hotline", "update the agent", "check the licence")


@dataclass
class Clock:
    """A clock that tests turn by hand."""

    time: float = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class House:
    db: Database
    studies: Studies
    comparisons: Comparisons
    clock: Clock
    reviewers: list[int]
    engineer: int


def furnish(db: Database, prompts: int = 6, arms: tuple[str, ...] = ("base", "tuned-v3"), reviewers: int = 2, split: str = "test") -> House:
    """A prompt set "tickets" answered by all arms, some reviewers and an engineer. No study yet."""
    clock = Clock()
    with db.write() as session:
        people = [User(name=f"reviewer {i}", role="reviewer") for i in range(reviewers)]
        engineer = User(name="engineer", role="engineer")
        tickets = PromptSet(name="tickets")
        session.add_all([*people, engineer, tickets])
        session.flush()
        for name in arms:
            add_arm(session, name)
        session.flush()
        session.execute(insert(Prompt), [prompt(tickets.id, i, split) for i in range(prompts)])
        ids = session.scalars(select(Prompt.id).order_by(Prompt.id)).all()
        texts = [(arm_id(session, name), variant) for name, variant in zip(arms, VARIANTS, strict=False)]
        answers = [
            {"arm_id": arm, "prompt_id": p, "text": f"For problem {i}, {variant}."} for i, p in enumerate(ids) for arm, variant in texts
        ]
        session.execute(insert(Answer), answers)
        reviewer_ids, engineer_id = [p.id for p in people], engineer.id
    return House(db, Studies(db), Comparisons(db, now=clock), clock, reviewer_ids, engineer_id)


def prompt(set_id: int, i: int, split: str) -> dict[str, Any]:
    asked = {"instruction": f"How do I fix problem {i}?", "input": "It says E-42.", "reference": f"Solution {i}."}
    return asked | {"set_id": set_id, "split": split, "content_hash": f"p{i}"}


def add_arm(session: Any, name: str) -> None:
    if name == "base":
        session.add(Arm(name=name, kind="base", settings_hash=name))
        return
    adapter = Adapter(name=name, folder=f"/adapters/{name}", content_hash=name, rank=8, alpha=16, bytes=1)
    session.add(adapter)
    session.flush()
    session.add(Arm(name=name, kind="adapter", adapter_id=adapter.id, settings_hash=name))


def arm_id(session: Any, name: str) -> int:
    return session.scalars(select(Arm.id).where(Arm.name == name)).one()


def opened(db: Database, prompts: int = 6, arms: tuple[str, ...] = ("base", "tuned-v3"), reviewers: int = 2, **declared: Any) -> House:
    """The same with an open study "winter", without checks mixed in unless `checks` asks for them."""
    declared = {"checks": False} | declared
    house = furnish(db, prompts, arms, reviewers, declared.get("split", "test"))
    house.studies.create("winter", "tickets", arms, **declared)
    house.studies.open("winter")
    return house


def pair(house: House, reviewer: int = 0) -> BlindPair:
    found = house.comparisons.next_pair(house.reviewers[reviewer])
    assert isinstance(found, BlindPair), found
    return found


def practised(db: Database, *reviewers: int) -> None:
    """These have their training pairs behind them."""
    onboarding = Onboarding(db)
    for reviewer in reviewers:
        while (training := onboarding.next(reviewer)) is not None:
            onboarding.answer(reviewer, training.number, training.best[0])


def prefer(pair: BlindPair, variant: str, otherwise: str = "tie") -> Any:
    """The side whose text has `variant`."""
    return "left" if variant in pair.left else "right" if variant in pair.right else otherwise


def cast(house: House, reviewer: int, choice: Any = "left", seconds: float = 20.0, **more: Any) -> BlindPair:
    """One pair fetched and voted on after `seconds`. `choice` may be a function of the pair."""
    found = pair(house, reviewer)
    house.clock.time += seconds
    chosen = choice(found) if callable(choice) else choice
    house.comparisons.vote(house.reviewers[reviewer], Ballot(found.assignment, chosen, key=f"key-{found.assignment}", **more))
    return found


def count(db: Database, table: type) -> int:
    with db.session() as session:
        return session.scalars(select(func.count()).select_from(table)).one()
