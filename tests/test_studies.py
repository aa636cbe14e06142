"""Studies against a real database: declaring, opening, progress and result."""

import json
from dataclasses import asdict, replace

import pytest
from sqlalchemy import text
from sqlmodel import select

from ft.errors import BadInput, Conflict, NotFound, Refused, UserError
from review.protocol.ballots import Ballot, Rest
from review.protocol.criteria import DEFAULT_CRITERIA, DEFAULT_REASONS
from review.protocol.tally import VoteRecord, tally
from review.protocol.verdict import Rule
from review.services.studies import Studies
from storage.database import Database
from storage.tables import Answer, Arm, Audit, Prompt, Study
from tests.judging import VARIANTS, cast, count, furnish, opened, pair, prefer


def likes_tuned(found):  # type: ignore[no-untyped-def]
    return prefer(found, VARIANTS[1])


def void_one(db: Database) -> None:
    with db.write() as session:
        answer = session.exec(select(Answer)).first()
        assert answer
        answer.voided_at = 1.0


def test_a_study_declares_arms_prompts_and_rule_and_starts_as_a_draft(db: Database) -> None:
    house = furnish(db)
    made = house.studies.create("winter", "tickets", ["tuned-v3", "base"], criteria=["accuracy"], rule={"min_votes": 3}, by=house.engineer)
    assert (made.state, made.set_name, made.split, made.votes_per_pair, made.against) == ("draft", "tickets", "test", 1, "base")
    assert made.arms == ("base", "tuned-v3")
    assert made.rule == Rule(min_votes=3)
    assert house.studies.studies() == [made] == [house.studies.study("winter")]


def test_the_default_rule_never_asks_for_more_votes_than_the_study_can_collect(db: Database) -> None:
    house = furnish(db, prompts=6)
    assert house.studies.create("small", "tickets", ["base", "tuned-v3"]).rule.min_votes == 6
    assert house.studies.create("large", "tickets", ["base", "tuned-v3"], votes_per_pair=5).rule.min_votes == 20


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "  "}, BadInput, "name"),
        ({"name": "x" * 101}, BadInput, "100"),
        ({"arms": ["base"]}, BadInput, "two different arms"),
        ({"arms": ["base", "base"]}, BadInput, "two different arms"),
        ({"arms": ["base", "gone"]}, NotFound, "tuned-v3"),
        ({"set_name": "gone"}, NotFound, "tiebreak import"),
        ({"split": "all"}, BadInput, "train, validation, test"),
        ({"split": "train"}, BadInput, "no train prompts"),
        ({"votes_per_pair": 0}, BadInput, "votes_per_pair"),
        ({"reveal": "never"}, BadInput, "after_close"),
        ({"criteria": [" "]}, BadInput, "Criteria"),
        ({"rule": {"min_rate": 1}}, BadInput, "min_rate"),
        ({"rule": {"min_win_rate": 7}}, BadInput, "min_win_rate"),
        ({"rule": {"min_votes": 7}}, BadInput, "6 votes at most"),
        ({"against": "gone"}, BadInput, "gone"),
        ({"scale": "stars"}, BadInput, "sides or points"),
        ({"criteria": ["tone", "tone"]}, BadInput, "once"),
        ({"tags": ["vpn"]}, BadInput, "no test prompts tagged vpn"),
        ({"reviewers": ["engineer"]}, BadInput, "engineer cannot review"),
        ({"reviewers": ["nobody"]}, BadInput, "nobody cannot review"),
        ({"reviewers": ["reviewer 0"], "votes_per_pair": 2}, BadInput, "needs 2 reviewers, but only 1"),
        ({"reviewers": ["reviewer 0"], "rule": {"min_reviewers": 2}}, BadInput, "only 1 are named"),
        ({"rule": {"no_worse_tag": "often"}}, BadInput, "no_worse_tag"),
    ],
)
def test_a_wrong_declaration_is_refused_in_words_and_leaves_no_row(
    db: Database, change: dict[str, object], error: type[UserError], words: str
) -> None:
    house = furnish(db)
    good = {"name": "winter", "set_name": "tickets", "arms": ["base", "tuned-v3"]}
    with pytest.raises(error, match=words):
        house.studies.create(**(good | change))  # type: ignore[arg-type]
    assert count(db, Study) == 0


