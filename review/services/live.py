"""Live compare: one conversation with two arms, sides drawn blind, a vote, then who was who. For practice and demos.

Nothing of it is stored or counted. What `shown` holds before the vote says nothing about which arm is which; a failure has one wording,
whichever side it came from. Must not know the database, torch or screens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ft.engine import Message
from ft.errors import BadInput, Conflict, UserError
from ft.specs import DecodeSpec
from review.protocol.ballots import CHOICES, Choice
from review.protocol.blinding import EMPTY, draw_sides, shown_text
from review.services.answers import Answers

MAX_TURNS = 12
MAX_QUESTION = 8_000
FAILED = "One of the two could not answer, so this question was set aside. Ask it again, or start over."


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and both answers, as far as they are."""

    question: str
    left: str = ""
    right: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page may show. `left_arm` and `right_arm` stay empty until the vote. `remark`: what to do or what went wrong."""

    turns: tuple[Turn, ...]
    answering: bool
    choice: str = ""
    left_arm: str = ""
    right_arm: str = ""
    remark: str = ""

    @property
    def may_vote(self) -> bool:
        return bool(self.turns) and not self.answering and not self.choice


@dataclass(slots=True)
class LiveCompare:
    """One conversation. It lives in memory, with one person, and is over with the vote."""

    answers: Answers = field(repr=False)
    _sides: tuple[str, str] = field(default=("", ""), repr=False)
    _turns: tuple[Turn, ...] = ()
    _choice: str = ""

    def ask(self, question: str, arms: Sequence[str], decode: DecodeSpec) -> Iterator[Shown]:
        """Ask both; the sides are drawn with the first question and stay. `arms` counts for the first question only.

        Raises BadInput for what cannot be asked and Conflict after the vote; any failure of an arm is the last step's remark.
        """
        question = question.strip()
        self._check(question, arms, decode)
        if not self._turns:
            self._sides = draw_sides(arms[0], arms[1])
        return self._answers_to(question, decode)

    def vote(self, choice: Choice) -> Shown:
        """End the conversation and say who was who. Raises Conflict where there is nothing to judge, or a vote already."""
        if choice not in CHOICES:
            raise BadInput(f"A vote is one of {', '.join(CHOICES)}. Choose one of them.")
        if self._choice:
            raise Conflict("You have voted already. Start over to compare again.")
        if not self._turns:
            raise Conflict("There is nothing to judge yet. Ask something first.")
        self._choice = choice
        return self.shown()

    def shown(self) -> Shown:
        """As it stands. Names only after the vote."""
        left, right = self._sides if self._choice else ("", "")
        return Shown(self._turns, False, self._choice, left, right)

    @property
    def winner(self) -> str:
        """The arm that was voted better; "" for a tie, both bad, or before the vote."""
        return {"left": self._sides[0], "right": self._sides[1]}.get(self._choice, "")

    def _check(self, question: str, arms: Sequence[str], decode: DecodeSpec) -> None:
        if self._choice:
            raise Conflict("This conversation is over: you have voted and know who was who. Start over.")
        problems = list(decode.problems())
        if not question:
            problems.append("There is no question yet. Write one first.")
        if len(question) > MAX_QUESTION:
            problems.append(f"The question is longer than {MAX_QUESTION:,} characters. Shorten it.")
        if not self._turns and len(set(arms)) != 2:
            problems.append("Two different ones are needed to compare: train or add an adapter, then choose both under “Who answers”.")
        if len(self._turns) >= MAX_TURNS:
            problems.append(f"A conversation has {MAX_TURNS} questions at most. Vote, or start over.")
        if problems:
            raise BadInput(" ".join(problems))

    def _answers_to(self, question: str, decode: DecodeSpec) -> Iterator[Shown]:
        turn = Turn(question)
        yield Shown((*self._turns, turn), True)
        said = {side: (arm, self._said(side, question)) for side, arm in zip(("left", "right"), self._sides, strict=True)}
        try:
            steps = self.answers.converse(said, decode)
        except UserError as error:  # nothing was answered yet, so its words say nothing about a side
            yield replace(self.shown(), remark=str(error))
            return
        try:
            for step in steps:
                if step.failed:
                    yield replace(self.shown(), remark=FAILED)
                    return
                turn = Turn(question, step.texts["left"], step.texts["right"])
                yield Shown((*self._turns, turn), True)
        except UserError:  # its words may name the arm that failed
            yield replace(self.shown(), remark=FAILED)
            return
        self._turns = (*self._turns, Turn(question, shown_text(turn.left) or EMPTY, shown_text(turn.right) or EMPTY))
        yield self.shown()

    def _said(self, side: str, question: str) -> tuple[Message, ...]:
        """The conversation as this side knows it: its own answers, never the other's."""
        said: list[Message] = []
        for turn in self._turns:
            said += [Message("user", turn.question), Message("assistant", turn.left if side == "left" else turn.right)]
        return (*said, Message("user", question))
