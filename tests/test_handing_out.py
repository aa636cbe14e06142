"""Which pair comes next, against a real database: named reviewers, tags, several arms, repeats, plain pairs, skips, turns."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import pytest
from scipy.stats import binomtest
from sqlmodel import select

from ft.errors import BadInput, Conflict, Refused
from review.protocol.assignment import APART
from review.protocol.ballots import Ballot, BlindPair, Rest
from review.protocol.blinding import VOIDED
from review.services.casting import SKIPPED
from review.services.comparisons import ALREADY, NOT_YOURS, Comparisons
from review.services.handing_out import NOT_NAMED
from review.services.shelves import BREAK
from storage.database import Database
from storage.tables import Answer, Arm, Assignment, Prompt, Skip, Study, Vote
from tests.judging import House, cast, count, furnish, opened, pair
from tests.topical import topical


def assignments(db: Database) -> list[Assignment]:
    with db.session() as session:
        return list(session.exec(select(Assignment).order_by(Assignment.served_at)))


def answers(db: Database) -> dict[int, Answer]:
    with db.session() as session:
        return {answer.id or 0: answer for answer in session.exec(select(Answer))}


def judge(house: House, reviewer: int, most: int = 1000, choice: Any = "left") -> list[BlindPair]:
    """All pairs a reviewer is given, up to `most`."""
    found = []
    while len(found) < most and isinstance(house.comparisons.next_pair(house.reviewers[reviewer]), BlindPair):
        found.append(cast(house, reviewer, choice))
    return found


# Who and what


def test_only_the_named_reviewers_are_asked(db: Database) -> None:
    house = topical(db, prompts=6, reviewers=3, named=(1,))
    assert house.comparisons.next_pair(house.reviewers[0]) == Rest(NOT_NAMED, 0, 0)
    assert isinstance(house.comparisons.next_pair(house.reviewers[1]), BlindPair)


def test_only_prompts_with_one_of_the_tags_are_asked(db: Database) -> None:
    house = topical(db, prompts=18, tags=("parcel", "holiday"))
    found = judge(house, 0)
    assert len(found) == 6
    assert all(any(word in pair.prompt for word in ("parcel", "holiday")) for pair in found)


def test_a_prompt_without_tags_goes_by_its_category(db: Database) -> None:
    house = furnish(db, prompts=4)
    with db.write() as session:
        for prompt in session.exec(select(Prompt)).all()[:3]:
            prompt.category = "network"
    house.studies.create("winter", "tickets", ["base", "tuned-v3"], tags=["network"])
    house.studies.open("winter")
    assert len(judge(house, 0)) == 3


def test_with_several_arms_all_pairs_are_asked_and_each_reviewer_meets_them_evenly(db: Database) -> None:
    house = topical(db, prompts=12, arms=("base", "tuned-v3", "tuned-v4"), reviewers=2, votes_per_pair=2, checks=False)
    for _ in range(9):
        for reviewer in (0, 1):
            cast(house, reviewer)
    texts = answers(db)
    for reviewer in house.reviewers:
        met = Counter(
            frozenset((texts[a.left_answer_id].arm_id, texts[a.right_answer_id].arm_id))
            for a in assignments(db)
            if a.reviewer_id == reviewer
        )
        assert len(met) == 3
        assert max(met.values()) - min(met.values()) <= 5
    for reviewer in (0, 1):
        judge(house, reviewer)
    found = assignments(db)
    assert set(Counter(a.pair_key for a in found).values()) == {2}
    assert len({a.pair_key for a in found}) == 36
    assert all(texts[a.left_answer_id].arm_id != texts[a.right_answer_id].arm_id for a in found)


def test_earlier_turns_are_shown_as_a_conversation_without_the_system_prompt(db: Database) -> None:
    house = furnish(db, prompts=1)
    turns = [("system", "You are SmolLM."), ("user", "It is slow."), ("assistant", "Since when?"), ("tool", "{}")]
    with db.write() as session:
        asked = session.exec(select(Prompt)).one()
        session.add(
            Prompt(set_id=asked.set_id, split="test", instruction="Since Monday.", content_hash="t",
                   history=[{"role": role, "content": said} for role, said in turns])
        )  # fmt: skip
        session.flush()
        new = session.exec(select(Prompt).where(Prompt.content_hash == "t")).one()
        session.add_all([Answer(arm_id=arm, prompt_id=new.id, text=f"Restart it {arm} times.") for arm in (1, 2)])
    house.studies.create("winter", "tickets", ["base", "tuned-v3"])
    house.studies.open("winter")
    shown = [pair.prompt for pair in judge(house, 0) if "Monday" in pair.prompt]
    assert shown == ["Customer:\nIt is slow.\n\nWe answered:\nSince when?\n\nCustomer:\nSince Monday."]


# Checks


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two reviewers have judged 60 pairs each. Only read from."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('judged') / 'tiebreak.db'}")
    database.migrate()
    house = topical(database, prompts=70, reviewers=2, votes_per_pair=2)
    for reviewer in (0, 1):
        judge(house, reviewer, 60)
    yield house
    database.close()


def test_one_pair_in_twenty_at_least_is_a_repeat_and_one_a_plain_pair(judged: House) -> None:
    for reviewer in judged.reviewers:
        kinds = Counter(a.kind for a in assignments(judged.db) if a.reviewer_id == reviewer)
        assert sum(kinds.values()) == 60
        assert all(3 <= kinds[kind] <= 7 for kind in ("repeat", "gold"))


def test_no_reviewer_gets_a_pair_twice_except_as_one_repeat_with_the_sides_flipped(judged: House) -> None:
    for reviewer in judged.reviewers:
        shown: dict[str, list[tuple[int, Assignment]]] = defaultdict(list)
        for place, given in enumerate(a for a in assignments(judged.db) if a.reviewer_id == reviewer):
            shown[given.pair_key].append((place, given))
        for times in shown.values():
            assert len(times) <= 2
            if len(times) == 2:
                (first, one), (second, other) = times
                assert (one.kind, other.kind) == ("real", "repeat")
                assert (one.left_answer_id, one.right_answer_id) == (other.right_answer_id, other.left_answer_id)
                assert second - first >= APART
    assert any(a.kind == "repeat" for a in assignments(judged.db))


def test_a_plain_pair_sets_an_answer_beside_one_to_another_question(judged: House) -> None:
    texts = answers(judged.db)
    plain = [a for a in assignments(judged.db) if a.kind == "gold"]
    with judged.db.session() as session:
        topic = {prompt.id: prompt.tags[0] for prompt in session.exec(select(Prompt))}
    for given in plain:
        sides = [texts[given.left_answer_id], texts[given.right_answer_id]]
        assert sorted(side.prompt_id == given.prompt_id for side in sides) == [False, True]
        assert topic[sides[0].prompt_id] != topic[sides[1].prompt_id]
        assert sides[0].arm_id != sides[1].arm_id
    good_left = [texts[a.left_answer_id].prompt_id == a.prompt_id for a in plain]
    assert len(plain) >= 6
    assert binomtest(sum(good_left), len(good_left)).pvalue > 0.001


def test_the_human_agents_reply_may_be_the_good_one_and_a_plain_pair_taken_back_is_passed_over(db: Database) -> None:
    house = topical(db, prompts=60, reviewers=1, without=True)
    me = house.reviewers[0]
    for _ in range(40):
        found = pair(house)
        with db.session() as session:
            given = session.get(Assignment, found.assignment)
        if given.kind == "gold":
            break
        cast(house, 0)
    assert given.kind == "gold"
    good = next(a for a in answers(db).values() if a.id in (given.left_answer_id, given.right_answer_id) and a.prompt_id == given.prompt_id)
    with db.write() as session:
        assert session.get(Arm, good.arm_id).kind == "human"
        session.get(Answer, good.id).voided_at = 1.0
    assert pair(house).assignment != found.assignment
    with pytest.raises(Refused, match=VOIDED):
        house.comparisons.vote(me, Ballot(found.assignment, "left", key="late"))


def test_checks_are_in_no_number_and_are_exported_by_kind(judged: House) -> None:
    real = sum(a.kind == "real" for a in assignments(judged.db))
    assert judged.studies.progress("winter").votes == real
    exported = judged.comparisons.export_votes("winter")
    assert {row["kind"] for row in exported} == {"real", "repeat", "gold"}
    assert not any(row["counts"] for row in exported if row["kind"] != "real")


def test_nothing_on_the_wire_differs_between_kinds_but_texts_id_and_the_count_of_pairs_done(db: Database) -> None:
    house = topical(db, prompts=70, reviewers=1)
    seen, same = [], set()
    for done in range(70):
        found = cast(house, 0)
        seen.append(found)
        same.add(json.dumps(asdict(replace(found, assignment="", prompt="", left="", right="", done=0, session_done=0, seconds_left=0))))
        assert (found.done, found.total, len(found.assignment)) == (done, seen[0].total, 24)
        assert found.seconds_left == round(20.0 * (found.total - done)) or done == 0
    assert len(same) <= 2, "the pairs of a session differ after the first of them, with the pace"
    kinds = Counter(a.kind for a in assignments(db))
    assert kinds["repeat"] >= 4
    assert kinds["gold"] >= 4


def test_the_study_ends_at_the_number_of_pairs_it_announced(db: Database) -> None:
    house = topical(db, prompts=30, reviewers=1)
    announced = pair(house).total
    found = judge(house, 0)
    assert len(found) == announced
    assert house.comparisons.next_pair(house.reviewers[0]) == Rest("All done, thank you. Nothing is left to judge.", announced, announced)
    assert Counter(a.kind for a in assignments(db))["real"] == 30


def test_without_checks_every_pair_is_real_and_nothing_is_asked(db: Database) -> None:
    house = topical(db, prompts=30, reviewers=1, checks=False)
    while isinstance(found := house.comparisons.next_pair(house.reviewers[0]), BlindPair):
        assert not house.comparisons.vote(house.reviewers[0], Ballot(found.assignment, "left", key=found.assignment)).asks
    assert {a.kind for a in assignments(db)} == {"real"}


def test_where_all_questions_are_alike_there_are_no_plain_pairs(db: Database) -> None:
    house = opened(db, prompts=30, reviewers=1, checks=True)
    judge(house, 0)
    assert {a.kind for a in assignments(db)} == {"real", "repeat"}


# Memory and database


def test_two_processes_that_share_a_database_see_each_others_rows(db: Database) -> None:
    house = opened(db, prompts=20, reviewers=2, checks=False)
    other = Comparisons(db, now=house.clock)
    mine, theirs = house.comparisons, other
    given = []
    for turn in range(20):
        desk, reviewer = ((mine, 0), (theirs, 1))[turn % 2]
        found = desk.next_pair(house.reviewers[reviewer])
        assert isinstance(found, BlindPair)
        given.append(found)
        desk.vote(house.reviewers[reviewer], Ballot(found.assignment, "left", key=found.assignment))
    assert len({found.prompt for found in given}) == 20
    assert mine.next_pair(house.reviewers[0]) == theirs.next_pair(house.reviewers[0])
    fresh = Comparisons(db, now=house.clock)
    assert fresh.next_pair(house.reviewers[1]) == mine.next_pair(house.reviewers[1])


def test_reviewers_at_the_same_time_never_get_more_of_a_pair_than_declared_nor_one_twice(db: Database) -> None:
    """Six at once, some of whom skip, through two processes' services."""
    house = topical(db, prompts=24, reviewers=6, votes_per_pair=2)
    desks = (house.comparisons, Comparisons(db, now=house.clock))

    def work(person: int) -> None:
        desk, me = desks[person % 2], house.reviewers[person]
        for turn in range(12):
            found = desk.next_pair(me)
            if not isinstance(found, BlindPair):
                return
            if turn % 5 == person % 5:
                desk.skip(me, found.assignment, "not for me", f"s-{found.assignment}")
            else:
                desk.vote(me, Ballot(found.assignment, "left", key=f"v-{found.assignment}"))

    with ThreadPoolExecutor(6) as together:
        for done in [together.submit(work, person) for person in range(6)]:
            done.result()
    found = assignments(db)
    with db.session() as session:
        skipped = {skip.assignment_id for skip in session.exec(select(Skip))}
    assert skipped
    assert max(Counter(a.pair_key for a in found if a.kind == "real" and a.id not in skipped).values()) <= 2
    assert max(Counter((a.reviewer_id, a.pair_key, a.kind) for a in found).values()) == 1


