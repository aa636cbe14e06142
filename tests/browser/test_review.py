"""The blind screen as reviewers use it: by keyboard, on a phone, in two tabs, with the line cut, and never asking before the vote."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlmodel import select

from review.protocol.criteria import DEFAULT_CRITERIA, DEFAULT_REASONS
from storage.queries.votes import corrections_of
from storage.tables import Answer, Assignment, Guess, PracticeVote, Prompt, Skip, Vote
from tests.browser.test_look import violations
from tests.hostile.site import free_socket, served
from tests.judging import add_arm, arm_id, furnish, practised

pytestmark = [pytest.mark.browser]
PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
CALL = "/run/predict"
HTML = "<b>bold</b> <img src=x onerror=alert(1)> & done"
RTL = "كيف أعيد ضبط البوابة؟ " * 40
NEW_PAIR = "old => { const at = document.querySelector('[data-pair]'); return at && at.dataset.pair !== old; }"


@dataclass
class Room:
    """A running app with an open study "winter"; every test brings a reviewer of its own."""

    address: str
    house: Any

    def reviewer(self, name: str, practice: bool = True) -> int:
        reviewer = int(self.house.people.add(name, "reviewer").id)
        if practice:
            practised(self.house.db, reviewer)
        return reviewer

    def open(self, browser: Any, name: str, **context: Any) -> Any:
        page = browser.new_context(**{"viewport": LAPTOP} | context).new_page()
        page.set_default_timeout(10_000)
        page.strayed, page.calls = [], []
        page.on("request", lambda r: page.calls.append(r.post_data_json["data"][0]) if CALL in r.url and r.post_data_json["data"] else None)
        page.on("pageerror", lambda error: page.strayed.append(str(error)))
        page.goto(f"{self.address}/login/{self.house.people.link(name)}")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_function("['pair', 'practice', 'rest'].includes(document.body?.dataset.tbScene)")
        return page

    def rows(self, table: Any, reviewer: int) -> list[Any]:
        with self.house.db.session() as session:
            return list(session.exec(select(table).where(table.reviewer_id == reviewer)))

    def more_arms(self, *names: str) -> tuple[str, ...]:
        """Arms of other answers to the same prompts."""
        with self.house.db.write() as session:
            for name, word in zip(names, ("menu", "cable"), strict=True):
                add_arm(session, name)
                session.flush()
                arm = arm_id(session, name)
                prompts = session.exec(select(Prompt)).all()
                session.add_all(Answer(arm_id=arm, prompt_id=one.id, text=f"Look at the {word}.") for one in prompts)
        return names

    def votes(self, reviewer: int, assignment: str) -> list[Any]:
        return sorted((v for v in self.rows(Vote, reviewer) if v.assignment_id == assignment), key=lambda vote: vote.revision)

    def ideal(self, assignment: str) -> list[str]:
        with self.house.db.session() as session:
            return [one.text for one in corrections_of(session, assignment)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    from ft.scripted import ScriptedEngine
    from review.services.house import build, open_database
    from review.settings import Settings
    from review.web import build_app

    listener = free_socket()
    settings = Settings(tmp_path_factory.mktemp("room"), engine="scripted", port=listener.getsockname()[1])
    db = open_database(settings.database_url)
    db.migrate()
    house = build(settings, db, ScriptedEngine())
    furnish(db, prompts=8)
    declared: dict[str, Any] = {"votes_per_pair": 50, "criteria": DEFAULT_CRITERIA, "reasons": DEFAULT_REASONS, "checks": False}
    house.studies.create("winter", "tickets", ("base", "tuned-v3"), **declared)
    house.studies.open("winter")
    with served(build_app(house), listener) as address:
        yield Room(address, house)
    db.close()


def shown(page: Any) -> str:
    return str(page.locator("[data-pair]").get_attribute("data-pair"))


def saved(page: Any, words: str) -> None:
    page.locator("#tb-status").get_by_text(f"Saved: {words}").wait_for()


def keys(page: Any, *pressed: str) -> None:
    for key in pressed:
        page.keyboard.press(key)


def onward(page: Any, old: str) -> str:
    page.keyboard.press("n")
    page.wait_for_function(NEW_PAIR, arg=old)
    return shown(page)


def close(page: Any) -> None:
    assert page.strayed == []
    page.context.close()


def test_a_new_reviewer_practises_and_judges_a_whole_session_by_keyboard(room: Room, browser: Any) -> None:
    rita = room.reviewer("Rita", practice=False)
    page = room.open(browser, "Rita")
    for number in (1, 2, 3):
        page.locator("#tb-practice").get_by_text(f"Practice {number} of 3").wait_for()
        assert page.locator("#next-pair").is_disabled()
        keys(page, "2")
        page.locator("#tb-explained-words").get_by_text("answer").wait_for()
        keys(page, "n")
    page.locator("[data-pair]").wait_for()
    with room.house.db.session() as session:
        assert len(session.exec(select(PracticeVote).where(PracticeVote.user_id == rita)).all()) == 3
    assert room.rows(Vote, rita) == []
    first = _judge_in_full(room, page, rita)
    _skip(room, page, rita)
    _to_the_end(page)
    assert violations(page) == []
    assert [vote.choice for vote in room.votes(rita, first)] == ["left", "left", "right"]
    close(page)


def _judge_in_full(room: Room, page: Any, rita: int) -> str:
    """Criteria and a reason before the vote, more of both and the ideal answer after it, and a change of mind by going back."""
    first = shown(page)
    keys(page, "k", "1", "3", "Escape", "l", "3", "Escape", "1")
    saved(page, "left is better")
    keys(page, "r", "1", "Escape", "e")
    left = page.locator("#tb-text-left").inner_text()
    page.keyboard.type(" Call us.")
    page.locator("#tb-diff ins").get_by_text("Call us").wait_for()
    assert violations(page) == []
    keys(page, "Control+Enter")
    page.wait_for_function(NEW_PAIR, arg=first)
    second = shown(page)
    keys(page, "u")
    page.wait_for_function("old => document.querySelector('[data-pair]').dataset.pair === old", arg=first)
    assert page.locator("#vote-left").get_attribute("aria-pressed") == "true"
    assert page.locator('#tb-reasons-right [aria-pressed="true"]').all_inner_texts() == [DEFAULT_REASONS[0]]
    keys(page, "2")
    saved(page, "right is better")
    assert onward(page, first) == second
    one, two, three = room.votes(rita, first)
    marks = {DEFAULT_CRITERIA[0]: "left", DEFAULT_CRITERIA[1]: "same"}
    said, added = f"left: {DEFAULT_REASONS[2]}", f"right: {DEFAULT_REASONS[0]}"
    assert (one.criteria, one.reasons) == (marks, [said])
    assert [(vote.criteria, vote.reasons) for vote in (two, three)] == [(marks, [said, added])] * 2
    assert room.ideal(first) == [f"{left} Call us."]
    return first


def _skip(room: Room, page: Any, rita: int) -> None:
    old = shown(page)
    keys(page, "s")
    assert violations(page) == []
    keys(page, "Enter")
    assert page.locator("#tb-skip-hint").inner_text()
    keys(page, "2", "Enter")
    page.wait_for_function(NEW_PAIR, arg=old)
    assert [(row.assignment_id, row.reason) for row in room.rows(Skip, rita)] == [(old, "Needs a specialist")]


def _to_the_end(page: Any) -> None:
    for _ in range(6):
        old = shown(page)
        keys(page, "3")
        saved(page, "both good")
        keys(page, "n")
        page.wait_for_function(f"old => document.body.dataset.tbScene !== 'pair' || ({NEW_PAIR})(old)", arg=old)
    page.locator("#tb-reward-facts").get_by_text("7 votes").wait_for()
    assert page.locator("#tb-reward-words").inner_text()


def test_nothing_of_the_next_pair_comes_before_the_vote_and_nothing_is_waited_for_after_it(room: Room, browser: Any) -> None:
    nora = room.reviewer("Nora")
    page = room.open(browser, "Nora")
    page.wait_for_timeout(300)
    assert len(room.rows(Assignment, nora)) == 1
    assert page.calls == [{}], "one call to begin with"
    first = shown(page)
    keys(page, "1")
    saved(page, "left is better")
    assert len(room.rows(Assignment, nora)) == 2
    page.route(f"**{CALL}", lambda route: route.abort())
    keys(page, "n")
    page.wait_for_function(NEW_PAIR, arg=first, timeout=1000)
    close(page)


def test_the_line_cut_while_going_on_loses_nothing(room: Room, browser: Any) -> None:
    olga = room.reviewer("Olga")
    page = room.open(browser, "Olga")
    first = shown(page)
    keys(page, "3")
    saved(page, "both good")
    page.context.set_offline(True)
    keys(page, "c")
    page.keyboard.type("said afterwards")
    keys(page, "Escape", "e")
    page.locator("#tb-ideal-words").fill("better than both")
    keys(page, "Escape")
    onward(page, first)
    keys(page, "1")
    page.locator("#tb-delayed").get_by_text("kept here and sent again").wait_for()
    keys(page, "2")
    page.context.set_offline(False)
    saved(page, "right is better")
    page.locator("#tb-delayed").wait_for(state="hidden")
    assert [(vote.choice, vote.comment) for vote in room.votes(olga, first)] == [("tie", ""), ("tie", "said afterwards")]
    assert room.ideal(first) == ["better than both"]
    second = shown(page)
    assert room.votes(olga, second)[-1].choice == "right"
    page.reload()
    page.wait_for_function(NEW_PAIR, arg=second)
    close(page)


def test_a_reload_loses_nothing_that_was_written(room: Room, browser: Any) -> None:
    rhea = room.reviewer("Rhea")
    page = room.open(browser, "Rhea")
    first = shown(page)
    keys(page, "c")
    page.keyboard.type("half a comm")
    keys(page, "Escape", "r", "2", "Escape")
    page.reload()
    page.wait_for_function("() => document.querySelector('#tb-comment-text')?.value === 'half a comm'")
    assert shown(page) == first
    assert page.locator("#tb-reasons-right [aria-pressed=true]").count() == 1
    keys(page, "1")
    saved(page, "left is better")
    keys(page, "e")
    page.locator("#tb-ideal-words").fill("what I would send")
    page.reload()
    page.wait_for_function("() => document.querySelector('#tb-ideal-words')?.value === 'what I would send'")
    assert shown(page) == first
    assert page.locator("#vote-left").get_attribute("aria-pressed") == "true"
    assert page.locator("#tb-diff ins").count() > 0
    keys(page, "Escape")
    second = onward(page, first)
    keys(page, "c")
    page.keyboard.type("of the second")
    keys(page, "Escape", "u")
    page.wait_for_function(NEW_PAIR, arg=second)
    assert page.locator("#tb-ideal-words").input_value() == "what I would send"
    onward(page, first)
    assert page.locator("#tb-comment-text").input_value() == "of the second"
    keys(page, "2")
    saved(page, "right is better")
    page.reload()
    page.wait_for_function(NEW_PAIR, arg=second)
    assert page.locator("#tb-comment-text").input_value() == ""
    assert room.ideal(first) == ["what I would send"]
    assert room.votes(rhea, first)[-1].comment == "half a comm"
    assert room.votes(rhea, second)[-1].comment == "of the second"
    close(page)


def test_two_tabs_and_a_closed_study_refuse_in_words_and_leave_the_way_on_open(room: Room, browser: Any) -> None:
    tess = room.reviewer("Tess")
    page = room.open(browser, "Tess")
    other = page.context.new_page()
    other.goto(f"{room.address}/review")
    other.locator("[data-pair]").wait_for()
    first = shown(page)
    assert shown(other) == first
    keys(page, "1")
    saved(page, "left is better")
    keys(other, "2")
    other.locator(".tb-trouble").get_by_text("already voted").wait_for()
    second = onward(other, first)
    assert [vote.choice for vote in room.votes(tess, first)] == ["left"]
    page.go_back()
    page.go_forward()
    page.locator("[data-pair]").wait_for()
    assert shown(page) == second
    room.house.studies.pause("winter")
    try:
        keys(page, "3")
        page.locator(".tb-trouble").get_by_text("paused").wait_for()
        assert page.locator("#vote-tie").get_attribute("aria-pressed") == "false"
        keys(page, "n")
        page.locator("#tb-rest-words").get_by_text("No study is open").wait_for()
    finally:
        room.house.studies.open("winter")
    keys(page, "n")
    page.locator("[data-pair]").wait_for()
    keys(page, "3")
    saved(page, "both good")
    close(page)


def test_a_double_click_is_one_vote_and_an_impatient_next_waits_for_it(room: Room, browser: Any) -> None:
    dora = room.reviewer("Dora")
    page = room.open(browser, "Dora")
    first = shown(page)
    page.locator("#vote-tie").dblclick()
    keys(page, "n", "n")
    page.wait_for_function(NEW_PAIR, arg=first)
    page.wait_for_timeout(200)
    assert [vote.choice for vote in room.rows(Vote, dora)] == ["tie"]
    close(page)


def test_the_question_takes_one_key_and_can_be_passed(room: Room, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("review.services.casting.ASKED", 256)
    room.house.studies.pause("winter")
    room.house.studies.create("asked", "tickets", ("base", "tuned-v3"), votes_per_pair=50)
    room.house.studies.open("asked")
    quin = room.reviewer("Quin")
    try:
        page = room.open(browser, "Quin")
        first = shown(page)
        keys(page, "1")
        saved(page, "left is better")
        keys(page, "n")
        page.locator("#tb-ask").wait_for()
        assert violations(page) == []
        keys(page, "3")
        page.wait_for_function(NEW_PAIR, arg=first)
        second = shown(page)
        keys(page, "4")
        saved(page, "both bad")
        keys(page, "n")
        page.locator("#tb-ask").wait_for()
        onward(page, second)
        assert [(row.assignment_id, row.choice) for row in room.rows(Guess, quin)] == [(first, "unsure")]
        close(page)
    finally:
        room.house.studies.pause("asked")
        room.house.studies.open("winter")


def test_names_are_shown_after_the_vote_only_where_the_study_says_so_and_the_vote_then_stands(room: Room, browser: Any) -> None:
    room.house.studies.pause("winter")
    arms = room.more_arms("tuned-v4", "tuned-v5")  # other answers: names of those that another study still judges blind are never shown
    room.house.studies.create("shown", "tickets", arms, votes_per_pair=50, reveal="after_vote", checks=False)
    room.house.studies.open("shown")
    room.reviewer("Vera")
    try:
        page = room.open(browser, "Vera")
        keys(page, "1")
        page.locator("#tb-revealed").get_by_text("tuned-v5").wait_for()
        assert page.locator("#vote-right").is_disabled()
        onward(page, shown(page))
        assert not page.locator("#tb-revealed").is_visible()
        close(page)
    finally:
        room.house.studies.pause("shown")
        room.house.studies.open("winter")


def test_on_a_phone_long_foreign_and_hostile_texts_stay_in_their_place(room: Room, browser: Any) -> None:
    phia = room.reviewer("Phia")
    page = room.open(browser, "Phia", viewport=PHONE, has_touch=True, is_mobile=True)
    place = page.locator("#vote-left").bounding_box()
    with room.house.db.write() as session:
        assignment = session.get_one(Assignment, shown(page))
        prompt = session.get_one(Prompt, assignment.prompt_id)
        texts = [session.get_one(Answer, one).text for one in (assignment.left_answer_id, assignment.right_answer_id)]
    assert [page.locator(f"#tb-text-{side}").inner_text() for side in ("left", "right")] == texts
    page.evaluate(
        "([html, rtl]) => { tb.draw.pair({ ...window.scene, assignment: 'x', prompt: rtl.repeat(9), left: html, right: rtl, criteria: [], "
        "reasons: [], done: 0, total: 9, seconds_left: 60, session_done: 0, session_total: 0 }); }",
        [HTML, RTL],
    )
    assert page.locator("#tb-text-left").inner_text() == HTML
    assert page.locator("#tb-text-left b, #tb-text-left img").count() == 0
    assert page.evaluate("getComputedStyle(document.querySelector('#tb-text-right')).direction") == "rtl"
    assert page.evaluate("(() => { const p = document.querySelector('#tb-text-prompt'); return p.scrollHeight > p.clientHeight * 2; })()")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    left, right = (page.locator(f"#tb-text-{side}").bounding_box() for side in ("left", "right"))
    assert left["y"] + left["height"] < right["y"]
    moved = page.locator("#vote-left").bounding_box()
    assert (moved["x"], moved["y"]) == (place["x"], place["y"])
    assert moved["y"] + moved["height"] <= PHONE["height"]
    assert prompt.instruction
    assert room.rows(Vote, phia) == []
    close(page)


def test_on_a_laptop_long_answers_move_nothing_and_scroll_in_step(room: Room, browser: Any) -> None:
    room.reviewer("Lena")
    page = room.open(browser, "Lena")
    places = [page.locator(what).bounding_box() for what in ("#tb-text-left", "#vote-left", "#tb-criteria")]
    long = "line\n" * 200
    page.evaluate("text => document.querySelectorAll('.tb-answer').forEach((pane, i) => { pane.textContent = text.repeat(i + 1); })", long)
    assert [page.locator(what).bounding_box() for what in ("#tb-text-left", "#vote-left", "#tb-criteria")] == places
    for share in (1, 0.5):
        page.evaluate(
            "share => { const p = document.querySelector('.tb-answer'); p.scrollTop = share * (p.scrollHeight - p.clientHeight); }", share
        )
        there = "share => { const p = document.querySelectorAll('.tb-answer')[1]; const all = p.scrollHeight - p.clientHeight; "
        page.wait_for_function(there + "return Math.abs(p.scrollTop - share * all) < 20; }", arg=share)
        page.wait_for_timeout(60)
    close(page)


def test_the_word_diff_gives_back_both_texts(room: Room, browser: Any) -> None:
    room.reviewer("Dina")
    page = room.open(browser, "Dina")
    dice = random.Random(7)
    words = ["reset", "the", "gateway", "  ", "\n", "<b>", "ثم", "日本語の", "42", ".", "it’s"]
    pairs = [[" ".join(dice.choices(words, k=dice.randrange(30))) for _ in range(2)] for _ in range(60)] + [
        ["", ""],
        ["", "new"],
        ["gone", ""],
    ]
    back = page.evaluate(
        "pairs => pairs.map(([a, b]) => { const parts = tb.diff(a, b); return ['+', '-'].map((not) => "
        "parts.filter(([kind]) => kind !== not).map(([, text]) => text).join('')); })",
        pairs,
    )
    assert back == pairs
    assert page.evaluate("tb.diff('open the menu', 'open this menu').filter(([kind]) => kind !== '=')") == [["-", "the"], ["+", "this"]]
    began = page.evaluate(
        "(() => { const t = performance.now(); tb.diff('a b c '.repeat(3000), 'c d a '.repeat(3000)); return performance.now() - t; })()"
    )
    assert began < 500, "a long text does not freeze the page"
    close(page)
