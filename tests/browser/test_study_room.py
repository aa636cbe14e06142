"""The lead at work in a browser: a study declared, opened, closed with a second thought; a dispute decided by keys; blind practice."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from storage.tables import Arm
from tests import study_room
from tests.browser import lived_in
from tests.browser.lived_in import Lived
from tests.browser.test_look import DESK, PHONE, violations
from tests.browser.test_loop import choose, fill, open_tab, see, tick

pytestmark = [pytest.mark.browser]
SPRING = "Spring: is v2 better?"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    with lived_in.running(tmp_path_factory.mktemp("room"), judged) as site:
        yield site


def judged(house: Any) -> None:
    """A study on which two reviewers differ over one subject, and two arms that can chat."""
    study_room.furnish(house)
    house.engine.open()
    with house.db.write() as session:
        session.add(Arm(name="terse", kind="base", system_prompt="You are terse.", settings_hash="terse"))
    house.studies.create(SPRING, "tickets", ["base", "connectpro-v2"], votes_per_pair=2, checks=False)
    house.studies.open(SPRING)
    study_room.judge(house, "Rita", 40)
    study_room.judge(house, "Ron", 40, bad_at="billing")


def test_a_lead_declares_opens_and_closes_a_study(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Ada", "/lab", "studies", viewport=DESK)
    see(page, "study-who", "Rita")
    open_tab(page, "New study")
    see(page, "study-plan", "This study:")
    fill(page, "study-name", "Summer")
    tick(page, "study-arms", "base · the model as it came", "human · the human agent's own reply")
    see(page, "study-plan", "12 prompts × 1 pair × 1 reviewer")
    page.locator("#study-create").click()
    see(page, "studies-list", "Summer")
    page.locator("#study-open").click()
    page.wait_for_function("() => /Summer\\s+open/.test(document.querySelector('#studies-list').innerText)")
    page.locator("#study-close").click()
    see(page, "study-question", "12 votes of 12 are still missing")
    page.locator("#study-close-no").click()
    page.locator("#study-sure").wait_for(state="hidden")
    assert lived.house.studies.study("Summer").state == "open"
    page.locator("#study-close").click()
    page.locator("#study-close-yes").click()
    page.wait_for_function("() => /Summer\\s+closed/.test(document.querySelector('#studies-list').innerText)")
    assert (page.strayed, page.complaints) == ([], [])
    page.context.close()


def test_a_dispute_is_decided_by_keys_and_the_result_tells_it(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Erik", "/lab", "studies", viewport=PHONE, has_touch=True)
    page.locator("#study-chosen input").first.click()
    page.get_by_role("option", name=SPRING, exact=True).first.click()
    open_tab(page, "Disagreements")
    see(page, "dispute-pair", "4 to decide")
    page.keyboard.press("1")
    see(page, "dispute-pair", "3 to decide")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    open_tab(page, "Result")
    see(page, "study-result", "Reviewers differ on 4 pairs; a lead decided 1")
    page.evaluate("document.querySelectorAll('.toast-wrap').forEach((toast) => toast.remove())")  # it is fading in
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.context.close()


def test_practice_is_blind_until_the_vote(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Erik", "/lab", "chat", viewport=DESK)
    open_tab(page, "Blind, for practice")
    page.get_by_role("button", name="Who answers").click()
    choose(page, "blind-second", "terse")
    fill(page, "blind-question", "My light is amber?")
    page.locator("#blind-send").click()
    see(page, "blind-status", "Which is better")
    before = page.locator("#blind-talk").inner_text()
    assert not re.search(r"\b(terse|base)\b", before)
    fill(page, "blind-question", "And then?")
    page.locator("#blind-send").click()
    page.wait_for_function("() => document.querySelectorAll('#blind-talk article').length === 2")
    see(page, "blind-status", "Which is better")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    see(page, "blind-status", "You preferred the right answer")
    assert re.search(r"(left was terse, right was base|left was base, right was terse)", page.locator("#blind-status").inner_text())
    page.context.close()
