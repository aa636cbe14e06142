"""Whether the lines of a study file fit together: every name known, nothing twice, every vote on answers that are there.

Each check raises BadInput with the line. Must not know the database, screens or models.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ft.errors import UserError
from review.protocol.ballots import CHOICES, GUESSES, bare_reason
from review.protocol.criteria import SCALES
from review.protocol.verdict import Rule
from review.services.declaring import complete_rule, is_printable
from review.services.study_lines import (
    DECIDED,
    DOUBTED,
    AdjudicationLine,
    AnswerLine,
    ArmLine,
    DecisionLine,
    Header,
    PromptLine,
    SkipLine,
    VoteLine,
    wrong,
)
from review.services.vote_words import choice_of

ARM_KINDS = ("base", "adapter", "human", "remote", "imported")
VOTE_KINDS = ("real", "repeat", "gold", "training")
MOST_VOTES = 1_000_000
UNNAMED = "unnamed"  # the reviewer of votes that name none
MAX_NAME = 300
LATEST = 4e9  # UTC seconds; about the year 2096


@dataclass(frozen=True, slots=True)
class Cast:
    """A vote with its answers found: places in `StudyFile.answers`."""

    vote: VoteLine
    left: int
    right: int

    @property
    def place(self) -> tuple[str, int, int, str]:
        """What an assignment is to one reviewer, whichever side is left."""
        return self.vote.reviewer, min(self.left, self.right), max(self.left, self.right), self.vote.kind

    @property
    def key(self) -> str:
        return "\0".join(map(str, self.place))


def check_arms(header: Header, arms: list[ArmLine]) -> None:
    seen: dict[str, int] = {}
    for arm in arms:
        name = arm.name.casefold()
        if not arm.name.strip() or len(arm.name) > MAX_NAME or not is_printable(arm.name):
            raise wrong(arm.line, f"an arm needs a name of 1 to {MAX_NAME} printable characters.")
        if name in seen:
            raise wrong(arm.line, f"the arm {arm.name} is on line {seen[name]} already.")
        if arm.kind not in ARM_KINDS:
            raise wrong(arm.line, f"there is no kind of arm {arm.kind!r}; choose {', '.join(ARM_KINDS)}.")
        seen[name] = arm.line
    if sum(arm.compared for arm in arms) < 2:
        raise wrong(header.line, "a study compares at least two arms; add an arm line for each.")
    if len([arm for arm in arms if arm.kind == "human"]) > 1:
        raise wrong(arms[-1].line, "only one arm can be what people wrote; give the others the kind imported.")
    if header.against and header.against not in {arm.name for arm in arms if arm.compared}:
        raise wrong(header.line, f"the arm to beat, {header.against}, has no arm line.")
    if unknown := sorted({*header.tuned} - {arm.name for arm in arms}):
        raise wrong(header.line, f"there is no arm {unknown[0][:80]!r}, which should be a tuned one; add its arm line.")


def arms_of(arms: list[ArmLine], answers: Iterable[AnswerLine]) -> list[ArmLine]:
    """A file without any arm line has the arms that answer in it."""
    return (
        arms or [ArmLine(name, line=line) for name, line in {answer.arm: answer.line for answer in reversed(list(answers))}.items()][::-1]
    )


def arm_to_beat_first(header: Header, arms: list[ArmLine]) -> list[ArmLine]:
    against = header.against or next(
        (arm.name for arm in arms if arm.kind == "base" and arm.compared), next(arm.name for arm in arms if arm.compared)
    )
    return sorted(arms, key=lambda arm: (not arm.compared, arm.name != against))


def check_prompts(prompts: Iterable[PromptLine]) -> None:
    seen: dict[str, int] = {}
    for prompt in prompts:
        if prompt.id in seen:
            raise wrong(prompt.line, f"the prompt {prompt.id[:80]} is on line {seen[prompt.id]} already.")
        if not prompt.id or not (prompt.instruction.strip() or prompt.input.strip()):
            raise wrong(prompt.line, "a prompt needs an id, and a text as instruction or input.")
        seen[prompt.id] = prompt.line


class Answers:
    """Answers by prompt and arm, and by id. Raises for unknown names and for a second answer where one is expected."""

    def __init__(self, arms: set[str], prompts: set[str], answers: list[AnswerLine]) -> None:
        self._arms, self._prompts, self._answers = arms, prompts, answers
        self._live: dict[tuple[str, str], int] = {}
        self._ids: dict[str, int] = {}
        for at, answer in enumerate(answers):
            self.check_names(answer.line, answer.prompt, answer.arm)
            place = (answer.prompt, answer.arm)
            if not answer.voided:
                if place in self._live:
                    earlier = answers[self._live[place]].line
                    raise wrong(answer.line, f"{answer.arm} has an answer to prompt {answer.prompt[:80]} on line {earlier} already.")
                self._live[place] = at
            if answer.id:
                if answer.id in self._ids:
                    raise wrong(answer.line, f"the answer id {answer.id[:80]} is on line {answers[self._ids[answer.id]].line} already.")
                self._ids[answer.id] = at

    def check_names(self, line: int, prompt: str, *arms: str) -> None:
        if prompt not in self._prompts:
            raise wrong(line, f"there is no prompt {prompt[:80]!r}; add its prompt line, or mend the name.")
        for arm in arms:
            if arm not in self._arms:
                raise wrong(line, f"there is no arm {arm[:80]!r}; add its arm line, or choose {', '.join(sorted(self._arms))[:300]}.")

    def find(self, line: int, prompt: str, arm: str, answer_id: str, plain: bool = False) -> int:
        """`plain`: a plain pair may show an answer to another prompt."""
        if not answer_id:
            if (prompt, arm) not in self._live:
                raise wrong(line, f"this vote is about an answer of {arm} to prompt {prompt[:80]} that is missing; add its answer line.")
            return self._live[prompt, arm]
        found = self._ids.get(answer_id)
        if found is None or self._answers[found].arm != arm or (self._answers[found].prompt != prompt and not plain):
            raise wrong(line, f"there is no answer {answer_id[:80]!r} of {arm} to prompt {prompt[:80]}.")
        return found

    def shown(self, pair: VoteLine | SkipLine) -> tuple[int, int]:
        """Places of the left and the right answer of a pair. Raises BadInput where one is not there, or both are the same."""
        plain = pair.kind == "gold"
        left = self.find(pair.line, pair.prompt, pair.left, pair.left_answer, plain)
        right = self.find(pair.line, pair.prompt, pair.right, pair.right_answer, plain)
        if left == right:
            raise wrong(pair.line, f"{pair.left} cannot meet itself.")
        return left, right


def resolved(header: Header, votes: Iterable[VoteLine], answers: Answers) -> list[Cast]:
    """In the order cast: by time, votes without one (or of the same one) in the order of the file."""
    seen: dict[tuple[tuple[str, int, int, str], int], Cast] = {}
    sides: dict[tuple[str, int, int, str], Cast] = {}
    for vote in votes:
        answers.check_names(vote.line, vote.prompt, vote.left, vote.right)
        vote = replace(vote, choice=choice_of(vote.choice, vote.left, vote.right) or vote.choice, reviewer=vote.reviewer.strip() or UNNAMED)
        if problem := _vote_problem(header, vote):
            raise wrong(vote.line, problem)
        cast = Cast(vote, *answers.shown(vote))
        earlier = seen.setdefault((cast.place, vote.revision), cast)
        if earlier is not cast:
            raise wrong(
                vote.line,
                f"{vote.reviewer} has a vote on this pair on line {earlier.vote.line} already; "
                "keep one, or give a later change of mind the revision 2"
                f"{', or name the reviewers' if vote.reviewer == UNNAMED else ''}.",
            )
        if sides.setdefault(cast.place, cast).left != cast.left:
            raise wrong(vote.line, f"the sides differ from those on line {sides[cast.place].vote.line}; a pair keeps its sides.")
    found = list(seen.values())
    if len({cast.vote.at is None for cast in found}) > 1:
        without = next(cast.vote.line for cast in found if cast.vote.at is None)
        raise wrong(without, "this vote has no time (at), while others have one; give all of them a time, or none.")
    return sorted(found, key=lambda cast: cast.vote.at or 0.0)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A skip with its answers found: places in `StudyFile.answers`."""

    skip: SkipLine
    left: int
    right: int

    @property
    def place(self) -> tuple[str, int, int, str]:
        return self.skip.reviewer, min(self.left, self.right), max(self.left, self.right), self.skip.kind