def test_everything_wrong_with_a_declaration_is_said_at_once(db: Database) -> None:
    with pytest.raises(BadInput) as caught:
        furnish(db).studies.create("", "tickets", [], split="x", votes_per_pair=0, reveal="y")
    assert len(str(caught.value).split(": choose")) == 4


def test_what_is_wrong_with_words_people_and_names_is_said_together(db: Database) -> None:
    with pytest.raises(BadInput) as caught:
        furnish(db).studies.create("", "gone", ["base", "lost"], reviewers=["nobody"], rule={"min_win_rate": 7}, scale="stars")
    for words in ("The name must", "scale is", "nobody cannot review", "no prompt set “gone”", "no arm lost", "min_win_rate is 7"):
        assert words in str(caught.value)


def tag(db: Database, **tags: list[str]) -> None:
    """`p0=["vpn"]` tags the prompt with that content hash."""
    with db.write() as session:
        for prompt in session.exec(select(Prompt)):
            prompt.tags = tags.get(prompt.content_hash, [])


def test_a_study_of_tags_and_named_reviewers_takes_only_those(db: Database) -> None:
    house = furnish(db, prompts=6)
    tag(db, p1=["vpn", "login"], p3=["login"], p4=["printer"])
    made = house.studies.create("winter", "tickets", ["base", "tuned-v3"], tags=["vpn", "printer"], reviewers=["reviewer 1"], checks=False)
    assert (made.tags, made.reviewers, made.scale, made.checks) == (("vpn", "printer"), ("reviewer 1",), "sides", False)
    assert made.criteria == DEFAULT_CRITERIA
    assert made.reasons == DEFAULT_REASONS
    assert made.rule.min_votes == 2
    house.studies.open("winter")
    told = house.studies.progress("winter")
    assert (told.pairs, told.needed) == (2, 2)
    assert [(t.tag, t.pairs, t.votes, t.needed) for t in told.tags] == [("login", 1, 0, 1), ("printer", 1, 0, 1), ("vpn", 1, 0, 1)]
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)
    assert {cast(house, 1).prompt.split("?")[0] for _ in range(2)} == {"How do I fix problem 1", "How do I fix problem 4"}
    assert isinstance(house.comparisons.next_pair(house.reviewers[1]), Rest)
    assert [t.votes for t in house.studies.progress("winter").tags] == [1, 1, 1]


def test_only_the_answers_to_the_tagged_prompts_are_needed(db: Database) -> None:
    house = furnish(db, prompts=4)
    tag(db, p2=["vpn"])
    void_one(db)
    assert house.studies.create("winter", "tickets", ["base", "tuned-v3"], tags=["vpn"]).tags == ("vpn",)
    with pytest.raises(Refused, match="lacks 1 of 4"):
        house.studies.create("spring", "tickets", ["base", "tuned-v3"])


@pytest.mark.parametrize("kind", ["human", "imported", "remote"])
def test_any_kind_of_arm_that_answered_takes_part(db: Database, kind: str) -> None:
    house = furnish(db, prompts=3)
    with db.write() as session:
        arm = Arm(name="other", kind=kind, settings_hash="other")
        session.add(arm)
        session.flush()
        session.add_all(
            Answer(arm_id=arm.id, prompt_id=prompt.id, text=f"Another answer {prompt.id}.") for prompt in session.exec(select(Prompt))
        )
    made = house.studies.create("winter", "tickets", ["base", "tuned-v3", "other"], checks=False)
    assert made.arms == ("base", "tuned-v3", "other")
    assert made.tuned == ("tuned-v3",)
    house.studies.open("winter")
    assert house.studies.progress("winter").pairs == 9


