"""The lead's study room: a study is planned in words, its evidence reads plainly, disputes are decided blind, files go out and in."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ft.errors import BadInput
from ft.scripted import ScriptedEngine
from review.screens import evidence
from review.screens.lab import studies_declare as form
from review.screens.lab import studies_disputes as disputes
from review.screens.lab import studies_doubts as doubts
from review.screens.lab import studies_exchange as exchange
from review.screens.lab import studies_progress as progress
from review.screens.lab.studies_desk import Desk
from review.screens.trust import trust_html
from review.services import study_plans as plans
from review.services.exchange import Exchange
from review.services.house import House, build
from review.services.study_plans import Wish
from review.settings import Settings
from tests import study_room
from tests.judging import Clock
from tests.test_screens import HOSTILE

STUDY = "Spring"
WISH = Wish(STUDY, "tickets", arms=("base", "connectpro-v2"), votes_per_pair=2, rule={"min_win_rate": 0.55})


@pytest.fixture
def house(db: Any, home: Any) -> Iterator[House]:
    found = build(Settings(home, engine="scripted"), db, ScriptedEngine(study_room.scripted))
    study_room.furnish(found)
    yield found
    found.engine.close()


@pytest.fixture
def judged(house: House) -> House:
    """Rita and Ron judged everything; they differ on billing."""
    plans.declare(house.db, house.studies, replace(WISH, checks=False), None)
    house.studies.open(STUDY)
    study_room.judge(house, "Rita", 40)
    study_room.judge(house, "Ron", 40, bad_at="billing")
    return house


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_a_plan_says_how_much_work_a_study_is(house: House) -> None:
    plan = plans.plan(house.db, WISH)
    assert (plan.prompts, plan.pairs, plan.votes, plan.problems) == (12, 12, 24, ())
    said = words(form.plan_html(plan, WISH))
    assert "12 prompts × 1 pair × 2 reviewers = 24 votes" in said
    assert "about 13 minutes of reviewing in total" in said
    assert "Each prompt is a single question." in said
    three = plans.plan(house.db, replace(WISH, arms=("base", "connectpro-v2", "human"), tags=("network",)))
    assert (three.prompts, three.pairs, three.votes) == (4, 12, 24)
    assert three.tags == {"billing": 4, "network": 4, "sign-in": 4}


def test_conversations_are_told_from_single_questions(house: House) -> None:
    from storage.tables import Answer, Arm, Prompt

    with house.db.write() as session:
        one = session.query(Prompt).limit(1).one()
        asked = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
        talk = Prompt(set_id=one.set_id, split="test", instruction="And now?", history=asked, content_hash="talk")
        session.add(talk)
        session.flush()
        session.add_all(Answer(arm_id=arm.id or 0, prompt_id=talk.id or 0, text=arm.name) for arm in session.query(Arm))
    assert plans.plan(house.db, WISH).turns.startswith("1 of the prompts are conversations")


def test_an_imported_chat_of_several_turns_is_a_conversation(house: House, tmp_path: Any) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "So?"}]
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    house.library.import_file(tmp_path / "c.jsonl", "chats", split="test")
    assert plans.plan(house.db, replace(WISH, set_name="chats")).turns.startswith("Each prompt is a conversation")


def test_everything_wrong_with_a_wish_is_named_at_once(house: House) -> None:
    from storage.tables import Arm

    with house.db.write() as session:
        session.add(Arm(name="new one", kind="imported", settings_hash="new one"))
    house.studies.create("Taken", "tickets", ["base", "human"])
    wish = Wish(
        "Taken", "tickets", arms=("base", "new one"), against="human", reviewers=("Rita", "Nobody"), votes_per_pair=3,
        criteria=("accuracy", "Accuracy"), rule={"min_win_rate": 0.2, "max_both_bad": -0.01, "min_votes": 900, "min_reviewers": 0},
    )  # fmt: skip
    problems = plans.plan(house.db, wish).problems
    expected = ["“Taken” already", "human, is not among", "new one has no answer yet to 12 of 12", "Nobody is no reviewer"]
    expected += ("needs 3 reviewers", "“accuracy” is there twice", "between 50 and 99", "both bad", "900 votes", "At least one reviewer")
    for part in expected:
        assert any(part in problem for problem in problems), part
    with pytest.raises(BadInput) as refused:
        plans.declare(house.db, house.studies, wish, None)
    assert all(problem in str(refused.value) for problem in problems)
    assert not any(name in str(refused.value) for name in ("min_win_rate", "votes_per_pair", "max_both_bad"))


def test_an_untouched_or_emptied_form_never_breaks(house: House) -> None:
    empty = form.wish_of((None,) * len(form.Form.__dataclass_fields__))
    assert len(plans.plan(house.db, empty).problems) >= 5
    assert "Still missing" in form.plan_html(plans.plan(house.db, empty), empty)


def test_a_copy_declares_the_same_under_a_free_name(judged: House) -> None:
    old = judged.studies.study(STUDY)
    wish = form.wish_like(old)
    values = form.filled(judged, wish, plans.plan(judged.db, wish).tags)
    again = form.wish_of(tuple(getattr(value, "value", value) for value in values))
    assert again.name == f"{STUDY} 2"
    assert replace(again, name=STUDY, rule={}) == replace(wish, rule={})
    made = plans.declare(judged.db, judged.studies, again, None)
    assert (made.rule, made.criteria, made.reasons, made.arms) == (old.rule, old.criteria, old.reasons, old.arms)


def test_progress_tells_each_reviewer_and_tag_but_not_who_is_ahead(judged: House) -> None:
    study, told = judged.studies.study(STUDY), judged.studies.progress(STUDY)
    said = words(progress.progress_html(study, told))
    assert "24 of 24 votes" in said
    assert [(one.alike, one.compared) for one in told.reviewers] == [(8, 12), (8, 12)]
    for part in ("Rita", "Ron", "billing", "All votes are in"):
        assert part in said
    assert "win" not in words(progress.reviewers_html(told) + progress.tags_html(told)).lower()


def test_watching_a_study_counts_its_votes_now_and_then_and_a_button_at_once(judged: House) -> None:
    clock = Clock()
    desk = Desk(judged, now=clock)
    seen = desk.told(STUDY)
    judged.studies.decide_reviewer(STUDY, "Ron", False, "A test.")
    assert desk.told(STUDY) is seen
    clock.time += 9
    assert desk.told(STUDY) is seen
    newer = desk.told(STUDY, fresh=True)
    assert newer != seen
    judged.studies.decide_reviewer(STUDY, "Ron", True, "No, it was Ron.")
    clock.time += 11
    assert desk.told(STUDY) != newer


def test_a_result_reads_plainly_and_explains_each_measure(judged: House) -> None:
    found = judged.studies.result(STUDY)
    said = words(evidence.verdict_html(found) + evidence.human_html(found) + evidence.tags_html(found))
    said += words(trust_html(found))
    assert any(headline in said for headline in evidence.HEADLINES.values())
    for part in (
        "connectpro-v2 against base",
        "Subject by subject",
        "billing",
        "Does the side matter?",
        "1 is always, 0 is no more",
    ):
        assert part in said, part
    assert "Reviewers differ on 4 pairs" in said


def test_a_tag_that_is_worse_comes_first() -> None:
    def tag(name: str, value: float, worse: bool) -> Any:
        rate = SimpleNamespace(value=value, low=value - 0.1, high=value + 0.1)
        return SimpleNamespace(tag=name, votes=9, win_rate=rate, worse=worse, too_few=False, words="clearly worse" if worse else "fine")

    result: Any = SimpleNamespace(
        tags=(tag("network", 0.9, False), tag("billing", 0.2, True)), best="new", study=SimpleNamespace(against="old")
    )
    shown = evidence.tags_html(result)
    assert shown.index("billing") < shown.index("network")


def test_stakeholders_are_not_told_whose_votes_are_in_doubt(judged: House) -> None:
    study_room.judge(judged, "Rosa", 1)
    found = replace(judged.studies.result(STUDY), aside=("Ron",), aside_votes=12, flips=("Rita",))
    assert "Ron" in trust_html(found)
    told = trust_html(found, named=False)
    assert not any(name in told for name in ("Ron", "Rita"))
    assert "1 reviewer" in told


def test_votes_aside_are_said_to_wait_only_where_nobody_decided(judged: House) -> None:
    found = replace(judged.studies.result(STUDY), aside=("Rita", "Ron"), aside_votes=24)
    assert "in no number, as an admin decided." in words(trust_html(found))
    assert "in no number; those of Ron until an admin decides." in words(trust_html(replace(found, undecided=("Ron",))))


def test_all_votes_in_but_some_in_doubt_asks_for_the_decision_first(house: House) -> None:
    plans.declare(house.db, house.studies, replace(WISH, checks=False, rule={"min_votes": 20}), None)
    house.studies.open(STUDY)
    study_room.judge(house, "Rita", 40)
    study_room.judge(house, "Ron", 40, seconds=1.0)
    said = words(Desk(house).result(STUDY))
    assert "some are aside. Decide first whose votes count" in said
    assert "those of Ron until an admin decides" in said
    house.studies.decide_reviewer(STUDY, "Ron", False, "A script.")
    assert "Copy it as a new study" in words(Desk(house).result(STUDY))


def test_doubts_to_decide_come_first_and_any_name_can_be_chosen(house: House) -> None:
    """A name and a study's name may hold any sign, that between them too."""
    odd = "Ro — n in “x”"
    house.people.add(odd, "reviewer")
    for name, hasty in (("Winter — tickets", odd), ("Spring", "Rita")):
        house.studies.create(name, "tickets", ["base", "connectpro-v2"], votes_per_pair=3, checks=False)
        house.studies.open(name)
        study_room.judge(house, hasty, 12, seconds=1.0)
        house.studies.close(name)
    house.studies.decide_reviewer("Spring", "Rita", True, "Knows it by heart.")
    found = doubts.doubted(house)
    assert [(study, one.name, one.decision) for study, one in found] == [("Winter — tickets", odd, ""), ("Spring", "Rita", "counted")]
    assert [doubts.chosen_of(key) for _, key in doubts.choices_of(found)] == [("Winter — tickets", odd), ("Spring", "Rita")]
    for key in ("", "1", "[1]", "nothing"):
        with pytest.raises(BadInput, match="No reviewer is chosen"):
            doubts.chosen_of(key)