# The pair after this one


def test_the_pair_ahead_is_the_next_one_and_only_after_the_vote(db: Database) -> None:
    house = opened(db)
    me, first = house.reviewers[0], pair(house)
    with pytest.raises(Refused, match="Vote on this pair first"):
        house.comparisons.ahead(me, first.assignment)
    for reviewer, assignment in ((house.reviewers[1], first.assignment), (me, "forged")):
        with pytest.raises(Refused, match=NOT_YOURS):
            house.comparisons.ahead(reviewer, assignment)
    cast(house, 0)
    ahead = house.comparisons.ahead(me, first.assignment)
    assert ahead == house.comparisons.ahead(me, first.assignment) == pair(house)
    assert ahead.assignment != first.assignment


def test_a_pair_held_ahead_is_timed_from_the_last_thing_said_of_the_pair_before(db: Database) -> None:
    house = opened(db)
    me, first = house.reviewers[0], cast(house, 0)
    ahead = house.comparisons.ahead(me, first.assignment)
    house.clock.time += 100
    house.comparisons.correct(me, first.assignment, "Do this.", "c")
    house.clock.time += 7
    house.comparisons.vote(me, Ballot(ahead.assignment, "left", key="second"))
    third = house.comparisons.ahead(me, ahead.assignment)
    house.clock.time += 50
    house.comparisons.vote(me, Ballot(ahead.assignment, "right", key="changed", revises=1))
    house.clock.time += 4
    house.comparisons.vote(me, Ballot(third.assignment, "left", key="third"))
    with db.session() as session:
        seconds = {vote.request_key: vote.seconds for vote in session.exec(select(Vote))}
    assert (seconds["second"], seconds["third"]) == (7.0, 4.0)