@pytest.mark.parametrize(
    ("kind", "words"), [("human", "has a reference"), ("imported", "cannot be asked for more"), ("remote", "tiebreak answer")]
)
def test_what_to_do_about_missing_answers_depends_on_the_arm(db: Database, kind: str, words: str) -> None:
    house = furnish(db)
    with db.write() as session:
        session.add(Arm(name="other", kind=kind, settings_hash="other"))
    with pytest.raises(Refused, match=words):
        house.studies.create("winter", "tickets", ["base", "other"])


def test_a_copy_declares_the_same_under_another_name_and_may_change_things(db: Database) -> None:
    house = furnish(db)
    first = house.studies.create("winter", "tickets", ["tuned-v3", "base"], votes_per_pair=2, criteria=["tone"], scale="points", reasons=[],
                                 rule={"min_win_rate": 0.7}, against="tuned-v3", reviewers=["reviewer 0", "reviewer 1"])  # fmt: skip
    house.studies.open("winter")
    same = house.studies.copy("winter", "spring", by=house.engineer)
    assert same.state == "draft"
    assert replace(same, id=first.id, name="winter", created_at=first.created_at) == first
    changed = house.studies.copy("winter", "summer", scale="sides", rule={"min_win_rate": 0.6})
    assert (changed.scale, changed.rule.min_win_rate, changed.criteria) == ("sides", 0.6, ("tone",))
    with pytest.raises(Conflict):
        house.studies.copy("winter", "spring")
    with pytest.raises(NotFound):
        house.studies.copy("gone", "fall")


def test_a_study_declared_before_tags_were_looked_at_goes_on_without_them(db: Database) -> None:
    house = furnish(db)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"])
    with db.write() as session:
        study = session.exec(select(Study)).one()
        study.rule = {name: value for name, value in study.rule.items() if name != "no_worse_tag"}
    assert not house.studies.study("winter").rule.no_worse_tag


def test_skipped_pairs_are_told_with_their_reasons(db: Database) -> None:
    house = opened(db, prompts=3)
    found = pair(house, 0)
    house.comparisons.skip(house.reviewers[0], found.assignment, "Not my product.", "s1")
    told = house.studies.progress("winter")
    assert [(s.reviewer, s.reason) for s in told.skipped] == [("reviewer 0", "Not my product.")]
    assert told.skipped[0].prompt.startswith("How do I fix problem")
    assert [(r.name, r.votes, r.skipped) for r in told.reviewers] == [("reviewer 0", 0, 1)]


def test_a_result_is_counted_anew_when_something_came_in(db: Database) -> None:
    house = opened(db, prompts=4, votes_per_pair=2)
    cast(house, 0)
    first = house.studies.result("winter")
    assert house.studies.result("winter") is first
    cast(house, 1)
    assert house.studies.result("winter").votes == 2
    house.studies.decide_reviewer("winter", "reviewer 1", False, "Not a reviewer any more.")
    assert house.studies.result("winter").votes == 1
    void_one(db)
    assert house.studies.result("winter") is not first
    house.studies.close("winter")
    assert house.studies.result("winter").study.state == "closed"


def test_a_taken_name_is_refused(db: Database) -> None:
    house = opened(db)
    with pytest.raises(Conflict, match="exists already"):
        house.studies.create("winter", "tickets", ["base", "tuned-v3"])


def test_arms_that_lack_answers_are_named_with_what_to_run(db: Database) -> None:
    house = furnish(db)
    with db.write() as session:
        session.add(Arm(name="my new", kind="remote", settings_hash="n"))
    void_one(db)
    with pytest.raises(Refused) as caught:
        house.studies.create("winter", "tickets", ["base", "tuned-v3", "my new"])
    assert "base lacks 1 of 6 answers, my new lacks 6 of 6 answers" in str(caught.value)
    assert "tiebreak answer tickets --split test --arm base --arm 'my new'" in str(caught.value)


def test_a_draft_whose_answers_were_voided_does_not_open(db: Database) -> None:
    house = furnish(db)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"])
    void_one(db)
    with pytest.raises(Refused, match="lacks 1 of 6"):
        house.studies.open("winter")


