"""A study with everything in it: repeats, plain pairs, guesses, a bot set aside, decisions. The same numbers from the database, the
file alone (T28), another house and the exported votes."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select

from ft.errors import BadInput, NotFound
from review.protocol.ballots import Ballot, BlindPair
from review.services.boards import Boards
from review.services.comparisons import Comparisons
from review.services.exchange import Exchange, recount
from review.services.studies import Studies
from review.services.study_views import StudyResult
from storage.database import Database
from storage.tables import Adjudication, Answer, Arm, Assignment, Audit, Guess, Prompt, ReviewerDecision, Study, User, Vote
from tests.judging import Clock, House, count, furnish

TOPICS = {
    "printer paper tray": "rollers jammed corner sheet", "password mail": "expired token spam junk",
    "invoice address": "billing profile owner vatid",
    "camera firmware": "flash cardslot charger bootloader", "router signal": "antenna channel walls repeater",
    "calendar invitation": "timezone organiser declined guests", "keyboard layout": "umlaut qwertz region locale",
    "backup schedule": "nightly archive retention vault",
}  # fmt: skip


@dataclass
class Room:
    house: House
    shown: StudyResult


def furnished(db: Database, reviewers: int, prompts: int = 48) -> House:
    """Prompts of different subjects, so that plain pairs can be made; each answer speaks of its prompt's subject."""
    house = furnish(db, prompts, reviewers=reviewers)
    with db.write() as session:
        session.execute(text("DROP TRIGGER keep_prompt_text"))
        session.execute(text("DROP TRIGGER keep_answer_text"))
        for at, prompt in enumerate(session.exec(select(Prompt).order_by(Prompt.id))):  # type: ignore[arg-type]
            topic, solution = list(TOPICS.items())[at % len(TOPICS)]
            prompt.instruction, prompt.input, prompt.reference = f"No {at}: {topic}?", "", f"{solution}."
            prompt.tags = [topic.split()[0]]
            for answer in session.exec(select(Answer).where(Answer.prompt_id == prompt.id)):
                answer.text = f"{answer.text} It is about the {topic}, number {at}: {solution}."
    return house


def vote_all(house: House, turns: int, bots: dict[int, str], seed: int = 5) -> None:
    """Everybody votes in turn. Honest ones like the tuned model in about two of three pairs, and always see a plain pair."""
    rng = random.Random(seed)
    for _ in range(turns):
        for at, reviewer in enumerate(house.reviewers):
            found = house.comparisons.next_pair(reviewer)
            if not isinstance(found, BlindPair):
                continue
            house.clock.time += 1.5 if bots.get(at) == "fast" else rng.uniform(12, 60)
            said = choice(found, bots.get(at, ""), rng)
            marks = {"accuracy": rng.choice(["left", "right", "same"])}
            ballot = Ballot(found.assignment, said, f"k-{found.assignment}", "«é»", ("left: too vague",), marks)
            receipt = house.comparisons.vote(reviewer, ballot)
            if receipt.asks:
                house.comparisons.guess(reviewer, found.assignment, rng.choice(["left", "right", "unsure"]))