# Skips


def test_a_skipped_pair_is_free_for_others_and_never_comes_back(db: Database) -> None:
    house = opened(db, prompts=1)
    me, other = house.reviewers
    found = pair(house)
    assert isinstance(house.comparisons.next_pair(other), Rest)
    receipt = house.comparisons.skip(me, found.assignment, "I do not know this product", "s1")
    assert receipt == house.comparisons.skip(me, found.assignment, "I do not know this product", "s1")
    assert isinstance(house.comparisons.ahead(me, found.assignment), Rest)
    assert pair(house, 1).prompt == found.prompt
    house.clock.time += 10 * BREAK
    assert isinstance(house.comparisons.next_pair(me), Rest)
    assert count(db, Skip) == 1
    for reviewer, text, key, error in [
        (me, "again", "s2", Conflict),
        (me, "another reason", "s1", Conflict),
        (other, "I do not know this product", "s1", Conflict),
        (other, "not mine", "s3", Refused),
        (me, "  ", "s4", BadInput),
        (me, "x" * 501, "s5", BadInput),
        (me, "why", "", BadInput),
    ]:
        with pytest.raises(error):
            house.comparisons.skip(reviewer, found.assignment, text, key)
    with pytest.raises(Refused, match=SKIPPED):
        house.comparisons.vote(me, Ballot(found.assignment, "left", key="v"))
    assert (count(db, Skip), count(db, Vote)) == (1, 0)


