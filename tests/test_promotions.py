"""Promotion: the page tells what speaks against an adapter, a person decides, one click goes back, a rule acts only as declared."""

from pathlib import Path

import pytest

from ft.errors import BadInput, Conflict, Refused
from review.services.adapters import Adapters
from review.services.boards import Boards
from review.services.keeping import Keeping
from review.services.promotions import PromotionRule, Promotions
from storage.database import Database
from storage.queries import keeping as kept
from storage.tables import Adapter, Answer, IntegrityCheck
from tests.judging import House, arm_id, cast, opened, prefer


@pytest.fixture
def house(db: Database) -> House:
    return opened(db, prompts=40, rule={"min_votes": 5, "e_value": 5.0})


@pytest.fixture
def promotions(house: House, home: Path) -> Promotions:
    return Promotions(house.db, Adapters(house.db, home), house.studies, Boards(house.db), Keeping(house.db))


def win(house: House, votes: int = 30) -> None:
    """The tuned arm wins every vote, and the study is closed."""
    for _ in range(votes):
        cast(house, 0, lambda pair: prefer(pair, "restart the client"))
    house.studies.close("winter")


def answer_canaries(house: House, tuned: str = "Tokyo") -> None:
    (name,) = Keeping(house.db).sets()
    with house.db.write() as session:
        held = kept.set_for(session, "canary")
        assert held is not None
        assert held.name == name
        for arm, text in (("base", "Tokyo"), ("tuned-v3", tuned)):
            session.add_all(
                Answer(arm_id=arm_id(session, arm), prompt_id=prompt.id or 0, text=text)
                for prompt in kept.prompts_of(session, held.id or 0)
            )


def test_a_page_without_votes_or_checks_says_what_is_missing(promotions: Promotions) -> None:
    case = promotions.case("tuned-v3")
    assert case.used == "base"
    assert not case.ship
    assert any("No closed study says Ship" in words for words in case.against)
    assert any("what got worse" in words for words in case.against)


def test_a_person_promotes_and_what_the_page_showed_is_kept(house: House, promotions: Promotions) -> None:
    win(house)
    answer_canaries(house)
    case = promotions.case("tuned-v3")
    assert case.ship
    assert case.against == ()
    view = promotions.promote("tuned-v3", house.engineer, "Better in every way")
    assert (view.adapter, view.by, view.reason) == ("tuned-v3", "engineer", "Better in every way")
    assert view.evidence["studies"][0]["verdict"] == "ship"
    assert promotions.case("tuned-v3").used == "tuned-v3"
    with pytest.raises(Conflict, match="in use already"):
        promotions.promote("tuned-v3", house.engineer)


def test_whether_there_is_another_answer_to_look_at_is_told_without_judging_all(house: House, promotions: Promotions) -> None:
    before = promotions.looked_at("tuned-v3")
    assert promotions.looked_at("tuned-v3") == before
    answer_canaries(house)
    after = promotions.looked_at("tuned-v3")
    assert after != before
    assert promotions.case("tuned-v3").got_worse.compared == 38
    assert "(38, 38)" in after
    promotions.promote("tuned-v3", house.engineer)
    assert promotions.looked_at("tuned-v3") != after, "it is compared with something else now"


def test_what_got_worse_and_a_failed_check_speak_against_it(house: House, promotions: Promotions) -> None:
    win(house)
    answer_canaries(house, tuned="Open Settings")
    with house.db.write() as session:
        session.add(IntegrityCheck(kind="adapter", adapter_id=1, ok=False, words="it does nothing"))
    case = promotions.case("tuned-v3")
    assert "1 of 38 answers that were good got worse." in case.against
    assert "Integrity: it does nothing" in case.against
    assert case.got_worse.worse[0].new == "Open Settings"


def test_one_click_goes_back(house: House, promotions: Promotions) -> None:
    assert promotions.previous() is None
    with pytest.raises(Conflict, match="nothing to go back to"):
        promotions.roll_back(house.engineer)
    promotions.promote("tuned-v3", house.engineer)
    assert promotions.previous() == "base"
    assert promotions.roll_back(house.engineer).adapter == "base"
    assert promotions.case("tuned-v3").used == "base"
    assert [view.adapter for view in promotions.history()] == ["base", "tuned-v3"]
    assert promotions.previous() == "tuned-v3"
    promotions.roll_back(house.engineer)
    with house.db.write() as session:
        adapter = session.get_one(Adapter, 1)
        adapter.status = "quarantined"
    assert promotions.previous() == "base"


def test_an_adapter_in_quarantine_never_goes_into_use(house: House, promotions: Promotions) -> None:
    with house.db.write() as session:
        adapter = session.get_one(Adapter, 1)
        adapter.status, adapter.status_reason = "quarantined", "Its weights are not finite."
    with pytest.raises(Refused, match="not finite"):
        promotions.promote("tuned-v3", house.engineer)
    assert promotions.history() == []


def test_nothing_goes_into_use_by_itself_until_a_rule_is_declared(house: House, promotions: Promotions) -> None:
    win(house)
    answer_canaries(house)
    assert promotions.consider() is None
    promotions.declare(PromotionRule(automatic=True), house.engineer)
    assert promotions.consider() == "tuned-v3"
    assert promotions.history()[0].by == "the declared rule"
    promotions.roll_back(house.engineer)
    assert promotions.consider() is None, "what a person took back stays back"
    with pytest.raises(BadInput, match="max_worse is -1"):
        promotions.declare(PromotionRule(True, -1), house.engineer)


def test_the_rule_waits_while_answers_are_missing_or_worse(house: House, promotions: Promotions) -> None:
    win(house)
    promotions.declare(PromotionRule(automatic=True), house.engineer)
    assert promotions.consider() is None, "the general questions are not answered"
    answer_canaries(house, tuned="Open Settings")
    assert promotions.consider() is None
    promotions.declare(PromotionRule(automatic=True, max_worse=1), house.engineer)
    assert promotions.consider() == "tuned-v3"


def test_a_draft_study_new_against_in_use_waits_for_a_lead(house: House, promotions: Promotions) -> None:
    Boards(house.db).score("tickets", "test", ["tuned-v3"])
    assert promotions.prepare_study("tuned-v3", house.engineer) == "tuned-v3 against base"
    study = house.studies.study("tuned-v3 against base")
    assert (study.state, study.against, study.arms) == ("draft", "base", ("base", "tuned-v3"))
    assert promotions.prepare_study("tuned-v3", house.engineer) is None, "once"


def test_adapters_with_long_names_get_their_study_too(db: Database, home: Path) -> None:
    house = opened(db, prompts=6, arms=("base", "x" * 64))
    promotions = Promotions(db, Adapters(db, home), house.studies, Boards(db), Keeping(db))
    Boards(db).score("tickets", "test", ["x" * 64])
    assert promotions.prepare_study("x" * 64, house.engineer) == f"{'x' * 45} against base"