def choice(pair: BlindPair, bot: str, rng: random.Random) -> Any:
    if bot == "always left":
        return "left"
    if bot == "random":
        return rng.choice(["left", "right"])
    topic = pair.prompt.split(": ")[1].split("?")[0]
    on_topic = [side for side, words in (("left", pair.left), ("right", pair.right)) if topic in words]
    if len(on_topic) == 1:
        return on_topic[0]
    tuned = "left" if "restart the client" in pair.left else "right"
    other = {"left": "right", "right": "left"}[tuned]
    number = int(pair.prompt.split()[1].rstrip(":"))
    agreed = tuned if number % 3 else other if number % 2 else "tie"
    return agreed if rng.random() < 0.85 else rng.choice([tuned, other, "tie", "both_bad"])


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which four people voted, one of them too fast; made once, copied for each test."""
    path = tmp_path_factory.mktemp("voted") / "tiebreak.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    house = furnished(database, reviewers=4)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"], votes_per_pair=3, rule={"min_votes": 30, "min_reviewers": 2})
    house.studies.open("winter")
    vote_all(house, 45, {3: "fast"})
    database.close()
    return path


@pytest.fixture
def db(voted: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "copied.db"
    shutil.copy(voted, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def room(db: Database) -> Room:
    with db.session() as session:
        people = {user.name: user.id or 0 for user in session.exec(select(User))}
    reviewers = [people[f"reviewer {n}"] for n in range(4)]
    house = House(db, Studies(db), Comparisons(db), Clock(), reviewers, people["engineer"])
    return Room(house, house.studies.result("winter"))


def numbers(result: StudyResult) -> StudyResult:
    return replace(result, study=replace(result.study, id=0))


def decide(room: Room) -> StudyResult:
    """Somebody counts the fast one after all, sets another aside, and decides two disputed pairs."""
    studies = room.house.studies
    studies.decide_reviewer("winter", "reviewer 3", True, "She only knows the product very well.", by=room.house.engineer)
    studies.decide_reviewer("winter", "reviewer 0", False, "On holiday; somebody else used the account.", by=room.house.engineer)
    for found, chosen in zip(studies.disagreements("winter")[:2], ("first", "tie"), strict=True):
        studies.adjudicate("winter", found.prompt_id, found.first_answer, found.second_answer, chosen, "Checked in the manual.", by=None)
    return studies.result("winter")


def test_checks_are_mixed_in_and_told_but_count_in_no_win_rate(room: Room, db: Database) -> None:
    with db.session() as session:
        kinds = [row.kind for row in session.exec(select(Assignment))]
    repeats, plain = kinds.count("repeat"), kinds.count("gold")
    assert repeats >= 0.05 * len(kinds)
    assert plain >= 0.05 * len(kinds)
    shown = room.shown
    assert shown.votes + shown.aside_votes == kinds.count("real")
    assert shown.consistency is not None
    assert shown.consistency.n > 3
    assert (shown.consistency.low or 0) <= (shown.consistency.share or 0) <= (shown.consistency.high or 0)
    assert shown.blinding is not None
    assert shown.blinding.asked > 3
    assert shown.side is not None
    assert shown.side.drawn
    assert shown.side.p > 1e-6, "sides are drawn by lot, and these people have no favourite"
    assert {tag.tag for tag in shown.tags} == {topic.split()[0] for topic in TOPICS}
    assert [one.criterion for one in shown.agreements] == ["vote", *shown.study.criteria]


def test_a_doubted_reviewer_is_aside_until_somebody_decides_and_both_are_recorded(room: Room, db: Database) -> None:
    studies = room.house.studies
    assert room.shown.aside == ("reviewer 3",)
    told = {r.name: r for r in studies.progress("winter").reviewers}
    assert (told["reviewer 3"].aside, told["reviewer 3"].decision) == (True, "")
    assert "faster than the answers can be read" in told["reviewer 3"].doubts[0]
    assert not told["reviewer 0"].doubts
    studies.decide_reviewer("winter", "reviewer 3", True, "Knows it by heart.", by=room.house.engineer)
    after = studies.result("winter")
    assert (after.aside, after.votes) == ((), room.shown.votes + room.shown.aside_votes)
    told = {r.name: r for r in studies.progress("winter").reviewers}
    assert (told["reviewer 3"].aside, told["reviewer 3"].decision, told["reviewer 3"].reason) == (False, "counted", "Knows it by heart.")
    assert told["reviewer 3"].doubts
    studies.decide_reviewer("winter", "reviewer 3", False, "No, she does not.", by=room.house.engineer)
    assert studies.result("winter").aside == ("reviewer 3",)
    with db.session() as session:
        actions = [row.detail for row in session.exec(select(Audit)) if row.action == "study.reviewer_decided"]
    assert [(one["reviewer"], one["counted"]) for one in actions] == [("reviewer 3", True), ("reviewer 3", False)]
    with pytest.raises(NotFound, match="no vote"):
        studies.decide_reviewer("winter", "engineer", True, "Because.", by=None)
    with pytest.raises(BadInput, match="Say why"):
        studies.decide_reviewer("winter", "reviewer 3", True, " ", by=None)


def test_disputed_pairs_are_decided_blind_originals_stay_and_the_result_says_both_numbers(room: Room, db: Database) -> None:
    studies, before = room.house.studies, room.shown
    disputed = studies.disagreements("winter")
    assert len(disputed) == before.disagreements > 5
    assert all(len({vote.choice for vote in one.votes}) > 1 and not one.decided for one in disputed)
    words = repr(disputed)
    assert not any(name in words for name in ("base", "tuned-v3", "reviewer 0"))
    orders = {("restart the client" in one.first) for one in disputed}
    assert orders == {True, False}, "the tuned arm stands first in some pairs and second in others"
    for one in disputed:
        right = "first" if "restart the client" in one.first else "second"
        studies.adjudicate("winter", one.prompt_id, one.first_answer, one.second_answer, right, "Right by the manual.", by=None)
    after = studies.result("winter")
    assert after.adjudicated == len(disputed)
    assert after.adjudicated_rate is not None
    assert before.arms[1].versus is not None
    assert after.adjudicated_rate.value > before.arms[1].versus.value
    assert replace(after, adjudicated=0, adjudicated_rate=None) == replace(before, adjudicated=0, adjudicated_rate=None)
    again = studies.disagreements("winter")
    assert {one.decided for one in again if "restart the client" in one.first} == {"first"}
    assert {one.decided for one in again if "restart the client" in one.second} == {"second"}


def test_only_disputed_pairs_and_known_choices_can_be_decided(room: Room, db: Database) -> None:
    studies, one = room.house.studies, room.house.studies.disagreements("winter")[0]
    with pytest.raises(BadInput, match="first, second, tie, both_bad"):
        studies.adjudicate("winter", one.prompt_id, one.first_answer, one.second_answer, "left", "Because.", by=None)
    with pytest.raises(BadInput, match="Say why"):
        studies.adjudicate("winter", one.prompt_id, one.first_answer, one.second_answer, "tie", "", by=None)
    for prompt, first, second in (
        (one.prompt_id, one.first_answer, one.first_answer),
        (one.prompt_id + 1, one.first_answer, one.second_answer),
    ):
        with pytest.raises(NotFound, match="do not disagree"):
            studies.adjudicate("winter", prompt, first, second, "tie", "Because.", by=None)
    assert count(db, Adjudication) == 0


# T28


def test_the_whole_result_is_the_same_from_the_file_alone_and_in_another_house(room: Room, db: Database, tmp_path: Path) -> None:
    shown = decide(room)
    assert shown.aside == ("reviewer 0",)
    assert shown.adjudicated
    assert shown.blinding is not None
    assert shown.blinding.asked
    path = tmp_path / "winter.jsonl"
    Exchange(db).write("winter", path)
    assert recount(path) == numbers(shown)
    elsewhere = Database(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    elsewhere.migrate()
    report = Exchange(elsewhere).import_file(path)
    again = Studies(elsewhere).result("winter")
    back = report.renamed | {"base": "base"}
    told = json.loads(json.dumps([vars_of(shown), vars_of(again)], default=str).replace("base (winter)", "base"))
    assert told[0] == told[1]
    assert back["base"] == "base"
    assert [count(db, table) for table in (Vote, Guess, ReviewerDecision)] == [
        count(elsewhere, table) for table in (Vote, Guess, ReviewerDecision)
    ]
    boards = [{row.arm.removesuffix(" (winter)"): row.human for row in Boards(house).board("tickets").rows} for house in (db, elsewhere)]
    assert boards[0] == boards[1]
    elsewhere.close()


def vars_of(result: StudyResult) -> dict[str, Any]:
    """All but what is another house's own: the study's number, state and the kinds of its arms."""
    plain = replace(
        result, study=replace(result.study, id=0, state="", closed_at=None), arms=tuple(replace(a, kind="", title="") for a in result.arms)
    )
    return {name: getattr(plain, name) for name in plain.__dataclass_fields__}


def test_a_plain_pair_with_an_answer_of_an_arm_outside_the_study_goes_along(room: Room, db: Database, tmp_path: Path) -> None:
    """The human agent's own reply may be the good answer of a plain pair, in a study that does not compare it."""
    with db.write() as session:
        session.add(Arm(id=99, name="human", kind="human", settings_hash="human"))
        session.flush()
        one, other = session.exec(select(Prompt)).all()[:2]
        good, bad = (
            Answer(arm_id=99, prompt_id=one.id, text="Right."),
            session.exec(select(Answer).where(Answer.prompt_id == other.id)).first(),
        )
        session.add(good)
        session.flush()
        assert bad
        reviewer, study = room.house.reviewers[0], session.exec(select(Study)).one()
        session.add(Assignment(id="plain", study_id=study.id, reviewer_id=reviewer, prompt_id=one.id, left_answer_id=bad.id,
                               right_answer_id=good.id, pair_key=f"{bad.id}-{good.id}", kind="gold"))  # fmt: skip
        session.flush()
        session.add(Vote(id="v", assignment_id="plain", reviewer_id=reviewer, choice="right", request_key="plain", seconds=20))
    shown = room.house.studies.result("winter")
    path = tmp_path / "winter.jsonl"
    Exchange(db).write("winter", path)
    assert recount(path) == numbers(shown)
    assert [arm.arm for arm in shown.arms] == ["base", "tuned-v3"]
    report = Exchange(db).import_file(path, "again")
    again = room.house.studies.result(report.study)
    assert (again.votes, again.verdict, len(again.arms)) == (shown.votes, shown.verdict, 2)
    assert {row["plain"] for row in room.house.comparisons.export_votes("again") if "human" in (row["left_arm"], row["right_arm"])} == {
        "right"
    }