def test_progress_is_counted_anew_for_a_vote_a_skip_and_a_decision(house: House) -> None:
    plans.declare(house.db, house.studies, replace(WISH, checks=False), None)
    house.studies.open(STUDY)
    rita = house.people.user("Rita").id
    seen = [house.studies.progress(STUDY)]
    assert house.studies.progress(STUDY) is seen[0]
    for act in (
        lambda: study_room.judge(house, "Rita", 1),
        lambda: house.comparisons.skip(rita, house.comparisons.next_pair(rita).assignment, "Not my field", "k"),
        lambda: house.studies.decide_reviewer(STUDY, "Rita", False, "A test."),
        lambda: house.studies.pause(STUDY),
    ):
        act()
        seen.append(house.studies.progress(STUDY))
        assert seen[-1] != seen[-2]


def test_a_dispute_is_shown_the_same_whichever_answer_stands_first(judged: House) -> None:
    one = replace(judged.studies.disagreements(STUDY)[0], first="ONE ANSWER", second="OTHER ANSWER")
    html = disputes.pair_html(one, 0, 4, 4)
    assert not any(name in html for name in ("connectpro", "base", "Rita", "Ron"))
    turned = replace(one, first=one.second, second=one.first)
    swapped = disputes.pair_html(turned, 0, 4, 4)
    assert swapped == html.replace(one.first, "\0").replace(one.second, one.first).replace("\0", one.second)


