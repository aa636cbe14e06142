"""The blind comparison against a real database."""

import dataclasses
import json
import threading
from collections import Counter
from typing import Any

import pytest
from scipy.stats import binomtest, chi2_contingency
from sqlalchemy import text
from sqlmodel import select

from ft.errors import BadInput, Conflict, Refused, UserError
from review.protocol.ballots import Ballot, BlindPair, Receipt, Rest
from review.protocol.blinding import EMPTY, VOIDED
from review.services.comparisons import ALREADY, HELD, NOT_YOURS, Comparisons
from storage.database import Database
from storage.tables import Answer, Assignment, Correction, IdenticalPair, Prompt, User, Vote
from tests.judging import VARIANTS, House, cast, count, furnish, opened, pair, prefer

SIDE_ALPHA = 0.001


def ballot(found: BlindPair, choice: Any = "left", key: str = "k1", **more: Any) -> Ballot:
    return Ballot(found.assignment, choice, key=key, **more)


def refuses(house: House, reviewer: int, sent: Ballot, error: type[UserError] = Refused) -> str:
    """The message of the refusal, after checking that it left no row."""
    before = count(house.db, Vote)
    with pytest.raises(error) as caught:
        house.comparisons.vote(reviewer, sent)
    assert count(house.db, Vote) == before
    return str(caught.value)


def void(house: House, side: str, assignment: str) -> None:
    with house.db.write() as session:
        given = session.get(Assignment, assignment)
        answer = session.get(Answer, getattr(given, f"{side}_answer_id"))
        answer.voided_at, answer.void_reason = 1.0, "adapter quarantined"


def test_a_pair_shows_prompt_and_both_answers_and_names_no_arm(db: Database) -> None:
    found = pair(opened(db))
    assert found.prompt.startswith("How do I fix problem")
    assert found.prompt.endswith("\n\nIt says E-42.")
    assert {v for v in VARIANTS[:2] if v in found.left + found.right} == set(VARIANTS[:2])
    sent = json.dumps(dataclasses.asdict(found))
    assert not [word for word in ("tuned", "base", "adapter") if word in sent]


def test_twenty_reloads_keep_pair_and_sides(db: Database) -> None:
    house = opened(db)
    first = pair(house)
    assert all(pair(house) == first for _ in range(20))
    fresh = Comparisons(db, now=house.clock)
    assert fresh.next_pair(house.reviewers[0]) == first
    assert count(db, Assignment) == 1


def test_parallel_reloads_give_one_assignment(db: Database) -> None:
    house = opened(db)
    found = in_parallel(20, lambda i: house.comparisons.next_pair(house.reviewers[0]))
    assert len({f.assignment for f in found}) == 1
    assert count(db, Assignment) == 1


def test_votes_are_stored_with_the_servers_seconds_and_the_next_pair_follows(db: Database) -> None:
    house = opened(db)
    first = cast(house, 0, "right", seconds=12.5, comment="clearer")
    with db.session() as session:
        vote = session.exec(select(Vote)).one()
    assert (vote.choice, vote.comment, vote.revision, vote.seconds) == ("right", "clearer", 1, 12.5)
    assert pair(house).assignment != first.assignment


def test_progress_counts_pairs_and_measures_the_reviewers_own_pace(db: Database) -> None:
    house = opened(db, prompts=5)
    assert (pair(house).done, pair(house).total, pair(house).seconds_left) == (0, 5, 150)
    cast(house, 0, seconds=10)
    cast(house, 0, seconds=14)
    cast(house, 0, seconds=400)
    later = pair(house)
    assert (later.done, later.total, later.seconds_left) == (3, 5, 28)


def test_when_all_pairs_are_judged_the_reviewer_may_rest(db: Database) -> None:
    house = opened(db, prompts=3)
    for _ in range(3):
        cast(house, 0)
    rest = house.comparisons.next_pair(house.reviewers[0])
    assert rest == Rest("All done, thank you. Nothing is left to judge.", 3, 3)