def test_a_study_opens_pauses_reopens_and_closes_for_good(db: Database) -> None:
    house = furnish(db)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"], by=house.engineer)
    for wrong in (house.studies.pause, house.studies.close):
        with pytest.raises(Refused):
            wrong("winter")
    first = house.studies.open("winter", by=house.engineer)
    assert house.studies.open("winter") == first
    assert house.studies.pause("winter", by=house.engineer).state == "paused"
    again = house.studies.open("winter", by=house.engineer)
    assert (again.state, again.opened_at) == ("open", first.opened_at)
    closed = house.studies.close("winter", by=house.engineer)
    assert closed.closed_at
    assert house.studies.close("winter") == closed
    for wrong in (house.studies.open, house.studies.pause):
        with pytest.raises(Refused):
            wrong("winter")
    with db.session() as session:
        actions = [(row.action, row.user_id) for row in session.exec(select(Audit))]
    assert actions == [(f"study.{a}", house.engineer) for a in ("created", "opened", "paused", "opened", "closed")]


def test_an_unknown_study_is_not_found(db: Database) -> None:
    house = furnish(db)
    for act in (house.studies.study, house.studies.open, house.studies.progress, house.studies.result, house.comparisons.export_votes):
        with pytest.raises(NotFound, match="gone"):
            act("gone")


def test_the_rule_cannot_change_after_opening_even_by_sql(db: Database) -> None:
    opened(db)
    with pytest.raises(Exception, match="fixed once it is open"), db.write() as session:
        session.execute(text("UPDATE study SET rule = '{}'"))


def test_prompts_imported_after_opening_do_not_join(db: Database) -> None:
    house = opened(db, prompts=3)
    with db.write() as session:
        first = session.exec(select(Prompt)).first()
        assert first
        late = Prompt(set_id=first.set_id, split="test", instruction="Late?", content_hash="late")
        session.add(late)
        session.flush()
        for arm in session.exec(select(Arm)).all():
            session.add(Answer(arm_id=arm.id, prompt_id=late.id, text=f"Late answer of {arm.id}."))
        session.add(Prompt(set_id=first.set_id, split="test", instruction="Unanswered?", content_hash="unanswered"))
    assert house.studies.progress("winter").pairs == 3
    house.studies.pause("winter")
    house.studies.open("winter")
    assert not any("Late" in cast(house, 0).prompt for _ in range(3))
    assert isinstance(house.comparisons.next_pair(house.reviewers[0]), Rest)


def test_a_study_of_seventeen_thousand_prompts_opens_and_hands_out_pairs(db: Database) -> None:
    """More answers than SQLite takes as parameters of one query."""
    house = furnish(db, prompts=17_000)
    house.studies.create("large", "tickets", ["base", "tuned-v3"], checks=False)
    house.studies.open("large")
    assert cast(house, 0).total == 17_000


def test_progress_tells_votes_pairs_and_each_reviewers_pace(db: Database) -> None:
    house = opened(db, prompts=4, votes_per_pair=2)
    cast(house, 0, seconds=40)
    cast(house, 0, seconds=60)
    cast(house, 1, seconds=30)
    pair(house, 1)
    told = house.studies.progress("winter")
    assert (told.votes, told.needed, told.pairs, told.identical) == (3, 8, 4, 0)
    assert [(r.name, r.votes, r.seconds) for r in told.reviewers] == [("reviewer 0", 2, 50), ("reviewer 1", 1, 30)]


def test_a_reviewer_who_cannot_have_read_is_doubted(db: Database) -> None:
    house = opened(db, prompts=12, votes_per_pair=2)
    for _ in range(12):
        cast(house, 0, seconds=1)
        cast(house, 1, "tie", seconds=40)
    hasty, steady = house.studies.progress("winter").reviewers
    assert "12 of 12 votes came faster" in hasty.doubts[0]
    assert steady.doubts == ()


def test_a_study_without_votes_has_a_result_that_asks_for_them(db: Database) -> None:
    result = opened(db).studies.result("winter")
    assert (result.votes, result.verdict.kind, result.verdict.votes_needed) == (0, "more", 6)
    assert json.loads(json.dumps(asdict(result), allow_nan=False))["best"] == "tuned-v3"