def skipped(lines: Iterable[SkipLine], votes: Iterable[Cast], answers: Answers) -> Iterator[Skipped]:
    """Whoever skipped a pair gave no vote on it, and skipped it once."""
    seen = {cast.place: cast.vote.line for cast in votes}
    for line in lines:
        answers.check_names(line.line, line.prompt, line.left, line.right)
        line = replace(line, reviewer=line.reviewer.strip() or UNNAMED)
        if problem := _skip_problem(line):
            raise wrong(line.line, problem)
        found = Skipped(line, *answers.shown(line))
        if found.place in seen:
            raise wrong(line.line, f"{line.reviewer} has a vote on this pair, or skipped it, on line {seen[found.place]}; keep one.")
        seen[found.place] = line.line
        yield found


def _skip_problem(line: SkipLine) -> str:
    checks = [
        (line.left == line.right and line.kind != "gold", f"{line.left} cannot meet itself."),
        (line.kind not in VOTE_KINDS, f"there is no kind of vote {line.kind[:40]!r}; choose {', '.join(VOTE_KINDS)}."),
        (line.at is not None and not 0 <= line.at <= LATEST, f"at is {line.at}: times are UTC seconds since 1970."),
        (not line.reason.strip(), "a skip needs its reason."),
    ]
    return next((words for holds, words in checks if holds), "")


