"""A house in which studies have lived: tagged prompts, three arms, reviewers who agree, differ and hurry. Not a test itself."""

import json
import secrets
import time
from pathlib import Path
from typing import Any

from ft.engine import Request
from review.protocol.ballots import Ballot, BlindPair
from review.services.comparisons import Comparisons
from review.services.house import House
from storage.tables import Answer, Arm, Prompt
from tests.judging import Clock, add_arm

PEOPLE = {"Rita": "reviewer", "Ron": "reviewer", "Rosa": "reviewer", "Erik": "engineer", "Sam": "viewer", "Ada": "admin"}
SUBJECTS = ("billing", "network", "sign-in")
ASKED = {
    "billing": "Why was I billed twice in March, and when do I get the money back?",
    "network": "The gateway in building 4 drops the line every few minutes. What can I do?",
    "sign-in": "I changed my phone and cannot get past the second step of the sign-in.",
}
PLAIN = "Thank you for writing. Please contact your administrator, who can look into this for you."
TUNED = {
    "billing": "Open Billing > Invoices and compare the two charges: one is a deposit and is returned within five days.",
    "network": "Open Settings > Network, choose the gateway, press Reset and wait until the light is green.",
    "sign-in": "Ask your administrator for a one-time code under Users > Security; then register the new phone.",
}
HUMAN = "Happy to help! I have looked at your account and sent you the steps by e-mail just now."
PROMPTS = 12


def furnish(house: House, prompts: int = PROMPTS) -> None:
    """People, the prompt set "tickets" and its answers by base, connectpro-v2 and the human agent. No study yet."""
    for name, role in PEOPLE.items():
        house.people.add(name, role)
    rows = [_row(number) for number in range(prompts)]
    file = Path(house.settings.home) / "tickets.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    house.library.import_file(file, "tickets", split="test")
    house.answers.ensure_arms()
    with house.db.write() as session:
        add_arm(session, "connectpro-v2")
        session.flush()
        arms = {arm.name: arm.id for arm in session.query(Arm)}
        for prompt in session.query(Prompt):
            subject = prompt.tags[0] if prompt.tags else SUBJECTS[0]
            for arm, text in (("base", PLAIN), ("connectpro-v2", TUNED[subject]), ("human", HUMAN)):
                session.add(Answer(arm_id=arms[arm], prompt_id=prompt.id, text=f"{text} (case {prompt.id})"))


def _row(number: int) -> dict[str, Any]:
    subject = SUBJECTS[number % len(SUBJECTS)]
    return {"instruction": f"{ASKED[subject]} (case {number})", "output": HUMAN, "tags": [subject], "split": "test"}


def scripted(request: Request) -> str:
    """What the scripted engine says to anybody."""
    return TUNED["network"] if len(request.messages) > 2 else PLAIN


def judge(house: House, name: str, most: int, bad_at: str = "", seconds: float = 20.0) -> int:
    """`name` judges up to `most` pairs: the better answer wins, except on the subject `bad_at`. How many were judged."""
    clock = Clock(time.time())
    desk = Comparisons(house.db, now=clock)
    person = house.people.user(name).id
    for done in range(most):
        pair = desk.next_pair(person)
        if not isinstance(pair, BlindPair):
            return done
        clock.time += seconds
        if desk.vote(person, ballot(pair, bad_at)).asks:
            desk.guess(person, pair.assignment, ("unsure", "left", "right")[done % 3])
    return most


def ballot(pair: BlindPair, bad_at: str = "") -> Ballot:
    subject = next(one for one, asked in ASKED.items() if asked in pair.prompt)
    left, right = (_quality(text, subject) for text in (pair.left, pair.right))
    better, worse = ("left", "right") if left > right else ("right", "left")
    odd = subject == bad_at and TUNED[subject] in f"{pair.left} {pair.right}" and min(left, right) > 0
    choice: Any = "tie" if left == right else worse if odd else better
    reasons = (f"{better}: made-up steps",) if odd and pair.reasons else ()
    criteria = {one: "same" if choice == "tie" else choice for one in pair.criteria[:2]} if pair.scale == "sides" else {}
    return Ballot(pair.assignment, choice, secrets.token_hex(16), "It names a menu we do not have." if odd else "", reasons, criteria)


def _quality(text: str, subject: str) -> int:
    return 3 if TUNED[subject] in text else 2 if HUMAN in text else 1 if PLAIN in text else 0