def test_a_clear_preference_ships_with_rate_interval_and_evidence(db: Database) -> None:
    house = opened(db, prompts=30, votes_per_pair=2)
    for turn in range(30):
        for reviewer in range(2):
            cast(house, reviewer, "tie" if turn % 10 == 9 else likes_tuned)
    result = house.studies.result("winter")
    tuned, base = result.arm("tuned-v3"), result.arm("base")
    assert tuned
    assert base
    assert (tuned.votes, tuned.win_rate.wins, tuned.win_rate.losses) == (60, 54, 0)
    assert tuned.win_rate.value == 0.95
    assert base.win_rate.value == pytest.approx(0.05)
    assert tuned.win_rate.low > 0.8
    assert (result.verdict.kind, result.best, result.flips) == ("ship", "tuned-v3", ())
    assert result.e_value > 1000
    assert tuned.title == ""
    assert tuned.kind == "adapter"
    assert base.verdict is None


def test_agreement_is_told_where_reviewers_overlap(db: Database) -> None:
    house = opened(db, prompts=10, votes_per_pair=2)
    for turn in range(10):
        for reviewer in range(2):
            cast(house, reviewer, (lambda p: prefer(p, VARIANTS[1])) if turn % 2 else (lambda p: prefer(p, VARIANTS[0])))
    agreement = house.studies.result("winter").agreement
    assert agreement is not None
    assert -1 <= agreement <= 1
    assert opened_without_overlap(house) is None


def opened_without_overlap(house) -> float | None:  # type: ignore[no-untyped-def]
    house.studies.close("winter")
    house.studies.create("spring", "tickets", ["base", "tuned-v3"])
    house.studies.open("spring")
    cast(house, 0)
    return house.studies.result("spring").agreement


# T28


def test_the_result_recomputed_from_the_export_is_the_displayed_one(db: Database) -> None:
    house = opened(db, prompts=12, arms=("base", "tuned-v3", "tuned-v4"), votes_per_pair=2)
    choices = ["left", "right", "tie", "both_bad", likes_tuned]
    for turn in range(30):
        for reviewer in range(2):
            found = cast(house, reviewer, choices[(turn * 3 + reviewer) % 5], seconds=5 + turn)
            if turn % 7 == 0:
                again = Ballot(found.assignment, "right", key=f"again {found.assignment}", revises=1)
                house.comparisons.vote(house.reviewers[reviewer], again)
    shown = house.studies.result("winter")
    exported = [json.loads(json.dumps(row)) for row in house.comparisons.export_votes("winter")]
    records = [
        VoteRecord(
            assignment=row["assignment_id"],
            revision=row["revision"],
            pair=row["pair_key"],
            prompt=row["prompt_id"],
            reviewer=row["reviewer_id"],
            left_arm=row["left_arm"],
            right_arm=row["right_arm"],
            choice=row["choice"],
            kind=row["kind"],
            marked=bool(row["marked"]),
            voided=row["voided"],
            seconds=row["seconds"],
            characters=row["characters"],
            criteria=row["criteria"],
            tags=tuple(row["tags"]),
        )
        for row in exported
    ]
    again = tally(records, shown.study.arms, shown.study.against, shown.study.rule, criteria=shown.study.criteria)
    assert [{k: v for k, v in asdict(arm).items() if k not in ("tags", "conditions")} for arm in again.arms] == [
        {k: v for k, v in asdict(arm).items() if k not in ("kind", "title", "votes")} for arm in shown.arms
    ]
    for told in ("best", "verdict", "e_value", "agreement", "votes", "tags", "agreements", "consistency", "side", "conditions"):
        assert getattr(again, told) == getattr(shown, told), told
    assert sum(row["counts"] for row in exported) == shown.votes == 60


def test_a_result_survives_the_process(db: Database) -> None:
    house = opened(db)
    cast(house, 0)
    before = house.studies.result("winter")
    other = Database(str(db.url))
    assert Studies(other).result("winter") == before
    other.close()
