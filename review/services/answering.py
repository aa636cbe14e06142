"""One answering job from claim to end: what is missing, in mixed batches, each batch stored in one transaction.

Must not know torch, screens or how a job is chosen.
"""

import time
from collections.abc import Callable, Sequence

from ft.engine import BASE, Done, Engine, Failed, Identity, Request
from ft.errors import UserError
from ft.specs import DecodeSpec
from ft.template import messages_for
from review.services import jobs
from review.services.adapters import Adapters
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Answer, Arm, Prompt

Progress = Callable[[int, int], None]
BATCH = 8  # rows: small, so that people who wait are never far behind
LOOK_SECONDS = 0.5  # how often a batch looks whether it is to stop
TRIES = 2  # an adapter may be unloaded between being brought and being used


class Answering:
    def __init__(self, db: Database, engine: Engine, adapters: Adapters) -> None:
        self._db, self._engine, self._adapters = db, engine, adapters

    def run(self, job_id: int, should_stop: Callable[[], bool], progress: Progress) -> None:
        """Do a claimed job. Ends it as finished or failed; puts it back where `should_stop` says so; a cancelled one stays cancelled."""

        def told_to_stop() -> bool:
            return should_stop() or jobs.one(self._db, job_id).status == "cancelled"

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
        self._engine.wait_ready()
        identity = self._adapters.check_base()
        names = {arm.id: self._adapters.bring(arm.adapter_id) if arm.adapter_id else BASE for _, arm in asked}
        by_id = {f"{prompt.id}:{arm.id}": (prompt, arm) for prompt, arm in asked}
        requests = [
            Request(
                key, messages_for(prompt.instruction, prompt.input, arm.system_prompt), names[arm.id],
                DecodeSpec.from_dict(arm.decode), background=True,
            )
            for key, (prompt, arm) in by_id.items()
        ]  # fmt: skip
        answers, failures = [], []
        stream, look = self._engine.generate(requests), time.monotonic() + LOOK_SECONDS
        for event in stream:
            if isinstance(event, Done):
                answers.append(_answer(*by_id.pop(event.request_id), event, identity))
            elif isinstance(event, Failed):
                failures.append((*by_id.pop(event.request_id), event.error))
            if time.monotonic() > look:
                look = time.monotonic() + LOOK_SECONDS
                if should_stop():
                    stream.close()
        return answers, failures + [(*left, "It was stopped.") for left in by_id.values()]

    def _store(self, answers: Sequence[Answer]) -> None:
        with writing(self._db) as session:
            for answer in answers:
                if queries.live_answer(session, answer.arm_id, answer.prompt_id) is None:
                    session.add(answer)


def _reference(prompt: Prompt, arm: Arm) -> Answer:
    assert prompt.id is not None
    assert arm.id is not None
    return Answer(arm_id=arm.id, prompt_id=prompt.id, text=prompt.reference.strip())


def _answer(prompt: Prompt, arm: Arm, event: Done, identity: Identity) -> Answer:
    assert prompt.id is not None
    assert arm.id is not None
    decode = DecodeSpec.from_dict(arm.decode)
    return Answer(
        arm_id=arm.id, prompt_id=prompt.id, text=event.text.strip(), prompt_tokens=event.prompt_tokens, new_tokens=event.new_tokens,
        finish=event.finish, seconds=event.seconds, base_hash=f"{identity.base_hash}:{identity.dtype}:{identity.quantisation}",
        adapter_hash="" if event.adapter == BASE else event.adapter, template_hash=identity.template_hash, decode_hash=decode.hash,
        seed=decode.seed,
    )  # fmt: skip
