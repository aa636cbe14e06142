"""One answering job from claim to end: what is missing, in mixed batches, each batch stored in one transaction.

Must not know torch, screens or how a job is chosen.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ft.engine import BASE, Done, Engine, Failed, Identity, Request
from ft.errors import BadInput, NotFound, Refused, UserError
from ft.specs import DecodeSpec
from ft.template import messages_for
from ft.versions import library_versions
from review.services import jobs
from review.services.adapters import Adapters
from review.services.faults import reading, writing
from review.services.remotes import Remotes, remote_answer
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Answer, Arm, Prompt

Progress = Callable[[int, int], None]
BATCH = 8  # rows: small, so that people who wait are never far behind
LOOK_SECONDS = 0.5  # how often a batch looks whether it is to stop
SERVER_SECONDS = 30.0  # for a remote arm's server to answer at all
TRIES = 2  # an adapter may be unloaded between being brought and being used


class Answering:
    def __init__(self, db: Database, engine: Engine, adapters: Adapters, remotes: Remotes) -> None:
        self._db, self._engine, self._adapters, self._remotes = db, engine, adapters, remotes

    def run(self, job_id: int, should_stop: Callable[[], bool], progress: Progress) -> None:
        """Do a claimed job. Ends it as finished or failed; puts it back where `should_stop` says so; cancelled or paused it stays so."""

        def told_to_stop() -> bool:
            return should_stop() or not jobs.goes_on(self._db, job_id)

        try:
            message = self._answer_all(job_id, told_to_stop, progress)
        except UserError as error:
            if told_to_stop():
                jobs.end(self._db, job_id, "queued")  # the engine was stopped with the app
            else:
                jobs.end(self._db, job_id, "failed", str(error))
        except BaseException:
            jobs.end(self._db, job_id, "failed", "Answering stopped on an unexpected error. The app's log has the details.")
            raise
        else:
            if message is None:
                jobs.end(self._db, job_id, "queued")
            else:
                jobs.end(self._db, job_id, "failed" if message else "finished", message)

    def _answer_all(self, job_id: int, should_stop: Callable[[], bool], progress: Progress) -> str | None:
        """What went wrong, "" when nothing did, None when it was told to stop."""
        job = jobs.one(self._db, job_id)
        arms, missing = self._plan(job.spec)
        total = max(job.total, len(missing))
        before, failed, first = total - len(missing), 0, ""
        jobs.change(self._db, job_id, total=total, done=before)
        for at in range(0, len(missing), BATCH):
            if should_stop():
                return None
            errors = self._batch(missing[at : at + BATCH], arms, should_stop)
            if errors and should_stop():
                return None
            failed += len(errors)
            first = first or next(iter(errors), "")
            done = before + min(at + BATCH, len(missing))
            jobs.change(self._db, job_id, done=done - failed)
            progress(done, total)
            if len(errors) == len(missing[at : at + BATCH]) and failed > BATCH:
                break  # nothing gets through: the rest would fail too
        return f"{failed} of {total} answers are missing: {first}" if failed else ""

    def _plan(self, spec: dict[str, object]) -> tuple[dict[int, Arm], list[tuple[int, int]]]:
        names = spec["arms"]
        assert isinstance(names, list)
        with reading(self._db) as session:
            arms = {arm.id: arm for arm, _ in queries.arms(session) if arm.name in names and arm.id is not None}
            found = queries.set_named(session, str(spec["set"]))
            missing = queries.unanswered(session, found.id or 0, str(spec["split"]), list(arms)) if found else []
        return arms, missing

    def _batch(self, pairs: Sequence[tuple[int, int]], arms: dict[int, Arm], should_stop: Callable[[], bool]) -> list[str]:
        """Answer and store these (prompt, arm) pairs. Returns the errors, one for each that has no answer."""
        with reading(self._db) as session:
            prompts = queries.prompts(session, [prompt for prompt, _ in pairs])
        written = [(prompts[p], arms[a]) for p, a in pairs if arms[a].kind == "human"]
        ready = [_reference(prompt, arm) for prompt, arm in written]
        asked = [(prompts[p], arms[a]) for p, a in pairs if arms[a].kind != "human"]
        errors: list[str] = []
        for _ in range(TRIES):
            if not asked:
                break
            answers, failures = self._ask(asked, should_stop)
            ready += answers
            asked = [(prompt, arm) for prompt, arm, _ in failures]
            errors = [error for _, _, error in failures]
            if errors and should_stop():
                break
        self._store(ready)
        return errors

    def _ask(
        self, asked: Sequence[tuple[Prompt, Arm]], should_stop: Callable[[], bool]
    ) -> tuple[list[Answer], list[tuple[Prompt, Arm, str]]]:
        """Our own arms in one batch, then those of each server."""
        groups: dict[int | None, list[tuple[Prompt, Arm]]] = {}
        for prompt, arm in asked:
            groups.setdefault(arm.id if arm.kind == "remote" else None, []).append((prompt, arm))
        answers, failures = [], []
        for elsewhere, group in groups.items():
            made, failed = (self._ask_server if elsewhere else self._ask_ours)(group, should_stop)
            answers += made
            failures += failed
        return answers, failures

    def _ask_server(
        self, asked: Sequence[tuple[Prompt, Arm]], should_stop: Callable[[], bool]
    ) -> tuple[list[Answer], list[tuple[Prompt, Arm, str]]]:
        """One remote arm. A server that is away fails its own rows and nobody else's."""
        arm = asked[0][1]
        by_id = {f"{prompt.id}:{arm.id}": (prompt, arm) for prompt, arm in asked}
        try:
            engine = self._remotes.engine(arm)
            engine.wait_ready(SERVER_SECONDS)
        except UserError as error:
            return [], [(prompt, arm, f"{arm.name}: {error}") for prompt, arm in asked]
        requests = [request_for(key, prompt, arm, BASE, background=True) for key, (prompt, arm) in by_id.items()]
        return self._gather(engine, requests, by_id, remote_answer, should_stop)

    def _ask_ours(
        self, asked: Sequence[tuple[Prompt, Arm]], should_stop: Callable[[], bool]
    ) -> tuple[list[Answer], list[tuple[Prompt, Arm, str]]]:
        self._engine.wait_ready()
        identity = self._adapters.check_base()
        names, away = self._bring({arm.id: arm for _, arm in asked}.values())
        by_id = {f"{prompt.id}:{arm.id}": (prompt, arm) for prompt, arm in asked if arm.id in names}
        requests = [request_for(key, prompt, arm, names[arm.id], background=True) for key, (prompt, arm) in by_id.items()]
        gone = [(prompt, arm, away[arm.id]) for prompt, arm in asked if arm.id in away]
        answers, failures = self._gather(self._engine, requests, by_id, partial(_answer, identity=identity), should_stop)
        return answers, gone + failures

    @staticmethod
    def _gather(
        engine: Engine, requests: Sequence[Request], by_id: dict[str, tuple[Prompt, Arm]], made: Callable[[Prompt, Arm, Done], Answer],
        should_stop: Callable[[], bool],
    ) -> tuple[list[Answer], list[tuple[Prompt, Arm, str]]]:  # fmt: skip
        answers, failures = [], []
        stream, look = engine.generate(requests), time.monotonic() + LOOK_SECONDS
        for event in stream:
            if isinstance(event, Done):
                answers.append(made(*by_id.pop(event.request_id), event))
            elif isinstance(event, Failed):
                failures.append((*by_id.pop(event.request_id), event.error))
            if time.monotonic() > look:
                look = time.monotonic() + LOOK_SECONDS
                if should_stop():
                    stream.close()
        return answers, failures + [(*left, "It was stopped.") for left in by_id.values()]

    def _bring(self, arms: Iterable[Arm]) -> tuple[dict[int | None, str], dict[int | None, str]]:
        """Names in the engine by arm, and why the others cannot answer: one that is gone does not keep the rest from answering."""
        names: dict[int | None, str] = {}
        away: dict[int | None, str] = {}
        for arm in arms:
            try:
                names[arm.id] = self._adapters.bring(arm.adapter_id) if arm.adapter_id else BASE
            except (NotFound, Refused, BadInput) as error:
                away[arm.id] = f"{arm.name}: {error}"
        return names, away

    def _store(self, answers: Sequence[Answer]) -> None:
        with writing(self._db) as session:
            for answer in answers:
                if queries.live_answer(session, answer.arm_id, answer.prompt_id) is None:
                    session.add(answer)


