"""Every screen as a person meets it: accessible (axe), no sideways scrolling on a phone, nothing from outside, one h1, light and dark."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from review.protocol.ballots import Ballot, BlindPair
from tests.hostile.site import free_socket, served
from tests.judging import practised

pytestmark = [pytest.mark.browser]
PEOPLE = {"Rita": "reviewer", "Ron": "reviewer", "Erik": "engineer", "Sam": "viewer", "Ada": "admin"}
TABS = ("data", "adapters", "chat", "answers", "studies", "retrain", "integrity", "base")
PAGES = [("Rita", "/review", ""), ("Sam", "/boards", ""), ("Ada", "/admin", ""), *(("Erik", "/lab", tab) for tab in TABS)]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
LONG = "Go to Settings > Network > Gateways and press Reset.\n" * 12 + "averyveryverylongwordwithoutanyspace" * 6


@dataclass
class Lived:
    """A running app in which a little has happened."""

    address: str
    house: Any

    def open(self, browser: Any, name: str, path: str, tab: str = "", **context: Any) -> Any:
        """A page of this person, settled."""
        page = browser.new_context(**context).new_page()
        page.goto(f"{self.address}/login/{self.house.people.link(name)}")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"{self.address}/**")
        page.strayed, page.complaints = [], []
        page.on(
            "request", lambda r: page.strayed.append(r.url) if r.url.startswith("http") and not r.url.startswith(self.address) else None
        )
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(self.address + path)
        page.locator("#tb-header nav a").first.wait_for()
        if tab:
            page.locator(f"#lab-{tab}-button").click()
        page.wait_for_load_state("networkidle") if path != "/lab" else page.wait_for_timeout(1500)
        return page


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    from ft.scripted import ScriptedEngine
    from review.services.house import build, open_database
    from review.settings import Settings
    from review.web import build_app

    listener = free_socket()
    settings = Settings(tmp_path_factory.mktemp("lived"), engine="scripted", port=listener.getsockname()[1])
    db = open_database(settings.database_url)
    db.migrate()
    house = build(settings, db, ScriptedEngine())
    for name, role in PEOPLE.items():
        house.people.add(name, role)
    _live(house, settings.home / "tickets.jsonl")
    with served(build_app(house), listener) as address:
        yield Lived(address, house)
    db.close()


def _live(house: Any, file: Path) -> None:
    rows = [{"instruction": f"Question {n}: {LONG if n == 1 else 'how do I reset it?'}", "output": f"{n}. {LONG}"} for n in range(6)]
    file.write_text("".join(json.dumps(row | {"split": "test" if n < 4 else "train"}) + "\n" for n, row in enumerate(rows)) + "broken\n")
    house.library.import_file(file, "tickets")
    house.answers.run(house.answers.start("tickets", "test", ["base", "human"], None))
    house.boards.score("tickets", "test", ["base"])
    house.studies.create("First look", "tickets", ["base", "human"], votes_per_pair=2)
    house.studies.open("First look")
    ron = house.people.user("Ron").id
    practised(house.db, ron, house.people.user("Rita").id)
    for choice in ("left", "tie"):
        pair = house.comparisons.next_pair(ron)
        assert isinstance(pair, BlindPair)
        house.comparisons.vote(ron, Ballot(pair.assignment, choice, key=secrets.token_hex(16)))


def violations(page: Any) -> list[str]:
    """What axe finds, worth a person's time: serious and critical."""
    from axe_core_python.sync_playwright import Axe

    found = Axe().run(page)["violations"]
    return [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "path", "tab"), PAGES)
def test_a_screen_is_accessible(browser: Any, lived: Lived, name: str, path: str, tab: str, scheme: str) -> None:
    page = lived.open(browser, name, path, tab, viewport=DESK, color_scheme=scheme)
    assert violations(page) == []
    assert page.locator("h1").count() == 1
    assert (page.strayed, page.complaints) == ([], [])
    page.context.close()


@pytest.mark.parametrize(("name", "path", "tab"), PAGES)
def test_nothing_scrolls_sideways_on_a_phone(browser: Any, lived: Lived, name: str, path: str, tab: str) -> None:
    page = lived.open(browser, name, path, tab, viewport=PHONE, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.strayed == []
    page.context.close()


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


def test_light_or_dark_is_remembered(browser: Any, lived: Lived) -> None:
    page = lived.open(browser, "Sam", "/boards", viewport=DESK, color_scheme="light")
    page.locator('[data-tb="theme"]').click()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.reload()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.context.close()