def test_without_an_open_study_the_reviewer_may_rest(db: Database) -> None:
    house = furnish(db)
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)


def test_a_pair_on_another_screen_is_held_for_a_while_then_given_again(db: Database) -> None:
    house = opened(db, prompts=1)
    waiting = pair(house, 0)
    rest = house.comparisons.next_pair(house.reviewers[1])
    assert isinstance(rest, Rest)
    assert "other reviewers" in rest.message
    house.clock.time += HELD + 1
    assert pair(house, 1).assignment != waiting.assignment


def test_each_pair_gets_as_many_reviewers_as_declared(db: Database) -> None:
    house = opened(db, prompts=4, reviewers=3, votes_per_pair=2)
    for _ in range(3):
        for reviewer in range(3):
            if isinstance(house.comparisons.next_pair(house.reviewers[reviewer]), BlindPair):
                cast(house, reviewer)
    with db.session() as session:
        given = session.exec(select(Assignment)).all()
    assert len(given) == 8
    assert set(Counter(a.pair_key for a in given).values()) == {2}
    assert len({(a.reviewer_id, a.pair_key) for a in given}) == 8


def test_the_oldest_open_study_comes_first(db: Database) -> None:
    house = furnish(db, prompts=2, arms=("base", "tuned-v3", "tuned-v4"))
    for name, arms in (("later", ["base", "tuned-v4"]), ("first", ["base", "tuned-v3"])):
        house.studies.create(name, "tickets", arms)
    house.studies.open("first")
    house.studies.open("later")
    seen = [cast(house, 0) for _ in range(4)]
    assert ["restart" in f.left + f.right for f in seen] == [True, True, False, False]


def test_only_an_enabled_reviewer_gets_pairs_and_votes(db: Database) -> None:
    house = opened(db)
    found = pair(house)
    with pytest.raises(Refused):
        house.comparisons.next_pair(house.engineer)
    with pytest.raises(Refused):
        house.comparisons.next_pair(999)
    with db.write() as session:
        session.get(User, house.reviewers[0]).disabled_at = 1.0
    refuses(house, house.reviewers[0], ballot(found))


# T16


def test_sides_are_a_fair_coin_against_parity_reviewer_hour_and_previous_side(db: Database) -> None:
    house = opened(db, prompts=60, reviewers=6, votes_per_pair=6)
    lefts: list[tuple[bool, int, int, int, bool | None]] = []
    for reviewer in range(6):
        previous = None
        for turn in range(60):
            found = cast(house, reviewer, seconds=37)
            left = VARIANTS[1] in found.left
            lefts.append((left, turn % 2, reviewer, int(house.clock.time // 3600) % 6, previous))
            previous = left
    assert binomtest(sum(row[0] for row in lefts), len(lefts)).pvalue > SIDE_ALPHA
    for feature in range(1, 5):
        assert side_p(lefts, feature) > SIDE_ALPHA, f"feature {feature}"


def test_the_side_check_catches_sides_that_follow_parity() -> None:
    assert side_p([(turn % 2 == 0, turn % 2) for turn in range(200)], 1) < SIDE_ALPHA


def side_p(rows: list[Any], feature: int) -> float:
    table = Counter((row[0], row[feature]) for row in rows if row[feature] is not None)
    values = sorted({value for _, value in table}, key=str)
    return float(chi2_contingency([[table[(side, value)] for value in values] for side in (True, False)]).pvalue)


# T23


def test_a_vote_for_a_pair_never_given_is_refused(db: Database) -> None:
    house = opened(db)
    assert refuses(house, house.reviewers[0], Ballot("forged", "left", key="k")) == NOT_YOURS


def test_a_vote_for_anothers_pair_is_refused_like_one_that_does_not_exist(db: Database) -> None:
    house = opened(db)
    assert refuses(house, house.reviewers[1], ballot(pair(house, 0))) == NOT_YOURS


@pytest.mark.parametrize("state", ["pause", "close"])
def test_a_vote_in_a_study_that_is_not_open_is_refused(db: Database, state: str) -> None:
    house = opened(db)
    found = pair(house)
    getattr(house.studies, state)("winter")
    assert state[:4] in refuses(house, house.reviewers[0], ballot(found))
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "base"},
        {"choice": ""},
        {"choice": None},
        {"key": ""},
        {"key": "k" * 201},
        {"key": "k\0"},
        {"key": None},
        {"comment": "x" * 4001},
        {"comment": "nul \0"},
        {"comment": "\ud800"},
        {"comment": None},
        {"reasons": ("never declared",)},
        {"reasons": ("tone", "tone")},
        {"reasons": (1, None)},
        {"reasons": ["tone"]},
        {"reasons": None},
        {"criteria": {1: "left"}},
        {"criteria": ["accuracy"]},
        {"criteria": {"accuracy": []}},
        {"criteria": {"never declared": "left"}},
        {"criteria": {"accuracy": "base"}},
        {"revises": -1},
        {"revises": True},
    ],
)
def test_a_forged_field_is_refused_with_no_row(db: Database, change: dict[str, Any]) -> None:
    house = opened(db, criteria=["accuracy"], reasons=["tone"])
    good = ballot(pair(house), criteria={"accuracy": "left"}, reasons=("tone",))
    refuses(house, house.reviewers[0], dataclasses.replace(good, **change), BadInput)
    house.comparisons.vote(house.reviewers[0], good)