def _vote_problem(header: Header, vote: VoteLine) -> str:
    unknown = sorted({*vote.criteria} - {*header.criteria}) + sorted({*map(bare_reason, vote.reasons)} - {*header.reasons})
    checks = [
        (vote.left == vote.right and vote.kind != "gold", f"{vote.left} cannot meet itself."),
        (vote.choice not in CHOICES, f"the choice is {vote.choice[:40]!r}: choose {', '.join(CHOICES)}."),
        (vote.kind not in VOTE_KINDS, f"there is no kind of vote {vote.kind[:40]!r}; choose {', '.join(VOTE_KINDS)}."),
        (not 1 <= vote.revision <= 10_000, f"the revision is {vote.revision}: count from 1."),
        (not 0 <= vote.seconds <= LATEST, f"seconds is {vote.seconds}: it cannot be negative, nor longer than a life."),
        (vote.at is not None and not 0 <= vote.at <= LATEST, f"at is {vote.at}: times are UTC seconds since 1970."),
        (bool(unknown), f"the study line names no criteria or reasons {', '.join(unknown)[:200]}; add them there."),
        (
            not all(map(_is_mark, vote.criteria.values())),
            "a criterion's mark must be left, right or same, another word, a number, or points for left and right.",
        ),
        (vote.guess not in ("", *GUESSES), f"the guess is {vote.guess[:40]!r}: choose {', '.join(GUESSES)}."),
    ]
    return next((words for holds, words in checks if holds), "")


def _is_mark(mark: object) -> bool:
    if isinstance(mark, dict):
        return mark.keys() == {"left", "right"} and all(isinstance(points, int | float) for points in mark.values())
    return isinstance(mark, str | int | float)


