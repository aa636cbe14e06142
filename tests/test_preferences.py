"""From votes to what DPO and KTO learn from: whose votes, of which prompts, and that a snapshot keeps them as they were."""

import secrets
from typing import Any

import pytest

from ft.errors import BadInput
from review.services import learning
from review.services.preferences import preference_rows
from storage.tables import (
    Answer,
    Arm,
    Assignment,
    Correction,
    Prompt,
    PromptSet,
    ReviewerDecision,
    Study,
    StudyArm,
    User,
    Vote,
)

CITIES = ("Lisbon", "Oslo", "Cairo", "Lima", "Quito", "Hanoi", "Minsk", "Accra", "Sofia", "Delhi")


class Room:
    """A study of two arms on prompts of any split, and reviewers who vote as they are told."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self.prompts = 0
        with db.write() as session:
            session.add_all(User(id=n, name=f"R{n}", role="reviewer") for n in (1, 2, 3))
            session.add(PromptSet(id=1, name="tickets"))
            session.add_all(Arm(id=n, name=f"arm {n}", kind="imported", settings_hash=str(n)) for n in (1, 2))
            session.flush()
            session.add(Study(id=1, name="study", set_id=1, split="train", checks=False))
            session.flush()
            session.add_all(StudyArm(study_id=1, arm_id=n) for n in (1, 2))

    def prompt(self, split: str = "train", words: str = "", cluster: str = "") -> int:
        self.prompts += 1
        number = self.prompts
        text = words or f"{CITIES[number % 10]} {secrets.token_hex(6)} {secrets.token_hex(6)}?"
        with self.db.write() as session:
            session.add(
                Prompt(id=number, set_id=1, split=split, instruction=text, content_hash=str(number), cluster=cluster or str(number))
            )
            session.flush()
            session.add_all(Answer(id=2 * number + arm, arm_id=arm, prompt_id=number, text=f"{arm} on {number}") for arm in (1, 2))
        return number

    def vote(self, prompt: int, choice: str, reviewer: int = 1, ideal: str = "", kind: str = "real", marked: str = "") -> str:
        """`choice` is in terms of arm 1 (left) and arm 2 (right). The id of the assignment."""
        given, left, right = secrets.token_hex(8), 2 * prompt + 1, 2 * prompt + 2
        with self.db.write() as session:
            session.add(
                Assignment(id=given, study_id=1, reviewer_id=reviewer, prompt_id=prompt, left_answer_id=left, right_answer_id=right,
                           pair_key=f"{left}-{right}", kind=kind, marked=marked)
            )  # fmt: skip
            session.flush()
        self.revise(given, choice, reviewer)
        if ideal:
            with self.db.write() as session:
                session.add(Correction(id=secrets.token_hex(8), assignment_id=given, reviewer_id=reviewer, text=ideal, request_key=given))
        return given

    def revise(self, given: str, choice: str, reviewer: int = 1, revision: int = 1) -> None:
        with self.db.write() as session:
            session.add(
                Vote(id=secrets.token_hex(8), assignment_id=given, reviewer_id=reviewer, revision=revision, choice=choice, seconds=60,
                     request_key=secrets.token_hex(8))
            )  # fmt: skip

    def learnt(self, objective: str) -> tuple[list[Any], list[Any]]:
        snapshot = learning.snapshot(self.db, None, None)
        return preference_rows(self.db, snapshot.id, objective)

    def pairs(self) -> list[tuple[str, str]]:
        return [(row["output"], row["rejected"]) for row in self.learnt("dpo")[0]]

    def singles(self) -> dict[str, str]:
        return {row["output"]: row["label"] for row in self.learnt("kto")[0]}


@pytest.fixture
def room(db: Any) -> Room:
    return Room(db)


def test_the_winner_stands_over_the_loser_and_is_good_alone(room: Room) -> None:
    room.vote(room.prompt(), "left")
    room.vote(room.prompt(), "right")
    assert sorted(room.pairs()) == [("1 on 1", "2 on 1"), ("2 on 2", "1 on 2")]
    assert room.singles() == {"1 on 1": "good", "2 on 2": "good"}


def test_a_tie_is_two_good_answers_and_both_bad_two_bad_ones(room: Room) -> None:
    room.vote(room.prompt(), "tie")
    room.vote(room.prompt(), "both_bad")
    assert room.singles() == {"1 on 1": "good", "2 on 1": "good", "1 on 2": "bad", "2 on 2": "bad"}
    assert room.pairs() == []


def test_an_ideal_answer_stands_over_what_lost(room: Room) -> None:
    room.vote(room.prompt(), "left", ideal="Ideal one.")
    room.vote(room.prompt(), "both_bad", ideal="Ideal two.")
    assert sorted(room.pairs()) == [
        ("1 on 1", "2 on 1"), ("Ideal one.", "2 on 1"), ("Ideal two.", "1 on 2"), ("Ideal two.", "2 on 2"),
    ]  # fmt: skip
    assert room.singles()["Ideal two."] == "good"


def test_the_newest_revision_counts(room: Room) -> None:
    given = room.vote(room.prompt(), "left")
    room.revise(given, "right", revision=2)
    assert room.pairs() == [("2 on 1", "1 on 1")]


def test_repeats_plain_pairs_and_marked_pairs_teach_nothing(room: Room) -> None:
    for kind in ("repeat", "gold"):
        room.vote(room.prompt(), "left", kind=kind)
    room.vote(room.prompt(), "left", marked="SmolLM")
    with pytest.raises(BadInput, match="No example is approved"):
        room.pairs()


def test_a_reviewer_set_aside_teaches_nothing_until_counted_again(room: Room) -> None:
    room.vote(room.prompt(), "left", reviewer=2)
    room.vote(room.prompt(), "right", reviewer=1)
    decide(room, counted=False)
    assert room.pairs() == [("2 on 2", "1 on 2")]
    decide(room, counted=True)
    assert len(room.pairs()) == 2


def decide(room: Room, counted: bool) -> None:
    with room.db.write() as session:
        session.add(ReviewerDecision(study_id=1, reviewer_id=2, counted=counted))


def test_reviewers_who_disagree_cancel_each_other_out_and_a_majority_holds(room: Room) -> None:
    split, agreed = room.prompt(), room.prompt()
    for reviewer, (one, other) in enumerate((("left", "left"), ("right", "left"), ("tie", "right")), start=1):
        room.vote(split, one, reviewer)
        room.vote(agreed, other, reviewer)
    assert room.pairs() == [(f"1 on {agreed}", f"2 on {agreed}")]


def test_no_test_prompt_and_none_like_one_is_learned(room: Room) -> None:
    words = "How can I change the address that my monthly invoice is sent to?"
    test = room.prompt("test", words)
    room.vote(test, "left")
    room.vote(room.prompt("train", words.replace("monthly", "monthly ")), "left")
    room.vote(room.prompt("train", cluster=str(test)), "left")
    kept = room.prompt()
    room.vote(kept, "left")
    assert room.pairs() == [(f"1 on {kept}", f"2 on {kept}")]


def test_validation_votes_are_kept_for_validation(room: Room) -> None:
    room.vote(room.prompt("validation"), "left")
    room.vote(room.prompt(), "left")
    train, validation = room.learnt("dpo")
    assert (len(train), len(validation)) == (1, 1)
    assert validation[0]["output"] == "1 on 1"


def test_a_snapshot_keeps_the_votes_as_they_were(room: Room) -> None:
    given = room.vote(room.prompt(), "left")
    first = learning.snapshot(room.db, None, None)
    assert learning.snapshot(room.db, None, None).id == first.id
    assert (first.pairs, first.singles, first.train) == (1, 1, 0)
    room.revise(given, "right", revision=2)
    second = learning.snapshot(room.db, None, None)
    assert second.id != first.id
    assert preference_rows(room.db, first.id, "dpo")[0][0]["output"] == "1 on 1"
    assert preference_rows(room.db, second.id, "dpo")[0][0]["output"] == "2 on 1"
    assert [(view.id, view.pairs) for view in learning.snapshots(room.db)] == [(second.id, 1), (first.id, 1)]