def test_the_longest_comment_is_kept_exactly(db: Database) -> None:
    house = opened(db)
    comment = "ü🙂\u2028=1+1\n" * 500
    cast(house, 0, comment=comment)
    assert house.comparisons.export_votes("winter")[0]["comment"] == comment


# T24


def in_parallel(times: int, act: Any) -> list[Any]:
    barrier, results = threading.Barrier(times), [None] * times

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = act(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_twenty_parallel_sends_of_one_vote_are_one_row_and_one_receipt(db: Database) -> None:
    house = opened(db)
    sent = ballot(pair(house))
    receipts = in_parallel(20, lambda i: house.comparisons.vote(house.reviewers[0], sent))
    assert all(isinstance(r, Receipt) for r in receipts), receipts
    assert len(set(receipts)) == 1
    assert count(db, Vote) == 1


def test_the_parallel_check_has_power_without_a_unique_key_rows_double(db: Database) -> None:
    with db.write() as session:
        session.execute(text("CREATE TABLE plain_vote (request_key TEXT)"))

    def send(_: int) -> None:
        with db.session() as session:
            known = session.execute(text("SELECT count(*) FROM plain_vote WHERE request_key = 'k'")).scalar_one()
        barrier.wait()
        if not known:
            with db.write() as session:
                session.execute(text("INSERT INTO plain_vote VALUES ('k')"))

    barrier = threading.Barrier(20)
    in_parallel(20, send)
    with db.session() as session:
        assert session.execute(text("SELECT count(*) FROM plain_vote")).scalar_one() > 1


def test_parallel_votes_with_different_keys_on_one_pair_store_one(db: Database) -> None:
    house = opened(db)
    found = pair(house)
    results = in_parallel(20, lambda i: house.comparisons.vote(house.reviewers[0], ballot(found, key=f"tab-{i}")))
    assert sum(isinstance(r, Receipt) for r in results) == 1
    assert {str(r) for r in results if not isinstance(r, Receipt)} == {ALREADY}
    assert count(db, Vote) == 1


def test_a_replay_after_the_study_closed_gives_the_same_receipt(db: Database) -> None:
    house = opened(db)
    sent = ballot(pair(house))
    receipt = house.comparisons.vote(house.reviewers[0], sent)
    house.studies.close("winter")
    assert house.comparisons.vote(house.reviewers[0], sent) == receipt


def test_another_vote_under_a_used_key_is_refused(db: Database) -> None:
    house = opened(db)
    first = pair(house, 0)
    house.comparisons.vote(house.reviewers[0], ballot(first, key="same"))
    refuses(house, house.reviewers[0], ballot(first, "right", key="same"), Conflict)
    refuses(house, house.reviewers[0], ballot(pair(house, 0), key="same"), Conflict)
    refuses(house, house.reviewers[1], ballot(pair(house, 1), key="same"), Conflict)
    refuses(house, house.reviewers[1], ballot(first, key="same"), Conflict)


# T25


def test_a_stale_tab_cannot_vote_again(db: Database) -> None:
    house = opened(db)
    found = pair(house)
    house.comparisons.vote(house.reviewers[0], ballot(found, "left", key="tab one"))
    assert refuses(house, house.reviewers[0], ballot(found, "right", key="tab two"), Conflict) == ALREADY


def test_a_change_of_mind_is_a_new_revision_and_the_newest_counts(db: Database) -> None:
    house = opened(db)
    found = pair(house)
    house.comparisons.vote(house.reviewers[0], ballot(found, "left", key="a"))
    changed = house.comparisons.vote(house.reviewers[0], ballot(found, "both_bad", key="b", revises=1))
    assert changed.revision == 2
    refuses(house, house.reviewers[0], ballot(found, "tie", key="c", revises=1), Conflict)
    rows = house.comparisons.export_votes("winter")
    assert [(r["choice"], r["revision"], r["counts"]) for r in rows] == [("left", 1, False), ("both_bad", 2, True)]
    assert house.studies.result("winter").both_bad_share == 1.0


def test_a_first_vote_cannot_claim_to_revise(db: Database) -> None:
    house = opened(db)
    refuses(house, house.reviewers[0], ballot(pair(house), revises=1), Conflict)


def test_a_vote_stands_once_the_arms_were_shown(db: Database) -> None:
    house = opened(db, reveal="after_vote")
    found = pair(house)
    with pytest.raises(Refused):
        house.comparisons.reveal(house.reviewers[0], found.assignment)
    house.comparisons.vote(house.reviewers[0], ballot(found, prefer(found, VARIANTS[1]), key="a"))
    shown = house.comparisons.reveal(house.reviewers[0], found.assignment)
    assert {shown.left, shown.right} == {"base", "tuned-v3"}
    assert (shown.left == "tuned-v3") == (VARIANTS[1] in found.left)
    refuses(house, house.reviewers[0], ballot(found, "tie", key="b", revises=1))


@pytest.mark.parametrize("reveal", ["after_close", "after_vote"])
def test_no_name_is_revealed_while_another_study_compares_the_same_answers_blind(db: Database, reveal: str) -> None:
    house = opened(db, reveal=reveal)
    found = cast(house, 0)
    me = house.reviewers[0]
    house.studies.create("spring", "tickets", ["base", "tuned-v3"], checks=False)
    if reveal == "after_close":
        house.studies.close("winter")
    assert house.comparisons.reveal(me, found.assignment).left in ("base", "tuned-v3")
    house.studies.open("spring")
    for move in (lambda: None, lambda: house.studies.pause("spring")):
        move()
        with pytest.raises(Refused, match="judged blind in another study"):
            house.comparisons.reveal(me, found.assignment)
    house.studies.close("spring")
    assert house.comparisons.reveal(me, found.assignment).left in ("base", "tuned-v3")


def test_arms_are_revealed_after_close_and_not_to_others(db: Database) -> None:
    house = opened(db)
    found = cast(house, 0)
    with pytest.raises(Refused):
        house.comparisons.reveal(house.reviewers[0], found.assignment)
    house.studies.close("winter")
    assert house.comparisons.reveal(house.reviewers[0], found.assignment).left in ("base", "tuned-v3")
    with pytest.raises(Refused):
        house.comparisons.reveal(house.reviewers[1], found.assignment)


@pytest.mark.parametrize("statement", ["UPDATE vote SET choice = 'right'", "DELETE FROM vote"])
def test_a_stored_vote_cannot_be_changed_by_sql(db: Database, statement: str) -> None:
    house = opened(db)
    cast(house, 0, "left")
    with pytest.raises(Exception, match="kept for good"), db.write() as session:
        session.execute(text(statement))
    assert house.comparisons.export_votes("winter")[0]["choice"] == "left"


# T15


def test_a_failing_side_voids_the_pair_with_one_message_whichever_side(db: Database) -> None:
    messages = []
    house = opened(db, prompts=4)
    for side in ("left", "right"):
        found = pair(house)
        void(house, side, found.assignment)
        messages.append(refuses(house, house.reviewers[0], ballot(found, key=side)))
        assert pair(house).assignment != found.assignment
    assert messages == [VOIDED, VOIDED]
    assert pair(house).total == 2


def test_votes_on_a_pair_voided_later_leave_the_result(db: Database) -> None:
    house = opened(db)
    found = cast(house, 0)
    void(house, "left", found.assignment)
    result = house.studies.result("winter")
    assert (result.votes, result.voided) == (0, 1)


def test_identical_answers_are_recorded_and_never_shown(db: Database) -> None:
    house = furnish(db, prompts=3)
    with db.write() as session:
        first, second = session.exec(select(Answer).where(Answer.prompt_id == 1)).all()
        first.voided_at = second.voided_at = 1.0
        session.flush()
        session.add_all(
            [
                Answer(arm_id=first.arm_id, prompt_id=1, text="The same.\r\n"),
                Answer(arm_id=second.arm_id, prompt_id=1, text="The same."),
            ]
        )
    house.studies.create("winter", "tickets", ["base", "tuned-v3"])
    house.studies.open("winter")
    assert count(db, IdenticalPair) == 1
    seen = [cast(house, 0).prompt for _ in range(2)]
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)
    assert not any("problem 0" in prompt for prompt in seen)
    assert house.studies.result("winter").identical == 1


