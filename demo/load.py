"""Puts the ConnectPro demo into a new house: people, tickets, adapter, stored answers, scores and an open study. No model, no torch.

Each step does nothing where it is done already, so a load that was cut off goes on; once complete it never runs again, so what people
change or remove stays so. Must not know screens or HTTP.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.connectpro import FOLDER, NAME, read, splits
from ft.curate import content_hash
from ft.models import EMBEDDED
from review.services.faults import reading, writing
from storage.queries import arms as queries
from storage.tables import Answer

if TYPE_CHECKING:
    from review.services.house import House

PEOPLE = (("Rita", "reviewer"), ("Enzo", "engineer"), ("Vera", "viewer"))
ADAPTER = f"{NAME}-v1"
TITLE = "ConnectPro support, trained on its tickets"
STUDY = "ConnectPro: base or fine-tuned?"
ARMS = ("base", ADAPTER, "human")
LOADED = "demo_loaded"


def load(house: "House") -> bool:
    """Whether anything was loaded. On another base than the embedded one only people and tickets come: the adapter would not fit."""
    with reading(house.db) as session:
        if queries.setting(session, LOADED):
            return False
    add_people(house)
    add_tickets(house)
    if house.settings.base == EMBEDDED:
        add_adapter(house)
        add_answers(house)
        house.boards.score(NAME, "test", ARMS)
        add_study(house)
    with writing(house.db) as session:
        queries.put_setting(session, LOADED, True)
    return True


def add_people(house: "House") -> None:
    known = {person.name.casefold() for person in house.people.users()}
    for name, role in PEOPLE:
        if name.casefold() not in known:
            house.people.add(name, role)


def add_tickets(house: "House") -> None:
    """All in one transaction; train and validation tickets are approved examples."""
    split = {ticket_id: name for name, ids in splits().items() for ticket_id in ids}
    lines = [json.dumps({**t.row(), "category": t.category, "tags": t.tags, "split": split[t.id]}) for t in read()]
    with tempfile.TemporaryDirectory(dir=house.settings.folder("exports")) as folder:
        file = Path(folder) / f"{NAME}.jsonl"
        file.write_text("\n".join(lines), encoding="ascii")
        house.library.import_file(file, NAME, approve=True)


def add_adapter(house: "House") -> None:
    with reading(house.db) as session:
        known = ADAPTER in queries.names_taken(session)
    if not known:
        house.adapters.register(FOLDER / "adapter", ADAPTER, None, title=TITLE)
    house.adapters.use(ADAPTER, None, "It comes with the demo.")
    house.answers.ensure_arms()


def answers() -> list[dict[str, Any]]:
    """The stored answers to the test tickets, one row per ticket and arm."""
    return [json.loads(line) for line in (FOLDER / "answers.jsonl").read_bytes().split(b"\n") if line]


def add_answers(house: "House") -> None:
    """What base and adapter answered when the demo was made, and what people wrote; only where an answer is missing."""
    stored = {(row["arm"], row["prompt_hash"]): row for row in answers()}
    references = {content_hash(ticket.instruction, ticket.input): ticket.output for ticket in read()}
    with writing(house.db) as session:
        arms = {arm.name: arm.id for arm, _ in queries.arms(session) if arm.name in ARMS and arm.id is not None}
        found = queries.set_named(session, NAME)
        missing = queries.unanswered(session, found.id or 0, "test", list(arms.values())) if found else []
        prompts = queries.prompts(session, list({prompt for prompt, _ in missing}))
        names = {arm_id: name for name, arm_id in arms.items()}
        for prompt_id, arm_id in missing:
            content = prompts[prompt_id].content_hash
            if names[arm_id] == "human":
                session.add(Answer(arm_id=arm_id, prompt_id=prompt_id, text=references[content]))
            else:
                session.add(stored_answer(stored[names[arm_id], content], arm_id, prompt_id))


def stored_answer(row: dict[str, Any], arm_id: int, prompt_id: int) -> Answer:
    kept = ("text", "prompt_tokens", "new_tokens", "finish", "seconds", "base_hash", "adapter_hash", "template_hash", "decode_hash", "seed")
    return Answer(arm_id=arm_id, prompt_id=prompt_id, **{name: row[name] for name in kept})


def add_study(house: "House") -> None:
    if STUDY not in {study.name for study in house.studies.studies()}:
        house.studies.create(STUDY, NAME, ["base", ADAPTER], votes_per_pair=2)
    if house.studies.study(STUDY).state == "draft":
        house.studies.open(STUDY)