def request_for(key: str, prompt: Prompt, arm: Arm, adapter: str, background: bool = False) -> Request:
    """What is asked for an arm's answer to a prompt, each time the same."""
    messages = messages_for(prompt.instruction, prompt.input, arm.system_prompt, prompt.history)
    return Request(key, messages, adapter, DecodeSpec.from_dict(arm.decode), background)


def _reference(prompt: Prompt, arm: Arm) -> Answer:
    assert prompt.id is not None
    assert arm.id is not None
    return Answer(arm_id=arm.id, prompt_id=prompt.id, text=prompt.reference.strip())


def engine_facts(identity: Identity) -> dict[str, Any]:
    """What computed an answer, beside base, adapter, template and decoding."""
    return {
        "base": identity.base, "device": identity.device, "dtype": identity.dtype, "quantisation": identity.quantisation,
        "versions": library_versions(),
    }  # fmt: skip


def _answer(prompt: Prompt, arm: Arm, event: Done, identity: Identity) -> Answer:
    assert prompt.id is not None
    assert arm.id is not None
    decode = DecodeSpec.from_dict(arm.decode)
    return Answer(
        arm_id=arm.id, prompt_id=prompt.id, text=event.text.strip(), prompt_tokens=event.prompt_tokens, new_tokens=event.new_tokens,
        finish=event.finish, seconds=event.seconds, base_hash=f"{identity.base_hash}:{identity.dtype}:{identity.quantisation}",
        adapter_hash="" if event.adapter == BASE else event.adapter, template_hash=identity.template_hash, decode_hash=decode.hash,
        seed=decode.seed, engine=engine_facts(identity),
    )  # fmt: skip