def test_answers_that_come_or_go_while_a_study_is_open_are_noticed(db: Database) -> None:
    house = opened(db, prompts=3)
    assert pair(house).total == 3
    with db.write() as session:
        answer = session.exec(select(Answer).where(Answer.prompt_id == 2)).first()
        answer.voided_at = 1.0
    totals = [pair(house).total]
    with db.write() as session:
        session.add(Answer(arm_id=answer.arm_id, prompt_id=2, text="Another answer."))
    totals.append(pair(house).total)
    assert totals == [2, 3]


def test_answers_that_became_identical_after_opening_are_recorded_when_met(db: Database) -> None:
    house = opened(db, prompts=1)
    with db.write() as session:
        for answer in session.exec(select(Answer)).all():
            answer.voided_at = 1.0
            session.flush()
            session.add(Answer(arm_id=answer.arm_id, prompt_id=answer.prompt_id, text="same"))
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)
    assert (count(db, IdenticalPair), count(db, Assignment)) == (1, 0)


def test_an_empty_answer_is_shown_as_such(db: Database) -> None:
    house = opened(db, prompts=1)
    with db.write() as session:
        answer = session.exec(select(Answer)).first()
        answer.voided_at = 1.0
        session.flush()
        session.add(Answer(arm_id=answer.arm_id, prompt_id=answer.prompt_id, text=" \n"))
    assert EMPTY in (pair(house).left, pair(house).right)


