"""What got worse: canaries by rule, kept answers by closeness; the keep-list comes from reviewers and never from training prompts."""

import pytest
from sqlmodel import select

from ft.canaries import canaries
from ft.errors import NotFound
from review.services.boards import Boards
from review.services.keeping import Keeping
from review.services.library import Library
from storage.database import Database
from storage.queries import keeping as rows
from storage.tables import Answer, Arm, Correction, Prompt, PromptSet
from tests.ballot_box import fill, vote


@pytest.fixture
def keeping(db: Database) -> Keeping:
    return Keeping(db)


def give(db: Database, arm: str, answers: dict[str, str], set_name: str, only: str = "") -> None:
    """Store an arm's answers to the prompts of a set that begin with these words; "" answers all others. `only`: to prompts so begun."""
    with db.write() as session:
        found = session.exec(Arm.__table__.select().where(Arm.name == arm)).first()  # type: ignore[attr-defined, call-overload]
        if found is None:
            session.add(Arm(name=arm, kind="imported", settings_hash=arm))
            session.flush()
    with db.write() as session:
        arm_id = session.exec(Arm.__table__.select().where(Arm.name == arm)).first()[0]  # type: ignore[attr-defined, call-overload]
        set_id = session.exec(PromptSet.__table__.select().where(PromptSet.name == set_name)).first()[0]  # type: ignore[attr-defined, call-overload]
        for prompt in rows.prompts_of(session, set_id):
            if not prompt.instruction.startswith(only):
                continue
            text = next((text for start, text in answers.items() if start and prompt.instruction.startswith(start)), answers.get("", ""))
            session.add(Answer(arm_id=arm_id, prompt_id=prompt.id or 0, text=text))


def test_the_canaries_are_there_once_under_a_free_name(db: Database, keeping: Keeping) -> None:
    with db.write() as session:
        session.add(PromptSet(name="General abilities"))
    assert keeping.sets() == ["General abilities 2"]
    assert keeping.sets() == ["General abilities 2"]
    with db.session() as session:
        held = rows.set_for(session, "canary")
        assert held is not None
        assert len(rows.prompts_of(session, held.id or 0)) == len(canaries())


def test_what_must_not_get_worse_stands_behind_the_teams_own_prompts(db: Database, keeping: Keeping) -> None:
    with db.write() as session:
        session.add(PromptSet(name="tickets"))
    (name,) = keeping.sets()
    give(db, "old", {"": "Tokyo"}, name)
    with db.write() as session:
        session.add(Prompt(set_id=1, split="test", instruction="Why?", content_hash="why"))
    give(db, "old", {"": "So."}, "tickets")
    assert [view.name for view in Library(db).sets()] == [name, "tickets"]
    assert [link.set_name for link in Boards(db).boards()] == ["tickets", name]


def test_an_unlearned_ability_is_named_first_with_both_answers(db: Database, keeping: Keeping) -> None:
    (name,) = keeping.sets()
    give(db, "old", {"What is the capital of Japan": "Tokyo", "What is 7 + 5": "12", "What is 9 times": "I do not know"}, name)
    give(db, "new", {"What is the capital of Japan": "Tokyo.", "What is 7 + 5": "Open Settings.", "What is 9 times": "54"}, name)
    found = keeping.compare("new", "old")
    assert (found.compared, found.total, found.complete) == (len(canaries()), len(canaries()), True)
    (regression,) = found.worse
    assert (regression.old, regression.new, regression.group) == ("12", "Open Settings.", "arithmetic")
    assert regression.why == "The answer says none of 12, twelve."
    assert found.better == 1
    assert found.groups[0].name == "arithmetic"
    assert (found.groups[0].old_good, found.groups[0].new_good, found.groups[0].worse) == (1, 1, 1)