def test_exported_votes_say_what_counts_and_why_not(room: Room, db: Database) -> None:
    shown = decide(room)
    rows = room.house.comparisons.export_votes("winter")
    assert sum(row["counts"] for row in rows) == shown.votes
    assert {row["reviewer"] for row in rows if row["aside"]} == {"reviewer 0"}
    assert {row["kind"] for row in rows} == {"real", "repeat", "gold"}
    assert {bool(row["plain"]) for row in rows if row["kind"] == "gold"} == {True}
    assert sum(bool(row["guess"]) for row in rows) == count(db, Guess)
    assert len({row["pair_key"] for row in rows if row["adjudicated"]}) == 2
    assert {tuple(row["reasons"]) for row in rows} == {("left: too vague",)}


# T26, from end to end


def test_bots_are_set_aside_within_fifty_votes_through_the_whole_review(tmp_path: Path) -> None:
    """Six honest reviewers and three bots, pairs, repeats and plain pairs as the house hands them out."""
    database = Database(f"sqlite:///{tmp_path / 'tiebreak.db'}")
    database.migrate()
    house = furnished(database, reviewers=9, prompts=120)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"], votes_per_pair=3)
    house.studies.open("winter")
    vote_all(house, 50, {6: "always left", 7: "random", 8: "fast"})
    progress = house.studies.progress("winter")
    assert all(r.votes <= 50 for r in progress.reviewers)
    assert {r.name for r in progress.reviewers if r.aside} == {"reviewer 6", "reviewer 7", "reviewer 8"}
    assert house.studies.result("winter").verdict.kind == "ship"
    database.close()