@pytest.mark.parametrize("tell", ["I am SmolLM, a helpful model.", "As tuned-v3 I would say so.", "As TUNED V3 I would."])
def test_a_pair_that_names_an_arm_is_marked_and_kept_out_of_the_result(db: Database, tell: str) -> None:
    house = opened(db, prompts=1)
    with db.write() as session:
        answer = session.exec(select(Answer)).first()
        answer.voided_at = 1.0
        session.flush()
        session.add(Answer(arm_id=answer.arm_id, prompt_id=answer.prompt_id, text=tell))
    cast(house, 0)
    result = house.studies.result("winter")
    assert (result.votes, result.marked) == (0, 1)
    assert not house.comparisons.export_votes("winter")[0]["counts"]


def test_an_adapter_named_like_the_product_marks_nothing(db: Database) -> None:
    house = furnish(db, prompts=1, arms=("base", "connectpro"))
    with db.write() as session:
        set_id = session.exec(select(Prompt.set_id)).first()
        session.add(Prompt(set_id=set_id, split="test", instruction="Does ConnectPro run on Linux?", content_hash="x"))
        session.flush()
        prompt = session.exec(select(Prompt).where(Prompt.content_hash == "x")).one()
        for arm in (1, 2):
            session.add(Answer(arm_id=arm, prompt_id=prompt.id, text=f"ConnectPro runs on Linux, edition {arm}."))
    house.studies.create("winter", "tickets", ["base", "connectpro"])
    house.studies.open("winter")
    for _ in range(2):
        cast(house, 0)
    assert house.studies.result("winter").marked == 0


