"""T9: whatever a person or a model writes, no page runs it, loads from elsewhere for it, or is covered by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
import pytest

from tests.hostile import stock
from tests.hostile.conftest import Beacon, Site
from tests.hostile.furnishing import payloads

pytestmark = [pytest.mark.hostile, pytest.mark.browser]
PAGES = [
    ("Rita", "/review"),
    ("Erik", "/lab"),
    ("Erik", "/boards"),
    ("Sam", "/boards"),
    ("Ada", "/admin"),
    ("Ada", "/lab"),
    ("Ada", "/boards"),
]
SETTLE_MS = 350


@contextmanager
def opened(site: Site, browser: Any, name: str) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A signed-in page, the addresses it asked for, and what it complained about."""
    context = browser.new_context(base_url=site.base)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(f"/login/{site.house.people.link(name)}")
    page.click("main button")
    page.wait_for_load_state("load")
    try:
        yield page, asked, said
    finally:
        context.close()


def look_around(page: Any) -> None:
    """Open every tab, fold and row there is to open."""
    page.wait_for_selector("h1")
    page.wait_for_timeout(SETTLE_MS)
    seen: set[str] = set()
    while unseen := [tab for tab in page.get_by_role("tab").all() if tab.get_attribute("id") not in seen]:
        seen.add(unseen[0].get_attribute("id"))  # a tab may bring tabs of its own
        unseen[0].click()
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.mouse.move(200, 400)
        page.mouse.move(600, 500)
    page.wait_for_timeout(SETTLE_MS)


def elsewhere(site: Site, asked: list[str]) -> list[str]:
    return [url for url in asked if not url.startswith((site.base + "/", "data:", "blob:", "about:"))]


@pytest.mark.parametrize(("name", "path"), PAGES)
def test_no_page_calls_home_or_runs_what_it_shows(site: Site, beacon: Beacon, browser: Any, name: str, path: str) -> None:
    before = len(beacon.hits)
    with opened(site, browser, name) as (page, asked, said):
        page.goto(path)
        look_around(page)
        assert page.url.startswith(site.base + path)
        assert page.locator(".evil, iframe, object, embed, video").count() == 0
        assert page.locator(f'[href*="{beacon.address}"], [src*="{beacon.address}"], [action*="{beacon.address}"]').count() == 0
        assert page.evaluate("document.querySelector('base').href").startswith(site.base)
    assert elsewhere(site, asked) == []
    assert beacon.hits[before:] == []
    assert [line for line in said if "dialog" in line or "Content Security Policy" in line] == []


def test_hostile_names_are_shown_as_names(site: Site, beacon: Beacon, browser: Any) -> None:
    with opened(site, browser, "<img src=x onerror=alert(1)> viewer") as (page, asked, said):
        page.goto("/boards")
        look_around(page)
        assert page.locator(".tb-who img").count() == 0
        assert "<img src=x" in page.inner_text(".tb-who")
    assert elsewhere(site, asked) == []
    assert not [line for line in said if "dialog" in line]


def test_the_vote_buttons_are_not_covered(site: Site, browser: Any) -> None:
    with opened(site, browser, "Rita") as (page, _, _):
        page.goto("/review")
        page.wait_for_selector("[data-pair]")
        first = page.get_attribute("[data-pair]", "data-pair")
        page.click("#vote-left", timeout=5000)
        page.wait_for_function("document.querySelector('#tb-status').innerText.includes('Saved')", timeout=5000)
        assert first


def test_a_vote_that_is_refused_says_so(site: Site, browser: Any) -> None:
    """And the way on stays open."""
    [study] = site.house.studies.studies()
    with opened(site, browser, "Rita") as (page, _, _):
        page.goto("/review")
        page.wait_for_selector("[data-pair]")
        site.house.studies.pause(study.name)
        try:
            page.click("#vote-tie")
            page.wait_for_selector(".tb-trouble", timeout=5000)
            assert "not stored" in page.inner_text(".tb-trouble")
            assert "Saved" not in page.inner_text("#tb-status")
            assert page.is_enabled("#next-pair")
        finally:
            site.house.studies.open(study.name)


def test_a_page_of_ours_has_no_trouble_with_its_own_policy(site: Site, browser: Any) -> None:
    """The policy is strict enough to matter and loose enough to work: nothing of ours is blocked."""
    for name, path in (("Rita", "/review"), ("Erik", "/lab"), ("Ada", "/admin"), ("Sam", "/nothing-here")):
        with opened(site, browser, name) as (page, _, said):
            page.goto(path)
            page.wait_for_timeout(SETTLE_MS)
        assert [line for line in said if "Policy" in line or "EvalError" in line or ("404" in line and path != "/nothing-here")] == []


def test_an_injected_script_does_not_run(site: Site, browser: Any, beacon: Beacon) -> None:
    """Should a screen ever forget to escape: the policy still stops inline scripts, handlers, foreign images and frames."""
    before = len(beacon.hits)
    with opened(site, browser, "Rita") as (page, _, said):
        page.goto("/review")
        page.wait_for_selector("h1")
        stays = payloads(beacon.address).replace("<meta", "<not-meta")  # no policy holds a page that is told to leave
        page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", stays)
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=\"window.ran = 1\"><svg onload=\"window.ran = 2\">')"
        )
        script = f"const s = document.createElement('script'); s.textContent = \"window.ran = 3; fetch('{beacon.address}/late')\";"
        page.evaluate(script + "document.body.append(s)")
        page.wait_for_timeout(SETTLE_MS)
        assert page.evaluate("window.ran") is None
    assert beacon.hits[before:] == []
    assert any("Content Security Policy" in line for line in said)


class TestControl:
    def test_stock_pages_call_home(self, browser: Any, beacon: Beacon) -> None:
        before = len(beacon.hits)
        with gr.Blocks() as raw:
            gr.HTML(payloads(beacon.address))
        with gr.Blocks() as softer:
            gr.Markdown(f"![x]({beacon.address}/stock-markdown)")
            gr.Chatbot([{"role": "assistant", "content": f"![x]({beacon.address}/stock-chat)"}])
        for blocks in (raw, softer):
            with stock.stock(blocks) as base:
                page = browser.new_page()
                page.goto(f"{base}/app/")
                page.wait_for_timeout(2500)
                page.close()
        hits = set(beacon.hits[before:])
        assert {"/stock-markdown", "/stock-chat"} <= hits
        assert hits & {"/img", "/onerror"}
