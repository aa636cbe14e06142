"""Every screen as a person meets it: accessible (axe), no sideways scrolling on a phone, nothing from outside, one h1, light and dark.

Each tab of each part is visited with content, and again in a house where nothing has happened yet.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from review.screens.lab import TABS
from tests.browser import lived_in
from tests.browser.lived_in import Lived
from tests.study_room import PEOPLE

pytestmark = [pytest.mark.browser]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
INSIDE = {
    "Chat": ("With names", "Blind, for practice"),
    "Studies": ("Progress", "Result", "Disagreements", "New study", "Take out, bring in"),
}
ADMIN = ("People", "Votes in doubt", "Keys", "Health", "Backups")
LAB = [(title, *inner) for _, title, _ in TABS for inner in ([(one,) for one in INSIDE.get(title, ())] or [()])]
PLACES = [
    ("Rita", "/review", ()), ("Sam", "/boards", ()),
    *(("Ada", "/admin", (tab,)) for tab in ADMIN), *(("Erik", "/lab", tabs) for tabs in LAB),
]  # fmt: skip
NAMES = [" ".join((path[1:], *tabs)) for _, path, tabs in PLACES]
everywhere = pytest.mark.parametrize(("name", "path", "tabs"), PLACES, ids=NAMES)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    with lived_in.running(tmp_path_factory.mktemp("lived"), lived_in.everything) as site:
        yield site


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    with lived_in.running(tmp_path_factory.mktemp("new"), lived_in.nothing_yet) as site:
        yield site


def violations(page: Any) -> list[str]:
    """What axe finds, worth a person's time: serious and critical."""
    from axe_core_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]})["violations"]  # others are counted, not described
    return [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@everywhere
def test_a_screen_is_accessible(browser: Any, lived: Lived, name: str, path: str, tabs: tuple[str, ...], scheme: str) -> None:
    page = lived.visit(browser, name, path, tabs, viewport=DESK, color_scheme=scheme)
    assert violations(page) == []
    assert page.locator("h1").count() == 1
    assert sideways(page) <= 0
    assert (page.strayed, page.complaints) == ([], [])


@everywhere
def test_nothing_scrolls_sideways_on_a_phone(browser: Any, lived: Lived, name: str, path: str, tabs: tuple[str, ...]) -> None:
    page = lived.visit(browser, name, path, tabs, viewport=PHONE, has_touch=True)
    assert sideways(page) <= 0
    assert violations(page) == []
    assert (page.strayed, page.complaints) == ([], [])


@everywhere
def test_a_screen_on_which_nothing_has_happened_yet_says_so(browser: Any, new: Lived, name: str, path: str, tabs: tuple[str, ...]) -> None:
    page = new.visit(browser, name, path, tabs, viewport=PHONE, has_touch=True)
    assert sideways(page) <= 0
    assert violations(page) == []
    assert (page.strayed, page.complaints) == ([], [])


def test_the_accessibility_check_sees_an_unlabelled_field(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Rita", "/review", viewport=DESK)
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<input id=bare>')")
    assert any("bare" in one for one in violations(page))
    page.context.close()


def test_a_page_shows_only_ones_own_parts(browser: Any, lived: Lived) -> None:
    from review.screens.parts import PARTS, PARTS_OF

    for name, path in (("Rita", "/review"), ("Erik", "/lab"), ("Sam", "/boards"), ("Ada", "/admin")):
        page = lived.open(browser, name, path, viewport=DESK)
        shown = page.locator("#tb-header nav a").all_inner_texts()
        assert shown == [PARTS[part][1] for part in PARTS_OF[PEOPLE[name]]]
        assert name in page.locator("#tb-header").inner_text()
        page.context.close()


def test_an_answer_that_comes_is_drawn_and_what_one_unfolded_stays_so(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Erik", "/lab", tab="promotion", viewport=DESK)
    first = page.locator("#promotion-case details").first
    first.locator("summary").click()
    before = page.locator("#promotion-case").inner_text()
    told = re.search(r"(\d+) of (\d+) answers got worse", before)
    assert told
    lived_in.one_more_answered(lived.house)
    page.get_by_text(f"{told[1]} of {int(told[2]) + 1} answers got worse").wait_for()
    assert first.get_attribute("open") is not None
    first.locator("summary").click()
    lived_in.one_more_answered(lived.house)
    page.get_by_text(f"{told[1]} of {int(told[2]) + 2} answers got worse").wait_for()
    assert first.get_attribute("open") is None
    page.context.close()


def test_a_refusal_is_said_in_one_place_and_what_a_click_fills_is_scrolled_to(browser: Any, new: Lived, tmp_path: Path) -> None:
    page = new.open(browser, "Erik", "/lab", tab="adapters", viewport={"width": 1280, "height": 700})
    page.locator("#adapter-add").click()
    page.get_by_text("No file is chosen").wait_for()
    assert [mark.is_visible() for mark in page.locator("#lab-tabs").get_by_text("Error", exact=True).all()].count(True) == 0
    (tmp_path / "bad.zip").write_bytes(b"nonsense")
    page.locator("#adapter-file input[type=file]").set_input_files(tmp_path / "bad.zip")
    page.locator("#adapter-file").get_by_text("bad").wait_for()
    page.locator("#adapter-add").click()
    page.get_by_text("bad.zip is not a zip file").wait_for()
    page.wait_for_function("document.getElementById('adapter-verdict').getBoundingClientRect().bottom <= innerHeight")
    page.context.close()


def test_a_pair_of_short_answers_fits_a_usual_screen_whole(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Rita", "/review", viewport={"width": 1280, "height": 900})
    page.wait_for_function("document.body.dataset.tbScene === 'pair'")
    lived_in.settle(page)
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    page.context.close()


def test_light_or_dark_is_remembered(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Sam", "/boards", viewport=DESK, color_scheme="light")
    page.locator('[data-tb="theme"]').click()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.reload()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.context.close()