# The ideal answer


@pytest.mark.parametrize("choice", ["left", "right", "tie", "both_bad"])
def test_the_ideal_answer_starts_from_the_better_side(db: Database, choice: Any) -> None:
    house = opened(db)
    found = cast(house, 0, choice)
    expected = {"left": found.left, "right": found.right, "tie": found.left, "both_bad": ""}[choice]
    assert house.comparisons.starting_text(house.reviewers[0], found.assignment) == expected


def test_the_ideal_answer_is_appended_once_a_key_and_only_after_the_vote(db: Database) -> None:
    house = opened(db)
    found, me = pair(house), house.reviewers[0]
    with pytest.raises(Refused, match="Vote on this pair first"):
        house.comparisons.correct(me, found.assignment, "Do this.", "c1")
    house.comparisons.vote(me, ballot(found))
    receipts = in_parallel(10, lambda i: house.comparisons.correct(me, found.assignment, "Do this.", "c1"))
    assert len(set(receipts)) == 1, receipts
    assert receipts[0].revision == 1
    assert house.comparisons.correct(me, found.assignment, "Do that.", "c2").revision == 2
    assert house.comparisons.correct(me, found.assignment, "Do this.", "c1") == receipts[0]
    assert count(db, Correction) == 2


def test_anothers_pair_an_empty_text_and_a_used_key_are_refused_as_corrections(db: Database) -> None:
    house = opened(db)
    found, (me, other) = cast(house, 0), house.reviewers
    house.comparisons.correct(me, found.assignment, "Do this.", "c1")
    for reviewer, sent, key, error in [
        (other, "Do this.", "c2", Refused),
        (other, "Do this.", "c1", Conflict),
        (me, "Something else.", "c1", Conflict),
        (me, " \n", "c3", BadInput),
        (me, "x" * 20_001, "c4", BadInput),
        (me, "\ud800", "c5", BadInput),
    ]:
        with pytest.raises(error):
            house.comparisons.correct(reviewer, found.assignment, sent, key)
    with pytest.raises(Refused):
        house.comparisons.starting_text(other, found.assignment)
    assert count(db, Correction) == 1


# T12


def test_nothing_a_reviewer_gets_before_the_vote_names_an_arm(db: Database) -> None:
    canary = "canary-7f3a9c"
    house = opened(db, prompts=4, arms=("base", canary), criteria=["accuracy"])
    me, other = house.reviewers
    said: list[object] = []
    for turn in range(4):
        found = pair(house)
        said.append(found)
        for reviewer, sent in [
            (other, ballot(found)),
            (me, ballot(found, canary)),
            (me, ballot(found, criteria={"x": "left"})),
            (me, ballot(found, revises=9)),
        ]:
            with pytest.raises(UserError) as caught:
                house.comparisons.vote(reviewer, sent)
            said.append(str(caught.value))
        said.append(house.comparisons.vote(me, ballot(found, key=f"k{turn}")))
        said.append(house.comparisons.starting_text(me, found.assignment))
    said.append(house.comparisons.next_pair(me))
    assert canary not in repr(said)
    assert canary in repr(house.comparisons.export_votes("winter")), "the search finds it where it is"
