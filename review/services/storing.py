"""A checked study file into the database: one transaction, opened by whoever calls. Names that are taken here get the study's name behind
them, so that nothing of another house is taken for something of this one. Must not know screens or models.
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from ft import curate
from ft.errors import BadInput, Conflict
from ft.specs import digest
from review.services.declaring import MAX_NAME, is_printable
from review.services.study_files import StudyFile
from review.services.study_lines import ArmLine
from review.services.study_reading import AGAINST, ASIDE, TUNED
from storage.queries import exchange as rows
from storage.queries import studies as declared
from storage.queries.people import audit
from storage.tables import (
    Adjudication,
    Answer,
    Arm,
    Assignment,
    Correction,
    Guess,
    Prompt,
    PromptSet,
    ReviewerDecision,
    Skip,
    Study,
    StudyArm,
    StudyReviewer,
    User,
    Vote,
)

OURS = {"base", "human"}  # names that this house gives to its own arms, sooner or later


@dataclass(frozen=True, slots=True)
class Stored:
    study: str
    set_name: str
    renamed: dict[str, str]


class Storing:
    """One import. `name` is the study's name here, `by` the acting user's id."""

    def __init__(self, session: Session, study: StudyFile, name: str, source: str, by: int | None) -> None:
        self._session, self._file, self._name, self._source, self._by = session, study, name, source, by
        self._now = time.time()
        self._renamed: dict[str, str] = {}

    def all(self) -> Stored:
        """Store everything. Raises Conflict where the study is there already, BadInput for a name that cannot be used."""
        if not 0 < len(self._name) <= MAX_NAME or not is_printable(self._name):
            raise BadInput(f"A study needs a name of 1 to {MAX_NAME} printable characters. Give it one.")
        if declared.named(self._session, self._name):
            raise Conflict(f"A study named “{self._name}” exists already. Bring it in under another name (on the command line: --name).")
        arms = self._arms()
        set_name, prompts = self._prompts()
        answers = self._answers(arms, prompts)
        reviewers = self._reviewers()
        study_id = self._study(arms, set_name, reviewers, prompts)
        self._votes(study_id, reviewers, prompts, answers)
        self._skips(study_id, reviewers, prompts, answers)
        self._decisions(study_id, reviewers, prompts, answers)
        texts = self._file.answers
        pairs = ((prompts[texts[one].prompt], answers[one], answers[other]) for one, other in self._file.identical)
        rows.store_identical(self._session, study_id, pairs, self._now)
        audit(self._session, self._now, self._by, "study.imported", study=self._name, source=self._source, votes=len(self._file.votes))
        return Stored(self._name, set_name, self._renamed)

    def _arms(self) -> dict[str, Arm]:
        """By the name in the file."""
        taken = {*rows.arms_by_name(self._session), *rows.adapter_names(self._session), *OURS}
        found: dict[str, Arm] = {}
        for line in self._file.arms:
            if line.kind == "human":
                found[line.name] = self._human(line.name)
                continue
            arm = rows.arm_with_hash(self._session, self._identity(line))
            if arm is None:
                name = self._free(line.name, taken)
                taken.add(name.casefold())
                arm = Arm(
                    name=name, kind="imported", system_prompt=line.system_prompt, decode=line.decode, settings_hash=self._identity(line)
                )
                self._session.add(arm)
                self._session.flush()
            elif arm.name != line.name:
                self._renamed[line.name] = arm.name
            found[line.name] = arm
        return found

    def _identity(self, line: ArmLine) -> str:
        """Imported arms of one name and the same settings are one arm. Another house's base or adapter is never one of ours."""
        told = ["imported", line.name, line.kind, line.title, line.system_prompt, line.decode]
        return digest(told if line.kind == "imported" else [*told, self._name])

    def _human(self, name: str) -> Arm:
        arm = rows.human_arm(self._session)
        if arm is None:
            arm = Arm(name="human", kind="human", settings_hash=digest(["human"]))
            self._session.add(arm)
            self._session.flush()
        if arm.name != name:
            self._renamed[name] = arm.name
        return arm

    def _free(self, name: str, taken: set[str]) -> str:
        """The name itself, or with the study's name behind it where it is taken."""
        free, count = name, 1
        while free.casefold() in taken:
            free = f"{name} ({self._name}{f' {count}' if count > 1 else ''})"
            count += 1
        if free != name:
            self._renamed[name] = free
        return free

    def _prompts(self) -> tuple[str, dict[str, int]]:
        """(the new set's name, prompt id by the id in the file). A text that is there twice is two prompts, as where it comes from."""
        wanted, count = self._file.header.set.strip() or self._name, 1
        set_name = wanted
        while declared.prompt_set(self._session, set_name):
            set_name = f"{wanted} ({self._name}{f' {count}' if count > 1 else ''})"
            count += 1
        if set_name != wanted:
            self._renamed[wanted] = set_name
        made = PromptSet(name=set_name, source=self._source, created_by=self._by, created_at=self._now)
        self._session.add(made)
        self._session.flush()
        ids = rows.store_numbered(self._session, Prompt, self._prompt_rows(made.id))
        return set_name, {prompt.id: prompt_id for prompt, prompt_id in zip(self._file.prompts, ids, strict=True)}

    def _prompt_rows(self, set_id: int | None) -> Iterator[dict[str, Any]]:
        seen: dict[str, int] = {}
        for prompt in self._file.prompts:
            content = curate.content_hash(prompt.instruction, prompt.input + earlier(prompt.history))
            seen[content] = seen.get(content, 0) + 1
            yield {
                "set_id": set_id,
                "split": self._file.header.split,
                "instruction": prompt.instruction,
                "input": prompt.input,
                "reference": prompt.reference,
                "category": prompt.category,
                "tags": list(prompt.tags),
                "history": list(prompt.history),
                "cluster": content,
                "content_hash": content if seen[content] == 1 else f"{content}:{seen[content]}",
                "line": prompt.line,
            }

    def _answers(self, arms: dict[str, Arm], prompts: dict[str, int]) -> list[int]:
        return rows.store_numbered(
            self._session,
            Answer,
            (
                {
                    "arm_id": arms[answer.arm].id,
                    "prompt_id": prompts[answer.prompt],
                    "text": answer.text,
                    "created_at": self._now,
                    "voided_at": self._now if answer.voided else None,
                    "void_reason": answer.voided,
                }
                for answer in self._file.answers
            ),
        )

    def _reviewers(self) -> dict[str, int]:
        """Users that can never sign in: disabled, without a password. A name that is taken stays with whoever has it."""
        taken = rows.user_names(self._session)
        names = {}
        for name in self._file.reviewers:
            names[name] = self._free(name, taken)
            taken.add(names[name].casefold())
        usual = {"role": "reviewer", "password_hash": "", "created_at": self._now, "disabled_at": self._now}
        ids = rows.store_numbered(self._session, User, (usual | {"name": name} for name in names.values()))
        return dict(zip(names, ids, strict=True))

    def _study(self, arms: dict[str, Arm], set_name: str, reviewers: dict[str, int], prompts: dict[str, int]) -> int:
        header, prompt_set = self._file.header, declared.prompt_set(self._session, set_name)
        assert prompt_set is not None, "stored above"
        opened = header.opened_at or header.created_at or self._now
        study = Study(
            name=self._name, set_id=prompt_set.id or 0, split=header.split, votes_per_pair=self._file.votes_per_pair, reveal=header.reveal,
            criteria=list(header.criteria), reasons=list(header.reasons), created_by=self._by, created_at=header.created_at or self._now,
            tags=list(header.tags), scale=header.scale, checks=header.checks,
            rule=self._file.rule.to_dict() | {AGAINST: arms[self._file.against].name, TUNED: [arms[arm].name for arm in header.tuned],
                                              ASIDE: header.aside},
            last_prompt_id=max((prompts[prompt.id] for prompt in self._file.prompts if prompt.compared), default=None),
        )  # fmt: skip
        self._session.add(study)
        self._session.flush()
        self._session.add_all(StudyArm(study_id=study.id or 0, arm_id=arms[name].id or 0) for name in self._file.compared)
        self._session.add_all(StudyReviewer(study_id=study.id or 0, user_id=reviewers[name]) for name in header.invited)
        self._session.flush()
        study.state, study.opened_at, study.closed_at = "closed", opened, header.closed_at or self._now
        self._session.flush()
        return study.id or 0

    def _votes(self, study_id: int, reviewers: dict[str, int], prompts: dict[str, int], answers: list[int]) -> None:
        """Ids are random, but in the order cast: it decides between votes of the same moment."""
        places = dict.fromkeys(cast.place for cast in self._file.votes)
        ids = dict(zip(places, sorted(secrets.token_hex(18) for _ in places), strict=True))
        given: dict[str, dict[str, Any]] = {}
        votes, corrections, guesses = [], [], {}
        for cast in self._file.votes:
            vote, assignment = cast.vote, ids[cast.place]
            at = self._now if vote.at is None else vote.at
            left, right = answers[cast.left], answers[cast.right]
            given.setdefault(
                assignment,
                {
                    "id": assignment, "study_id": study_id, "reviewer_id": reviewers[vote.reviewer], "prompt_id": prompts[vote.prompt],
                    "left_answer_id": left, "right_answer_id": right, "pair_key": f"{min(left, right)}-{max(left, right)}",
                    "kind": vote.kind, "marked": self._file.marked(cast), "served_at": at - vote.seconds,
                },
            )  # fmt: skip
            votes.append(
                {
                    "id": secrets.token_hex(18), "assignment_id": assignment, "reviewer_id": reviewers[vote.reviewer],
                    "revision": vote.revision, "choice": vote.choice, "criteria": vote.criteria, "reasons": list(vote.reasons),
                    "comment": vote.comment, "request_key": f"import:{assignment}:{vote.revision}", "seconds": vote.seconds,
                    "created_at": at,
                }
            )  # fmt: skip
            if vote.guess:
                guesses[assignment] = {"assignment_id": assignment, "reviewer_id": reviewers[vote.reviewer], "choice": vote.guess,
                                       "created_at": at}  # fmt: skip
            if vote.correction:
                key = f"import:{assignment}:{vote.revision}"
                corrections.append({"id": secrets.token_hex(18), "assignment_id": assignment, "reviewer_id": reviewers[vote.reviewer],
                                    "text": vote.correction, "request_key": key, "created_at": at})  # fmt: skip
        stored = ((Assignment, list(given.values())), (Vote, votes), (Correction, corrections), (Guess, list(guesses.values())))
        for table, found in stored:
            rows.store(self._session, table, found)

    def _skips(self, study_id: int, reviewers: dict[str, int], prompts: dict[str, int], answers: list[int]) -> None:
        given, skips = [], []
        for found in self._file.skips:
            skip, assignment = found.skip, secrets.token_hex(18)
            at = self._now if skip.at is None else skip.at
            left, right, reviewer = answers[found.left], answers[found.right], reviewers[skip.reviewer]
            given.append(
                {
                    "id": assignment, "study_id": study_id, "reviewer_id": reviewer, "prompt_id": prompts[skip.prompt],
                    "left_answer_id": left, "right_answer_id": right, "pair_key": f"{min(left, right)}-{max(left, right)}",
                    "kind": skip.kind, "marked": "", "served_at": at,
                }
            )  # fmt: skip
            skips.append({"assignment_id": assignment, "reviewer_id": reviewer, "reason": skip.reason,
                          "request_key": f"import:{assignment}", "created_at": at})  # fmt: skip
        rows.store(self._session, Assignment, given)
        rows.store(self._session, Skip, skips)

    def _decisions(self, study_id: int, reviewers: dict[str, int], prompts: dict[str, int], answers: list[int]) -> None:
        for line in self._file.decisions:
            at = self._now if line.at is None else line.at
            self._session.add(ReviewerDecision(study_id=study_id, reviewer_id=reviewers[line.reviewer], counted=line.counted,
                                               reason=line.reason, created_at=at))  # fmt: skip
            self._session.flush()
        for told, first, second in self._file.adjudications:
            one, other = sorted((answers[first], answers[second]))
            choice = told.winner
            if choice in (told.first, told.second):
                choice = "first" if (answers[first] == one) == (choice == told.first) else "second"
            at = self._now if told.at is None else told.at
            self._session.add(Adjudication(study_id=study_id, prompt_id=prompts[told.prompt], first_answer_id=one, second_answer_id=other,
                                           choice=choice, reason=told.reason, created_at=at))  # fmt: skip
            self._session.flush()


def earlier(history: Iterable[Mapping[str, str]]) -> str:
    """Earlier turns as one text: what tells a question in one conversation from the same question in another."""
    return "".join(f"\n{turn['role']}: {turn['content']}" for turn in history)