def test_what_people_and_models_wrote_is_shown_as_text(judged: House) -> None:
    one = judged.studies.disagreements(STUDY)[0]
    vote = replace(one.votes[0], comment=HOSTILE, reasons=(HOSTILE,))
    evil = replace(one, prompt=HOSTILE, first=HOSTILE, second=HOSTILE, votes=(vote,), decided="tie", reason=HOSTILE)
    wish = replace(WISH, name=HOSTILE, tags=(HOSTILE,), reviewers=(HOSTILE,), criteria=(HOSTILE, HOSTILE))
    skipped = replace(judged.studies.progress(STUDY), name=HOSTILE)
    study = replace(judged.studies.study(STUDY), name=HOSTILE, set_name=HOSTILE, criteria=(HOSTILE,), reasons=(HOSTILE,))
    shown = (
        disputes.pair_html(evil, 0, 1, 0)
        + form.plan_html(plans.plan(judged.db, wish), wish)
        + progress.progress_html(study, skipped)
        + evidence.verdict_html(replace(judged.studies.result(STUDY), study=study, best=HOSTILE))
        + trust_html(replace(judged.studies.result(STUDY), study=study, best=HOSTILE, aside=(HOSTILE,), flips=(HOSTILE,)))
    )
    assert "<img" not in shown
    assert shown.count("&lt;img") >= 12


def test_what_came_in_and_what_was_left_out_is_said(judged: House, home: Any) -> None:
    rita = judged.people.user("Rita").id
    judged.studies.close(STUDY)
    plans.declare(judged.db, judged.studies, replace(WISH, name="Summer", arms=("base", "human"), checks=False), None)
    judged.studies.open("Summer")
    judged.comparisons.skip(rita, judged.comparisons.next_pair(rita).assignment, "Not my field", "k")
    path = home / "summer.jsonl"
    Exchange(judged.db).write("Summer", path)
    path.write_text(path.read_text() + json.dumps({"type": "arm", "name": "third", "<b>mood": 1}) + "\n")
    said = words(exchange.report_html(Exchange(judged.db).import_file(path, "again")))
    assert "1 skipped pair came along" in said
    assert "left out: arm.&lt;b&gt;mood" in said


def test_a_study_goes_out_and_comes_in_and_a_wrong_line_is_named(judged: House, home: Any) -> None:
    file = home / "spring.jsonl"
    Exchange(judged.db).write(STUDY, file)
    assert f"name={STUDY}&amp;form=votes.csv" in exchange.take_html(STUDY)
    said = words(exchange.report_html(Exchange(judged.db).import_file(file, "From <Oslo>")))
    assert "24 votes of 2 reviewers on 12 prompts and 2 arms" in said
    assert "From &lt;Oslo&gt;" in said
    assert "is called" in said
    file.write_text(file.read_text() + '{"type": "vote", "reviewer": "Rita"}\n')
    with pytest.raises(BadInput, match=rf"Line {len(file.read_text().splitlines())}:"):
        Exchange(judged.db).import_file(file, "Broken")
