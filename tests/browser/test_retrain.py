"""Retraining as an engineer meets it: mistakes named, a run that outlives browser and app, its adapter put in use and taken back.

A tiny base, trained for real; answers are scripted.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from review.services.house import build, open_database
from review.services.people import People
from review.settings import Settings
from tests.browser.conftest import Running, free_port
from tests.conftest import ROOT
from tests.trainable import tiny_base

pytestmark = [pytest.mark.browser]
SECONDS = 240_000
TESTED = ("Where does the lift stop at night?", "Who keeps the spare badge of the cellar?", "May visitors park in the yard?")


class Bare(Running):
    """The app without the demo, so without links printed."""

    def start(self) -> "Bare":
        env = {name: value for name, value in os.environ.items() if not name.startswith("TIEBREAK_")}
        env |= {"TIEBREAK_HOME": str(self.home), "TIEBREAK_PORT": str(self.port), "TIEBREAK_DEMO": "0", **self.env}
        log = (self.home / "app.log").open("a+")
        self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log, text=True)
        while not self._answers():
            assert self.process.poll() is None, self.printed()
            time.sleep(0.05)
        return self


@pytest.fixture
def site(home: Path) -> Iterator[Running]:
    base = tiny_base(home / "tiny")
    settings = Settings(home=home, base=str(base), engine="scripted")
    db = open_database(settings.database_url)
    db.migrate()
    from ft.scripted import ScriptedEngine

    house = build(settings, db, ScriptedEngine())
    rows = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}.", "split": "train"} for n in range(24)]
    rows.append({"instruction": "Too long?", "output": "z" * 900, "split": "train"})
    rows += [{"instruction": asked, "output": "Ask at the front desk.", "split": "test"} for asked in TESTED]
    file = home / "doors.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    house.library.import_file(file, "doors", approve=True)
    house.answers.ensure_arms()
    house.answers.run(house.answers.start("doors", "test", ["base"], None))
    People(db).add("Erik", "engineer")
    db.close()
    running = Bare(home, free_port(), {"TIEBREAK_BASE": str(base), "TIEBREAK_ENGINE": "scripted"})
    yield running.start()
    running.stop()


def engineer(browser: Any, site: Running, **context: Any) -> Any:
    """A page on the Retrain tab."""
    db = open_database(Settings(home=site.home).database_url)
    link = People(db).link("Erik")
    db.close()
    page = browser.new_context(**context).new_page()
    page.goto(f"{site.address}/login/{link}")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(re.compile("/lab"))
    page.locator("#lab-retrain-button").click()
    page.locator("#run-name").wait_for()
    return page


def fill(page: Any, element: str, value: str) -> None:
    page.locator(f"#{element}").locator("input, textarea").first.fill(value)
    page.keyboard.press("Tab")


def see(page: Any, element: str, words: str) -> None:
    page.wait_for_function(
        "([id, words]) => new RegExp(words).test(document.getElementById(id)?.innerText || '')", arg=[element, words], timeout=SECONDS
    )


def test_a_run_outlives_browser_and_app_and_its_adapter_goes_into_use_and_back(browser: Any, site: Running) -> None:
    page = engineer(browser, site)
    fill(page, "run-name", "base")
    fill(page, "run-epochs", "0")
    fill(page, "run-steps", "-1")
    page.locator("#run-check").click()
    for words in ("name is", "epochs is", "max_steps is"):
        see(page, "run-verdict", words)
    fill(page, "run-name", "doors-v1")
    fill(page, "run-epochs", "3")
    fill(page, "run-steps", "5000")
    page.get_by_role("button", name=re.compile("All settings")).click()
    for setting, value in (("evaluations", "2"), ("samples", "2"), ("sample-tokens", "16")):
        fill(page, f"run-{setting}", value)
    page.locator("#run-check").click()
    see(page, "run-measured", "Too long")
    see(page, "run-measured", "It fits")
    marked = "".join(page.locator("#run-measured .tb-mask b").all_inner_texts())
    assert "With key" in marked
    assert "How do I" not in marked
    page.locator("#run-start").click()
    see(page, "run-shown", "step [1-9]")
    page.context.close()

    assert site.process is not None
    site.process.send_signal(signal.SIGKILL)
    site.process.wait(30)
    assert [runs.state(folder).status for folder in (site.home / "runs").glob("2*")] == ["running"]
    site.start()
    page = engineer(browser, site)
    see(page, "run-shown", r"running[^]*step [1-9]")
    page.locator("#run-finish").click()
    see(page, "run-shown", "finished")
    see(page, "run-shown", "What it writes")
    see(page, "run-shown", "doors-v1.*scored and on the board.*under In use")
    assert page.locator("#run-shown svg").count() >= 2
    into_use_and_back(page)
    page.locator("#lab-studies-button").click()
    see(page, "studies-list", r"doors-v1 against base\s+draft")
    page.context.close()


def into_use_and_back(page: Any) -> None:
    page.locator("#lab-promotion-button").click()
    see(page, "promotion-used", "the base model alone")
    see(page, "promotion-case", "doors-v1 in place of base")
    see(page, "promotion-case", "No reviewer has compared it")
    fill(page, "promotion-reason", "It knows the keys.")
    page.locator("#promotion-put").click()
    see(page, "promotion-used", "doors-v1 since .* by Erik.*It knows the keys")
    see(page, "promotion-back", "Back to the base alone")
    page.locator("#promotion-back").click()
    see(page, "promotion-used", "the base model alone")
    see(page, "promotion-history", r"base\s+Erik\s+Taken back\.[^]*doors-v1\s+Erik\s+It knows the keys")
