"""The whole loop in a browser on the real model: import, chat, answer, score, blind vote, board, retrain, the new adapter in use."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError

from tests.browser.conftest import Running, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(1800)]
MODEL_SECONDS = 120_000
WORK_SECONDS = 900_000
ROWS = [
    ("The badge printer at gate 3 prints blank cards, what should I do?", "Open Printer > Ribbon, press Reseat and print a test card."),
    ("How do I add a visitor for tomorrow morning?", "Open Visitors > New, enter the company and pick tomorrow's date."),
    ("The turnstile beeps twice and stays shut.", "Two beeps mean an expired badge: open Badges > Renew and hold it to the reader again."),
    ("Where can I see who entered last night?", "Open Reports > Entries and choose Last Night."),
    ("My badge works at gate 1 but not at gate 2.", "Open Badges > Zones and tick Gate 2, then wait one minute."),
    ("Can two people share one badge?", "No, each badge belongs to one person. Open Badges > New for the second one."),
]


def write_rows(path: Path) -> Path:
    rows = [{"instruction": q, "output": a, "split": "test" if n < 3 else "train"} for n, (q, a) in enumerate(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Any, elem_id: str, text: str) -> None:
    """Pick an option of a Gradio dropdown."""
    page.locator(f"#{elem_id} input").first.click()
    page.get_by_role("option", name=text, exact=True).first.click()


def fill(page: Any, elem_id: str, text: str) -> None:
    page.locator(f"#{elem_id} textarea, #{elem_id} input").first.fill(text)


def tick(page: Any, elem_id: str, *names: str) -> None:
    """Tick exactly these boxes of a checkbox group, once they are there."""
    for name in names:
        page.locator(f"#{elem_id} label").get_by_text(name, exact=True).wait_for()
    for label in page.locator(f"#{elem_id} label").all():
        label.locator("input").set_checked(label.inner_text().strip() in names)


def see(page: Any, elem_id: str, words: str, timeout: int = 30_000) -> None:
    place = page.locator(f"#{elem_id}")
    try:
        place.get_by_text(re.compile(words)).first.wait_for(timeout=timeout)
    except TimeoutError as error:
        raise AssertionError(f"no {words!r} in: {' | '.join(place.all_inner_texts())[:500]}") from error


def go_on(page: Any, key: str, counted: str) -> None:
    """Go to the next pair, past the question which one is the tuned model, which comes after some votes, drawn at random."""
    page.keyboard.press(key)
    arrived = (
        "counted => !document.querySelector('#tb-ask').hidden || new RegExp(counted).test(document.querySelector('#tb-aside').innerText)"
    )
    page.wait_for_function(arrived, arg=counted)
    if page.locator("#tb-ask").is_visible():
        page.keyboard.press("3")
    see(page, "tb-aside", counted)


@pytest.fixture(scope="module")
def engineer(browser: Any, app: Running) -> Any:
    return sign_in(browser, app, "engineer", viewport={"width": 1280, "height": 900})


@pytest.fixture(scope="module")
def reviewer(browser: Any, app: Running) -> Any:
    return sign_in(browser, app, "reviewer", viewport={"width": 1280, "height": 900})


def test_the_first_reviewer_votes_on_the_demo_by_keyboard_while_the_model_loads(app: Running, reviewer: Any) -> None:
    for number in (1, 2, 3):
        see(reviewer, "tb-practice", f"Practice {number} of 3")
        reviewer.keyboard.press("1")
        reviewer.locator("#tb-explained").wait_for()
        reviewer.keyboard.press("n")
    reviewer.locator("[data-pair]").wait_for()
    assert reviewer.locator("#tb-aside").inner_text().startswith("0 of ")
    first = reviewer.locator("[data-pair]").get_attribute("data-pair")
    reviewer.keyboard.press("1")
    see(reviewer, "tb-status", "Saved: left is better")
    go_on(reviewer, "n", "^1 of ")
    assert reviewer.locator("[data-pair]").get_attribute("data-pair") != first


def test_a_closed_tab_comes_back_to_the_same_pair(app: Running, reviewer: Any) -> None:
    shown = reviewer.locator("[data-pair]").get_attribute("data-pair")
    left = reviewer.locator(".tb-answer").first.inner_text()
    again = reviewer.context.new_page()
    again.goto(f"{app.address}/review/")
    again.locator("[data-pair]").wait_for()
    assert again.locator("[data-pair]").get_attribute("data-pair") == shown
    assert again.locator(".tb-answer").first.inner_text() == left
    again.close()


def test_the_loop_from_import_to_the_new_adapter_on_the_board(
    app: Running, engineer: Any, reviewer: Any, browser: Any, tmp_path: Path
) -> None:
    bring_in(engineer, tmp_path)
    switch_adapters(engineer)
    chat(engineer)
    answer_and_score(engineer)
    judge(app, engineer, reviewer)
    board = sign_in(browser, app, "stakeholder", viewport={"width": 1280, "height": 900})
    read_board(board, "gates", "connectpro-v1")
    retrain(engineer)
    board.reload()
    read_board(board, "gates", "gates-v1")
    into_use_and_the_next_study(engineer)


def bring_in(page: Any, tmp_path: Path) -> None:
    open_tab(page, "Data")
    page.locator("#data-file input[type=file]").set_input_files(str(write_rows(tmp_path / "gates.jsonl")))
    fill(page, "data-name", "gates")
    page.locator("#data-approve input").check()
    see(page, "data-file", "gates")
    page.locator("#data-import").click()
    see(page, "data-sets", "gates")


def switch_adapters(page: Any) -> None:
    open_tab(page, "Adapters")
    see(page, "adapter-list", "in memory", MODEL_SECONDS)
    choose(page, "adapter-chosen", "connectpro-v1")
    page.locator("#adapter-unload").click()
    see(page, "adapter-list", "on disk")
    page.locator("#adapter-load").click()
    see(page, "adapter-list", "in memory")


def chat(page: Any) -> None:
    open_tab(page, "Chat")
    fill(page, "chat-longest", "24")
    fill(page, "chat-question", "My light is amber, what now?")
    page.locator("#chat-send").click()
    both = "() => [...document.querySelectorAll('#chat-now .tb-reply')].filter((pane) => pane.innerText.length > 10).length === 2"
    page.wait_for_function(both, timeout=MODEL_SECONDS)
    base, tuned = (page.locator("#chat-now .tb-reply").nth(n).inner_text() for n in (0, 1))
    assert base != tuned


def answer_and_score(page: Any) -> None:
    open_tab(page, "Answers")
    choose(page, "answer-set", "gates")
    tick(page, "answer-arms", "base", "connectpro-v1")
    page.locator("#answer-start").click()
    see(page, "answer-jobs", "finished", WORK_SECONDS)
    page.locator("#answer-score").click()
    page.wait_for_function("() => (document.querySelector('#answer-jobs').innerText.match(/finished/g) || []).length >= 2", timeout=60_000)


def judge(app: Running, page: Any, reviewer: Any) -> None:
    open_tab(page, "Studies")
    choose(page, "study-chosen", "ConnectPro: base or fine-tuned?")
    page.locator("#study-pause").click()
    see(page, "studies-list", "paused")
    open_tab(page, "New study")
    see(page, "study-plan", "This study:")
    fill(page, "study-name", "Gates")
    choose(page, "study-set", "gates")
    tick(page, "study-arms", "base · the model as it came", "connectpro-v1 · tuned model")
    see(page, "study-plan", "Nothing is missing")
    page.locator("#study-create").click()
    see(page, "studies-list", "Gates")
    page.locator("#study-open").click()
    see(page, "studies-list", "open")
    reviewer.goto(f"{app.address}/review/")
    see(reviewer, "tb-aside", "^0 of 3")
    reviewer.keyboard.press("2")
    see(reviewer, "tb-status", "Saved: right is better")
    reviewer.keyboard.press("e")
    reviewer.keyboard.type("Ideal: ")
    go_on(reviewer, "Control+Enter", "^1 of 3")
    reviewer.keyboard.press("3")
    see(reviewer, "tb-status", "Saved: both good")
    go_on(reviewer, "Enter", "^2 of 3")


def read_board(page: Any, prompts: str, arm: str) -> None:
    page.locator("#board-set input").first.click()
    page.get_by_role("option", name=re.compile(prompts)).first.click()
    see(page, "board-scores", arm)
    text = page.locator("#board-scores").inner_text()
    assert all(word in text for word in ("BLEU", "chrF", "ROUGE-L", "METEOR"))


def retrain(page: Any) -> None:
    """A short run on the six new rows alone, so that only their test prompts are answered afterwards."""
    open_tab(page, "Retrain")
    choose(page, "run-sets", "gates")
    fill(page, "run-name", "gates-v1")
    fill(page, "run-steps", "6")
    page.get_by_role("button", name=re.compile("All settings")).click()
    for setting, value in (("evaluations", "1"), ("samples", "1"), ("sample-tokens", "16")):
        fill(page, f"run-{setting}", value)
    page.locator("#run-start").click()
    see(page, "run-shown", "step [1-9]", WORK_SECONDS)
    assert page.locator("#run-shown svg").count() > 0
    see(page, "run-shown", "scored and on the board", WORK_SECONDS)


def into_use_and_the_next_study(page: Any) -> None:
    open_tab(page, "In use")
    choose(page, "promotion-chosen", "gates-v1")
    see(page, "promotion-case", "No reviewer has compared it")
    page.locator("#promotion-put").click()
    see(page, "promotion-used", "gates-v1")
    page.locator("#promotion-back").click()
    see(page, "promotion-used", "connectpro-v1")
    page.locator("#promotion-back").click()
    see(page, "promotion-used", "gates-v1")
    open_tab(page, "Studies")
    open_tab(page, "New study")
    page.wait_for_function("() => document.querySelector('#study-name input, #study-name textarea').value.startsWith('Study ')")
    fill(page, "study-name", "Gates again")
    choose(page, "study-set", "gates")
    tick(page, "study-arms", "gates-v1 · tuned model", "connectpro-v1 · tuned model")
    choose(page, "study-against", "connectpro-v1")
    see(page, "study-plan", "Nothing is missing")
    page.locator("#study-create").click()
    see(page, "studies-list", "Gates again")


def test_a_second_start_is_up_at_once_and_keeps_everything(app: Running, browser: Any) -> None:
    app.stop()
    app.start()
    page = sign_in(browser, app, "engineer")
    see(page, "data-sets", "gates")
    begun = time.monotonic()
    page.get_by_text(re.compile("ready")).first.wait_for(timeout=MODEL_SECONDS)
    print(f"first page after {app.seconds:.1f} s, model after {time.monotonic() - begun + app.seconds:.1f} s")
    assert app.printed().count("Traceback") == 0