def test_a_pair_that_was_judged_or_whose_study_rests_cannot_be_skipped(db: Database) -> None:
    house = opened(db)
    judged, me = cast(house, 0), house.reviewers[0]
    with pytest.raises(Conflict, match=ALREADY):
        house.comparisons.skip(me, judged.assignment, "too late", "s")
    waiting = pair(house)
    house.studies.pause("winter")
    with pytest.raises(Refused, match="paused"):
        house.comparisons.skip(me, waiting.assignment, "why", "s")
    assert count(db, Skip) == 0


# The session


def test_a_session_is_ten_minutes_at_the_reviewers_pace_and_begins_anew_after_it_or_after_a_break(db: Database) -> None:
    house = topical(db, prompts=80, reviewers=1, checks=False)
    assert (pair(house).session_done, pair(house).session_total) == (0, 20)
    for _ in range(20):
        cast(house, 0, seconds=60)
    over = pair(house)
    assert (over.session_done, over.session_total) == (20, 20)
    cast(house, 0, seconds=60)
    assert (pair(house).session_done, pair(house).session_total) == (1, 10)
    house.clock.time += BREAK + 1
    assert (pair(house).session_done, pair(house).session_total) == (0, 10)


def test_a_judged_pair_is_held_no_more_and_shares_the_pools_own_key(db: Database) -> None:
    house = opened(db, prompts=30, reviewers=2)
    judge(house, 0, 20)
    waiting = house.comparisons.next_pair(house.reviewers[1])
    assert isinstance(waiting, BlindPair)
    ledgers = house.comparisons._handing_out._ledgers
    with ledgers.lock, db.session() as session:
        study = session.get_one(Study, 1)
        ledger = ledgers.of(study)
        ledger.refresh(session, study, house.clock.time)
    assert len(ledger.entries) > 20
    assert len(ledger._holds) <= 3
    assert waiting.assignment in [assignment for _, assignment in ledger._holds]
    real = [entry for entry in ledger.entries.values() if entry.kind == "real"]
    assert all(entry.pair is ledger.pool.candidate(entry.pair).key for entry in real)  # type: ignore[union-attr]
    assert {(entry.left, entry.right) for entry in real} <= {(2 * n + 1 + at, 2 * n + 2 - at) for n in range(30) for at in (0, 1)}