def with_words_of(header: Header, votes: Sequence[VoteLine]) -> Header:
    """A study that names no criteria or no reasons has those that its votes use."""
    criteria = dict.fromkeys(name for vote in votes for name in vote.criteria)
    reasons = dict.fromkeys(bare_reason(reason) for vote in votes for reason in vote.reasons)
    return replace(header, criteria=header.criteria or tuple(criteria), reasons=header.reasons or tuple(reasons))


def check_decisions(decisions: Iterable[DecisionLine], reviewers: Iterable[str]) -> None:
    known = set(reviewers)
    for line in decisions:
        if line.reviewer not in known:
            raise wrong(line.line, f"there is no reviewer {line.reviewer[:80]!r} with a vote in this study.")


def adjudicated(lines: Iterable[AdjudicationLine], answers: Answers) -> Iterable[tuple[AdjudicationLine, int, int]]:
    """Each with its two answers found."""
    for line in lines:
        answers.check_names(line.line, line.prompt, line.first, line.second)
        winner = line.winner if line.winner in (line.first, line.second) else choice_of(line.winner, "", "")
        if winner not in (line.first, line.second, "tie", "both_bad") or line.first == line.second:
            raise wrong(line.line, f"the winner is {line.winner[:40]!r}: name one of two different arms, tie or both_bad.")
        places = (answers.find(line.line, line.prompt, line.first, line.first_answer),
                  answers.find(line.line, line.prompt, line.second, line.second_answer))  # fmt: skip
        yield replace(line, winner=winner), *places


def check_reviewers(header: Header, reviewers: Iterable[str], votes: Iterable[Cast], skips: Iterable[Skipped]) -> None:
    lines = {found.skip.reviewer: found.skip.line for found in skips}
    lines |= {cast.vote.reviewer: cast.vote.line for cast in reversed(list(votes))}
    seen: set[str] = set()
    for name in reviewers:
        line = lines.get(name, header.line)
        if not name.strip() or len(name) > MAX_NAME or not is_printable(name):
            raise wrong(line, f"a reviewer needs a name of 1 to {MAX_NAME} printable characters.")
        if name.casefold() in seen:
            raise wrong(line, f"the reviewer {name} is there in another spelling; use one.")
        seen.add(name.casefold())


def identical_pairs(answers: Sequence[AnswerLine], shown: Sequence[str], arms: set[str], prompts: set[str]) -> Iterable[tuple[int, int]]:
    """Places of live answers of these arms to one of these prompts that read the same."""
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for at, answer in enumerate(answers):
        if not answer.voided and answer.arm in arms and answer.prompt in prompts:
            by_prompt[answer.prompt].append(at)
    for places in by_prompt.values():
        yield from ((one, other) for one, other in combinations(places, 2) if shown[one] == shown[other])


def overlap(votes: Iterable[Cast]) -> int:
    """The most reviewers that any pair had."""
    people: dict[tuple[int, int], set[str]] = defaultdict(set)
    for cast in votes:
        if cast.vote.kind == "real":
            people[cast.place[1:3]].add(cast.vote.reviewer)
    return min(max(map(len, people.values()), default=1), 100)


def check_header(header: Header) -> None:
    if header.scale not in SCALES:
        raise wrong(header.line, f"scale is {header.scale[:40]!r}: choose {' or '.join(SCALES)}.")
    if header.aside not in (DECIDED, DOUBTED):
        raise wrong(header.line, f"aside is {header.aside[:40]!r}: choose {DECIDED} or {DOUBTED}.")
    for name in ("created_at", "opened_at", "closed_at"):
        time = getattr(header, name)
        if time is not None and not 0 <= time <= LATEST:
            raise wrong(header.line, f"{name} is {time}: times are UTC seconds since 1970.")


def rule_of(header: Header) -> Rule:
    try:
        return complete_rule(header.rule, MOST_VOTES)
    except (UserError, TypeError) as error:
        raise wrong(header.line, str(error)) from error
