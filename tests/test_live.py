"""Live compare: sides are drawn and kept, each side goes on with its own words, names come after the vote only, failures look alike."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from ft.engine import BASE, Request
from ft.errors import BadInput, Conflict, Unavailable
from ft.scripted import ScriptedEngine
from ft.specs import DecodeSpec
from review.services.chat import Voice, chat
from review.services.live import FAILED, LiveCompare, Shown

ARMS = ("kanari-base", "kanari-tuned")
DECODE = DecodeSpec()


class Arms:
    """`Answers.converse` over a scripted engine: the tuned arm's words are known, its adapter may fail."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.asked: list[dict[str, Any]] = []

    def converse(self, said: dict[str, Any], decode: DecodeSpec | None = None) -> Any:
        self.asked.append(said)
        voices = {side: Voice(BASE, arm, messages) for side, (arm, messages) in said.items()}
        return chat(self.engine, voices, decode or DECODE)


def by_system(request: Request) -> str:
    turn = sum(message.role == "user" for message in request.messages)
    return f"{'tuned' if request.messages[0].content == ARMS[1] else 'plain'} answer {turn}"


def talk(answer: Any = by_system) -> LiveCompare:
    return LiveCompare(Arms(ScriptedEngine(answer)))  # type: ignore[arg-type]


def steps(live: LiveCompare, question: str, arms: Sequence[str] = ARMS) -> list[Shown]:
    return list(live.ask(question, arms, DECODE))


def test_both_answers_grow_in_step_and_nothing_names_an_arm_before_the_vote() -> None:
    live = talk()
    seen = steps(live, "How do I reset it?")
    assert len(seen) > 3
    for shown in seen:
        left, right = shown.turns[-1].left.split(), shown.turns[-1].right.split()
        assert abs(len(left) - len(right)) <= 1
        assert not any(arm in str(asdict(shown)) for arm in ARMS)
    assert {seen[-1].turns[0].left, seen[-1].turns[0].right} == {"plain answer 1", "tuned answer 1"}
    assert seen[-1].may_vote
    assert not seen[0].may_vote


def test_the_vote_says_who_was_who_and_ends_the_conversation() -> None:
    live = talk()
    shown = steps(live, "Hello?")[-1]
    told = live.vote("left")
    assert {told.left_arm, told.right_arm} == set(ARMS)
    assert (told.left_arm == ARMS[1]) == shown.turns[0].left.startswith("tuned")
    assert live.winner == told.left_arm
    with pytest.raises(Conflict, match="voted already"):
        live.vote("right")
    with pytest.raises(Conflict, match="over"):
        steps(live, "And now?")


def test_a_conversation_goes_on_on_the_same_sides_each_with_its_own_words() -> None:
    live = talk()
    for question in ("one", "two", "three"):
        shown = steps(live, question, ARMS[::-1] if question == "two" else ARMS)[-1]
    kinds = [(turn.left.split()[0], turn.right.split()[0]) for turn in shown.turns]
    assert len(set(kinds)) == 1
    assert [turn.left.split()[-1] for turn in shown.turns] == ["1", "2", "3"]
    last = live.answers.asked[-1]["left"][1]  # type: ignore[attr-defined]
    assert [m.content for m in last if m.role == "assistant"] == [turn.left for turn in shown.turns[:2]]


def test_sides_are_drawn_afresh_for_each_conversation() -> None:
    drawn: Counter[str] = Counter()
    for _ in range(120):
        live = talk()
        drawn[steps(live, "x")[-1].turns[0].left.split()[0]] += 1
    assert 30 < drawn["tuned"] < 90


@pytest.mark.parametrize("bad", ARMS)
def test_whichever_arm_fails_the_words_are_the_same(bad: str) -> None:
    def broken(request: Request) -> str:
        if request.messages[0].content == bad:
            raise RuntimeError(f"{bad} is out of memory")
        return "fine"

    live = talk(broken)
    last = steps(live, "x")[-1]
    assert last == Shown((), False, remark=FAILED)
    with pytest.raises(Conflict, match="nothing to judge"):
        live.vote("left")


@pytest.mark.parametrize(
    ("question", "arms", "words"), [("", ARMS, "no question"), ("x", ("a", "a"), "Two different"), ("x" * 9000, ARMS, "longer")]
)
def test_what_cannot_be_asked_is_refused_before_anything_is_drawn(question: str, arms: Sequence[str], words: str) -> None:
    live = talk()
    with pytest.raises(BadInput, match=words):
        live.ask(question, arms, DECODE)
    assert live.shown() == Shown((), False)


def test_what_stops_both_before_they_begin_is_said_as_it_is() -> None:
    live = talk()

    def refuse(said: Any, decode: Any = None) -> Any:
        raise Unavailable("The model is being changed. Ask again in a minute.")

    live.answers.converse = refuse  # type: ignore[method-assign]
    assert steps(live, "x")[-1] == Shown((), False, remark="The model is being changed. Ask again in a minute.")


def test_an_empty_answer_is_said_and_not_left_blank() -> None:
    live = talk(lambda request: "")
    assert steps(live, "x")[-1].turns[0].left == "(empty answer)"
