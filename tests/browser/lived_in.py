"""A house in which everything has happened once, so that every screen has something to show; and one in which nothing has. Not a test."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ft.scripted import ScriptedEngine
from ft.specs import LoraSpec, TrainSpec
from review.services.house import House, build, open_database
from review.settings import Settings
from review.web import build_app
from storage.queries import keeping
from storage.tables import Answer, Arm, Prompt, Run, RunEvent
from tests import study_room
from tests.hostile.site import free_socket, served
from tests.judging import practised

LONG = "Go to Settings > Network > Gateways and press Reset.\n" * 12 + "averyveryverylongwordwithoutanyspace" * 6
STUDY = "Spring: is v2 better?"
TUNED = "connectpro-v2"
QUIET_SECONDS = 0.35


@dataclass
class Lived:
    """A running app and the pages that people have open in it."""

    address: str
    house: House
    pages: dict[Any, Any] = field(default_factory=dict)

    def open(self, browser: Any, name: str, path: str, tab: str = "", **context: Any) -> Any:
        """A page of this person, settled. `tab` is the key of a tab of the lab."""
        page = browser.new_context(**context).new_page()
        page.strayed, page.complaints, page.under_way = [], [], set()
        page.goto(f"{self.address}/login/{self.house.people.link(name)}")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"{self.address}/**")
        watch(page, self.address)
        page.goto(self.address + path)
        page.locator("#tb-header nav a").first.wait_for()
        if tab:
            page.locator(f"#lab-{tab}-button").click()
        settle(page)
        return page

    def visit(self, browser: Any, name: str, path: str, tabs: tuple[str, ...], **context: Any) -> Any:
        """The same page for every visit of this person, turned to the tab inside the tab."""
        key = (name, path, str(context))
        if key not in self.pages:
            self.pages[key] = self.open(browser, name, path, **context)
        page = self.pages[key]
        for title in tabs:
            page.get_by_role("tab", name=title, exact=True).click()
            settle(page)
        return page


def watch(page: Any, address: str) -> None:
    """Note every request that leaves for elsewhere, every complaint of the browser, and what is under way."""
    page.on("request", lambda r: page.strayed.append(r.url) if r.url.startswith("http") and not r.url.startswith(address) else None)
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda r: page.under_way.add(r) if not _lasting(r.url) else None)
    for over in ("requestfinished", "requestfailed"):
        page.on(over, lambda r: page.under_way.discard(r))


def _lasting(url: str) -> bool:
    return "/heartbeat" in url or "/queue/data" in url


def settle(page: Any, seconds: float = 15.0) -> None:
    """Until nothing was asked of the server for a moment, so that what came is drawn."""
    quiet = 0.0
    for _ in range(round(seconds / 0.05)):
        page.wait_for_timeout(50)
        quiet = 0.0 if page.under_way else quiet + 0.05
        if quiet >= QUIET_SECONDS:
            return
    raise AssertionError(f"still waiting for {[request.url for request in page.under_way]}")


@contextmanager
def running(home: Path, live: Any) -> Iterator[Lived]:
    """The app on a house that `live(house)` has furnished, with scripted answers."""
    listener = free_socket()
    settings = Settings(home, engine="scripted", port=listener.getsockname()[1])
    db = open_database(settings.database_url)
    db.migrate()
    house = build(settings, db, ScriptedEngine())
    live(house)
    with served(build_app(house), listener) as address:
        lived = Lived(address, house)
        yield lived
        for page in lived.pages.values():
            page.context.close()
    db.close()


def nothing_yet(house: House) -> None:
    """Only people."""
    for name, role in study_room.PEOPLE.items():
        house.people.add(name, role)


def everything(house: House) -> None:
    """Prompts, answers, scores, a study with disputes and a doubted reviewer, a run, an adapter in use, exports of none, keys, a backup."""
    study_room.furnish(house)
    house.engine.open()
    _tickets(house)
    _study(house)
    _run(house)
    _in_use(house)
    admin = house.people.user("Ada").id
    house.keys.add("nightly import", "engineer", admin)
    house.upkeep.back_up(admin)
    house.remotes.add("hosted", "https://models.example/v1", "large-1", "HOSTED_KEY", 2.0, 8.0)


def _tickets(house: House) -> None:
    rows = [{"instruction": f"Question {n}: {LONG if n == 1 else 'how do I reset it?'}", "output": f"{n}. {LONG}"} for n in range(6)]
    file = Path(house.settings.home) / "long.jsonl"
    file.write_text("".join(json.dumps(row | {"split": "test" if n < 4 else "train"}) + "\n" for n, row in enumerate(rows)) + "broken\n")
    house.library.import_file(file, "long")
    house.answers.run(house.answers.start("long", "test", ["base", "human"], None))
    house.boards.score("tickets", "test", ["base", TUNED])


def _study(house: House) -> None:
    house.studies.create("First look", "long", ["base", "human"], votes_per_pair=2)
    house.studies.create(STUDY, "tickets", ["base", TUNED], votes_per_pair=4, checks=False)
    house.studies.open(STUDY)
    quick = house.people.add("Quinn", "reviewer").id
    practised(house.db, quick, *(house.people.user(name).id for name in ("Rita", "Ron", "Rosa")))
    study_room.judge(house, "Ron", 40)
    study_room.judge(house, "Rosa", 40, bad_at="billing")
    study_room.judge(house, "Quinn", 40, seconds=0.2)


def _run(house: House) -> None:
    """Two finished runs as the database knows them, with the events that a real one writes."""
    house.library.import_file(_doors(house), "doors", approve=True)
    snapshot = house.library.snapshot().id
    with house.db.write() as session:
        for number, rate in enumerate((2e-4, 1e-4)):
            spec = TrainSpec(name=f"connectpro-v{number + 3}", learning_rate=rate, lora=LoraSpec(rank=8 * (number + 1)))
            run = f"20261101-10000{number}-abc{number}"
            folder = str(house.settings.home / "runs" / run)
            session.add(Run(id=run, snapshot_id=snapshot, spec=spec.to_dict(), folder=folder, status="finished", after="checked",
                            message="It ended well.", started_at=1_793_500_000.0, ended_at=1_793_500_300.0))  # fmt: skip
            session.flush()
            session.add_all(RunEvent(run_id=run, seq=seq, **event) for seq, event in enumerate(_events(rate)))


def _doors(house: House) -> Path:
    file = Path(house.settings.home) / "doors.jsonl"
    rows = [{"instruction": f"How do I open door {n} of house {n * 31}?", "output": f"With key {n}.", "split": "train"} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _events(rate: float) -> Iterator[dict[str, Any]]:
    text = {"prompt": study_room.ASKED["network"], "reference": study_room.TUNED["network"], "answer": study_room.PLAIN}
    for step in range(1, 21):
        told = {"loss": 3.0 / step + rate * 1000, "steps": 20, "learning_rate": rate, "grad_norm": 1.0 / step, "tokens_per_second": 300.0}
        yield {"kind": "train", "step": step, "data": told, "at": 1_793_500_000.0 + step}
        if step % 5 == 0:
            yield {"kind": "validation", "step": step, "data": {"loss": 3.1 / step + 0.3, "perplexity": 4.2}, "at": 1_793_500_000.0 + step}
            scores = {"bleu": 4.0 + step, "rougeL": 0.2 + step / 100, "meteor": 0.3}
            yield {"kind": "samples", "step": step, "data": {"n": 8, "scores": scores, "texts": [text] * 3}, "at": 1_793_500_000.0 + step}
    yield {
        "kind": "warning",
        "step": 15,
        "data": {"message": "Validation rises while training falls."},
        "at": 1_793_500_015.0,
    }


def _in_use(house: House) -> None:
    """What must not get worse is answered, with one regression; then a person puts the adapter in use."""
    house.keeping.sets()
    with house.db.write() as session:
        held = keeping.set_for(session, "canary")
        assert held is not None
        arms = {arm.name: arm.id for arm in session.query(Arm)}
        for arm, text in (("base", "Tokyo"), (TUNED, "Open Settings")):
            session.add_all(Answer(arm_id=arms[arm], prompt_id=one.id, text=text) for one in keeping.prompts_of(session, held.id or 0))
    house.promotions.promote(TUNED, house.people.user("Erik").id, "Reviewers prefer it, and billing is looked at next.")


def one_more_answered(house: House) -> None:
    """A new question that must not get worse, answered by the base and the adapter alike."""
    with house.db.write() as session:
        held = keeping.set_for(session, "canary")
        assert held is not None
        number = len(keeping.prompts_of(session, held.id or 0))
        made = Prompt(set_id=held.id or 0, split="test", instruction=f"Is {number} a number?", content_hash=f"n{number}", expects={})
        session.add(made)
        session.flush()
        arms = {arm.name: arm.id for arm in session.query(Arm)}
        session.add_all(Answer(arm_id=arms[arm], prompt_id=made.id, text="Yes.") for arm in ("base", TUNED))
