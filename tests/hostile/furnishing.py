"""A small house to attack: people of every role, prompts, arms, answers, an open study, votes, a run, jobs, examples.

Every name an attacker could hope to read is a random canary; every text a person or a model can write carries every payload.
Not a test itself.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ft.specs import TrainSpec
from review.protocol.ballots import Ballot, BlindPair
from review.services.house import House
from storage.tables import (
    Adapter,
    Answer,
    Arm,
    Example,
    ImportReject,
    Job,
    Prompt,
    PromptSet,
    Run,
    RunEvent,
    Snapshot,
    SnapshotExample,
)
from tests.judging import practised

PEOPLE = {"Rita": "reviewer", "Ron": "reviewer", "Erik": "engineer", "Sam": "viewer", "Ada": "admin"}
PROMPTS = 6


@dataclass
class Canaries:
    """Random words, by what they name."""

    words: dict[str, str] = field(default_factory=dict)

    def __call__(self, what: str) -> str:
        return self.words.setdefault(what, f"kanari{secrets.token_hex(5)}")


def payloads(beacon: str) -> str:
    """Every way of making a page run, load, cover or leave something, in one text."""
    return f"""<script>fetch('{beacon}/script')</script><img src="{beacon}/img" onerror="fetch('{beacon}/onerror')">
<svg onload="fetch('{beacon}/svg')"></svg><iframe src="{beacon}/frame"></iframe>
<iframe srcdoc="<script>fetch('{beacon}/srcdoc')</script>"></iframe>
<form action="{beacon}/form" class="evil"><button style="position:fixed;inset:0;z-index:2147483647">press</button></form>
<div class="evil" style="position:fixed;inset:0;z-index:2147483647;background:url({beacon}/css)">cover</div>
<style>@import url({beacon}/style); body {{ background: url({beacon}/body) }}</style><link rel="stylesheet" href="{beacon}/link">
<base href="{beacon}/"><meta http-equiv="refresh" content="0;url={beacon}/meta"><object data="{beacon}/object"></object>
"><img src={beacon}/quoted>' onmouseover='fetch("{beacon}/attr")' <video src="{beacon}/video" autoplay></video>
![picture]({beacon}/markdown) [link](javascript:fetch('{beacon}/href')) <a href="javascript:fetch('{beacon}/a')">x</a>
${{fetch('{beacon}/template')}} {{{{constructor.constructor("fetch('{beacon}/handlebars')")()}}}} <%= 1 %> $$\\href{{{beacon}/katex}}{{x}}$$
<details open ontoggle="fetch('{beacon}/toggle')"></details><input autofocus onfocus="fetch('{beacon}/focus')"> </pre></dialog></section>"""


def furnish(house: House, word: Canaries, evil: str) -> None:
    """Fill the house. The evil name is as long as a name may be."""
    for name, role in PEOPLE.items():
        house.people.add(name, role)
    for role in ("reviewer", "viewer"):
        house.people.add(f"<img src=x onerror=alert(1)> {role}", role)
    practised(house.db, *(house.people.user(name).id for name in ("Rita", "Ron")))
    _library(house, word, evil)
    study = f"study {word('study')} <b>x</b>"
    house.studies.create(study, word("set"), [f"base {word('base arm')}", word("arm")], votes_per_pair=3)
    house.studies.open(study)
    _votes(house, evil)


def _library(house: House, word: Canaries, evil: str) -> None:
    with house.db.write() as session:
        tickets = PromptSet(name=word("set"), source=f"/somewhere/{word('source')}.jsonl")
        folder = Path(house.settings.home) / "adapters" / word("folder")
        adapter = Adapter(
            name=word("adapter"),
            title=f"{word('title')} <b>{evil[:200]}",
            folder=str(folder),
            content_hash=word("hash"),
            rank=8,
            alpha=16,
            bytes=1,
        )
        session.add_all([tickets, adapter])
        session.flush()
        base = Arm(name=f"base {word('base arm')}", kind="base", settings_hash=word("base settings"))
        tuned = Arm(name=word("arm"), kind="adapter", adapter_id=adapter.id, settings_hash=word("settings"))
        human = Arm(name="human", kind="human", settings_hash="human")
        session.add_all([base, tuned, human])
        prompts = [
            Prompt(
                set_id=tickets.id,
                split=split,
                instruction=f"Question {i}? {evil}",
                input=evil,
                reference=f"Reference {i} {evil}",
                category=f"<b>{i}</b>",
                tags=["<i>x</i>"],
                content_hash=f"p{i}",
            )
            for i in range(PROMPTS)
            for split in [("test", "train")[i == PROMPTS - 1]]
        ]
        session.add_all([*prompts, ImportReject(set_id=tickets.id, line=3, reason="not JSON", raw=evil)])
        session.flush()
        base_hash = f"{house.engine.identity().base_hash}:{word('base hash')}"
        for number, prompt in enumerate(prompts):
            for arm, text in ((base, "Plug it in"), (tuned, "Reset it now"), (human, "Call us")):
                session.add(Answer(arm_id=arm.id, prompt_id=prompt.id, text=f"{text}, {number}. {evil}", base_hash=base_hash))
        example = Example(prompt_id=prompts[-1].id, instruction=evil, output=evil, origin="imported", origin_id="1", state="approved")
        snapshot = Snapshot(content_hash=word("snapshot"))
        session.add_all([example, snapshot])
        session.flush()
        session.add(SnapshotExample(snapshot_id=snapshot.id, example_id=example.id))
        session.flush()
        run = Run(
            id=word("run"),
            snapshot_id=snapshot.id,
            spec=TrainSpec(name=word("run name")).to_dict(),
            folder=str(folder),
            status="failed",
            message=evil,
            started_at=1.0,
            ended_at=2.0,
        )
        session.add(run)
        session.flush()
        session.add(RunEvent(run_id=run.id, seq=1, kind="log", data={"text": evil, "loss": 1.0}, at=1.0))
        session.add(Job(kind="answer", status="finished", title=f"{word('job')} {evil}", message=evil, total=1, done=1))


def _votes(house: House, evil: str) -> None:
    """Ron has judged two pairs and written an ideal answer, all of it hostile."""
    ron = house.people.user("Ron").id
    for number in range(2):
        pair = house.comparisons.next_pair(ron)
        assert isinstance(pair, BlindPair), pair
        house.comparisons.vote(ron, Ballot(pair.assignment, "left", key=secrets.token_hex(16), comment=evil[:2000]))
        if not number:
            house.comparisons.correct(ron, pair.assignment, evil, key=secrets.token_hex(16))