def test_without_answers_nothing_is_compared_and_it_says_so(db: Database, keeping: Keeping) -> None:
    (name,) = keeping.sets()
    give(db, "old", {"": "x"}, name)
    give(db, "other", {"": "x"}, name)
    with db.write() as session:
        session.add(Arm(name="new", kind="imported", settings_hash="new"))
    found = keeping.compare("new", "old")
    assert (found.compared, found.complete, found.worse) == (0, False, ())
    with pytest.raises(NotFound, match="no arm nobody"):
        keeping.compare("nobody", "old")


def test_kept_answers_come_from_votes_and_corrections_on_test_prompts(db: Database, keeping: Keeping) -> None:
    first, second, third = fill(db, 3)
    vote(db, first, "a", choice="left")
    vote(db, second, "b", choice="both_bad")
    vote(db, third, "c", choice="left")
    with db.write() as session:
        session.add(Correction(id="c", assignment_id=third, reviewer_id=1, text="the ideal answer", request_key="k"))
    assert keeping.gather(by=1) == 2
    assert keeping.gather(by=1) == 0, "nothing is kept twice"
    with db.session() as session:
        held = rows.set_for(session, "keep")
        assert held is not None
        kept = {prompt.instruction: prompt.reference for prompt in rows.prompts_of(session, held.id or 0)}
    assert kept == {"question 1": "answer 1 of 1", "question 3": "the ideal answer"}


def test_a_vote_changed_later_counts_as_changed(db: Database, keeping: Keeping) -> None:
    (first,) = fill(db, 1)
    vote(db, first, "a", choice="left")
    vote(db, first, "b", revision=2, choice="both_bad")
    assert keeping.gather(by=1) == 0


def test_training_prompts_are_never_kept(db: Database, keeping: Keeping) -> None:
    with db.write() as session:
        session.add(PromptSet(id=9, name="other"))
        session.flush()
        session.add(Prompt(id=99, set_id=9, split="train", instruction="q", content_hash="q"))
    (first,) = fill(db, 1)
    vote(db, first, "a", choice="tie")
    keeping.gather(by=1)
    with db.session() as session:
        held = rows.set_for(session, "keep")
        assert held is not None
        assert {prompt.instruction for prompt in rows.prompts_of(session, held.id or 0)} == {"question 1"}


def test_a_kept_answer_that_is_said_otherwise_is_no_regression_but_a_lost_one_is(db: Database, keeping: Keeping) -> None:
    (first,) = fill(db, 1)
    with db.write() as session:
        session.add(Correction(id="c", assignment_id=first, reviewer_id=1, text="Open the menu and choose reset", request_key="k"))
    assert keeping.gather(by=1) == 1
    keep = next(name for name in keeping.sets() if name == "Keep list")
    give(db, "old", {"": "Open the menu and choose reset"}, keep)
    give(db, "near", {"": "Open the menu, then choose reset"}, keep)
    give(db, "far", {"": "Please call us"}, keep)
    assert keeping.compare("near", "old").worse == ()
    (lost,) = keeping.compare("far", "old").worse
    assert (lost.kind, lost.kept) == ("keep", "Open the menu and choose reset")
    assert lost.drop > 0.5


def test_answers_that_were_taken_back_are_not_compared_until_given_again(db: Database, keeping: Keeping) -> None:
    (name,) = keeping.sets()
    give(db, "old", {"What is the capital of Japan": "Tokyo"}, name)
    give(db, "new", {"What is the capital of Japan": "Open Settings."}, name)
    assert len(keeping.compare("new", "old").worse) == 1
    with db.write() as session:
        for answer in session.exec(select(Answer)).all():
            if answer.text == "Open Settings.":
                answer.voided_at = 1.0
                session.add(answer)
    found = keeping.compare("new", "old")
    assert (found.worse, found.complete, found.compared) == ((), False, len(canaries()) - 1)
    give(db, "new", {"What is the capital of Japan": "Tokyo"}, name, only="What is the capital of Japan")
    assert keeping.compare("new", "old").complete
