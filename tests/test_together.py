"""The whole house at work: two people chat, a job writes 500 answers, one adapter comes and another goes. Nobody waits, nothing is mixed.

Waits are counted in turns of the inference thread, so a slow machine changes nothing.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft.engine import BASE, Delta, Done, Message, Request
from ft.errors import UserError
from ft.gathering import Gathering
from ft.specs import DecodeSpec
from ft.streams import Call
from ft.template import messages_for
from review.services import answers, jobs
from review.services.house import House, build
from review.settings import Settings
from storage.tables import Answer, Arm, Prompt
from tests.test_engine import tiny_base
from tests.tiny import make_adapter

__all__ = ["tiny_base"]
PROMPTS = 250
SHORT = DecodeSpec(max_new_tokens=8)
ASKED = {"Rita": "How do I reset my password?", "Ron": "The invoice of March is wrong, please check the plan."}
MOST_TURNS = 6  # to join, to read a prompt of this size in pieces, to take one step


class Turns:
    """Counts the turns of the inference thread, and remembers at which a call of people came and had its first word."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.came, self.waits = 0, {}, []
        turn, add, put = Gathering.turn, Gathering.add, Call.put

        def counted_turn(gathering: Gathering) -> None:
            self.now += 1
            turn(gathering)

        def noted_add(gathering: Gathering, call: Call) -> None:
            if not call.background:
                self.came[id(call)] = self.now
            add(gathering, call)

        def noted_put(call: Call, event: Any) -> None:
            if isinstance(event, Delta) and id(call) in self.came:
                self.waits.append(self.now - self.came.pop(id(call)))
            put(call, event)

        monkeypatch.setattr(Gathering, "turn", counted_turn)
        monkeypatch.setattr(Gathering, "add", noted_add)
        monkeypatch.setattr(Call, "put", noted_put)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


@pytest.fixture
def house(turns: Turns, home: Path, db: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    from ft.engine_local import LocalEngine

    monkeypatch.setattr(answers, "ARM_DECODE", SHORT)
    engine = LocalEngine(str(tiny_base), tmp_path / "bases", device="cpu", dtype="float32")
    made = build(Settings(home=home, base=str(tiny_base), engine="local", demo=False), db, engine)
    rows = home / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"instruction": f"Question {n}? " + "please " * (n % 20), "output": "x"}) + "\n" for n in range(PROMPTS))
    )
    made.library.import_file(rows, "set", split="test")
    for number, name in enumerate(("one", "two", "leaving", "coming"), 1):
        made.adapters.register(make_adapter(tmp_path / name, tiny_base, number), name, None)
    made.engine.wait_ready(240)
    yield made
    engine.close()


def chat(house: House, who: str, *arms: str) -> dict[str, str]:
    return dict(list(house.answers.chat(arms, [Message("user", ASKED[who])], SHORT))[-1].texts)


def alone(house: House, adapter: str, instruction: str) -> str:
    """The answer to a prompt of the set with nothing beside it."""
    request = Request("x", messages_for(instruction), adapter, SHORT)
    done = list(house.engine.generate([request]))[-1]
    assert isinstance(done, Done)
    return done.text.strip()


def test_two_people_chat_while_500_answers_are_written_and_one_adapter_comes_and_another_goes(house: House, turns: Turns) -> None:
    pairs = {"Rita": ("base", "two"), "Ron": ("base", "one")}
    expected = {who: chat(house, who, *arms) for who, arms in pairs.items()}
    parting = chat(house, "Ron", "leaving")
    hashes = {view.name: view.content_hash for view in house.adapters.adapters()}
    job = house.answers.start("set", "test", ["base", "one"], None)
    work = threading.Thread(target=house.answers.run, args=(job,))
    wrong: list[str] = []
    talks = dict.fromkeys(pairs, 0)

    def talk(who: str) -> None:
        while jobs.one(house.db, job).status != "finished":
            if chat(house, who, *pairs[who]) != expected[who]:
                wrong.append(who)
            talks[who] += jobs.one(house.db, job).status == "running"

    def come_and_go() -> None:
        last = house.answers.chat(["leaving"], [Message("user", ASKED["Ron"])], SHORT)
        next(last)
        house.adapters.remove("leaving", None)
        gone = threading.Thread(target=house.adapters.reconcile)
        gone.start()
        if dict(list(last)[-1].texts) != parting:
            wrong.append("leaving")
        gone.join()
        house.adapters.want("coming", True, None)
        house.adapters.reconcile()
        if jobs.one(house.db, job).status != "running":
            wrong.append("the job had ended before, so nothing was shown")

    turns.waits.clear()
    work.start()
    others = [threading.Thread(target=talk, args=(who,)) for who in pairs] + [threading.Thread(target=come_and_go)]
    for thread in others:
        thread.start()
    for thread in [work, *others]:
        thread.join(120)
        assert not thread.is_alive()
    assert wrong == []
    assert min(talks.values()) >= 5
    assert len(turns.waits) > 10
    assert max(turns.waits) <= MOST_TURNS, sorted(turns.waits)
    resident = house.engine.adapters()
    assert hashes["coming"] in resident
    assert hashes["leaving"] not in resident
    written_as_alone(house, hashes["one"])


def written_as_alone(house: House, one: str) -> None:
    with house.db.session() as session:
        arms = {arm.id: arm.name for arm in session.query(Arm)}
        prompts = {prompt.id: prompt.instruction for prompt in session.query(Prompt)}
        written = list(session.query(Answer))
    assert len(written) == 2 * PROMPTS
    assert {(arms[answer.arm_id], answer.adapter_hash) for answer in written} == {("base", ""), ("one", one)}
    for answer in written[:: len(written) // 20]:
        assert answer.text == alone(house, one if answer.adapter_hash else BASE, prompts[answer.prompt_id])


def test_an_arm_whose_adapter_was_removed_a_moment_ago_is_refused_in_words_and_the_others_go_on(house: House) -> None:
    job = house.answers.start("set", "test", ["base", "leaving"], None)
    house.adapters.remove("leaving", None)
    with pytest.raises(UserError, match="has been removed"):
        chat(house, "Rita", "base", "leaving")
    house.answers.run(job)
    row = jobs.one(house.db, job)
    assert row.status == "failed"
    assert "leaving: That adapter has been removed" in row.message
    assert row.done == PROMPTS
