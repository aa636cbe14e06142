"""One answering job from claim to end: what is missing is handed to the engine many at a time, and each answer is stored as it comes.

Must not know torch, screens or how a job is chosen.
"""

import time
from collections import Counter
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
from review.services.faults import reading
from review.services.remotes import Remotes, remote_answer
from review.services.unstored import Unstored
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Answer, Arm, Prompt

Progress = Callable[[int, int], None]
Pair = tuple[Prompt, Arm]
AT_ONCE = 256  # handed to the engine together: it fills its own batches, and each such call ends with a few rows alone
ARMS = 8  # at most among them, so that their adapters fit the memory set aside for adapters
AT_ONCE_AWAY = 8  # of a server, whose rows are told in step
HOPELESS = 8  # answers of one arm that all failed: the rest would too
LOOK_SECONDS = 0.25  # how often it looks whether it is to stop
SERVER_SECONDS = 30.0  # for a remote arm's server to answer at all
STOPPED = "It was stopped."
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
        jobs.change(self._db, job_id, total=total, done=total - len(missing))
        unstored = Unstored(self._db, job_id, total - len(missing), lambda done: progress(done, total))
        failed, words, hopeless = 0, "", set[int]()
        for start in range(0, len(missing), AT_ONCE):
            portion = missing[start : start + AT_ONCE]
            if should_stop():
                return None
            asked = [pair for pair in portion if pair[1] not in hopeless]
            errors = self._portion(asked, arms, unstored, should_stop)
            if errors and should_stop():
                return None
            failed += len(portion) - len(asked) + len(errors)
            words = words or next((error for _, _, error in errors), "")
            hopeless |= _hopeless(asked, errors)
        return f"{failed} of {total} answers are missing: {words}" if failed else ""

    def _plan(self, spec: dict[str, object]) -> tuple[dict[int, Arm], list[tuple[int, int]]]:
        """The arms, and what they lack as (prompt, arm): a few arms at a time, prompts of like length together, the longest first."""
        names = spec["arms"]
        assert isinstance(names, list)
        with reading(self._db) as session:
            arms = {arm.id: arm for arm, _ in queries.arms(session) if arm.name in names and arm.id is not None}
            found = queries.set_named(session, str(spec["set"]))
            missing = queries.unanswered(session, found.id or 0, str(spec["split"]), list(arms)) if found else []
            sizes = queries.prompt_sizes(session, found.id or 0, str(spec["split"])) if found else {}
        places = {arm: place // ARMS for place, arm in enumerate(arms)}
        return arms, sorted(missing, key=lambda pair: (places[pair[1]], -sizes.get(pair[0], 0), pair))

    def _portion(
        self, pairs: Sequence[tuple[int, int]], arms: dict[int, Arm], unstored: Unstored, should_stop: Callable[[], bool]
    ) -> list[tuple[int, int, str]]:
        """Answer and store these (prompt, arm) pairs. Returns those that have no answer, with why."""
        with reading(self._db) as session:
            prompts = queries.prompts(session, list({prompt for prompt, _ in pairs}))
        for prompt, arm in ((prompts[p], arms[a]) for p, a in pairs if arms[a].kind == "human"):
            unstored.add(_reference(prompt, arm))
        unstored.store()
        asked = [(prompts[p], arms[a]) for p, a in pairs if arms[a].kind != "human"]
        failures: list[tuple[Prompt, Arm, str]] = []
        for _ in range(TRIES):
            if not asked:
                break
            failures = self._ask(asked, unstored, should_stop)
            asked = [(prompt, arm) for prompt, arm, _ in failures]
            if failures and should_stop():
                break
        return [(prompt.id or 0, arm.id or 0, error) for prompt, arm, error in failures]

    def _ask(self, asked: Sequence[Pair], unstored: Unstored, should_stop: Callable[[], bool]) -> list[tuple[Prompt, Arm, str]]:
        """Our own arms together, then those of each server. Returns what has no answer."""
        groups: dict[int | None, list[Pair]] = {}
        for prompt, arm in asked:
            groups.setdefault(arm.id if arm.kind == "remote" else None, []).append((prompt, arm))
        failures = []
        for elsewhere, group in groups.items():
            failures += (self._ask_server if elsewhere else self._ask_ours)(group, unstored, should_stop)
        return failures

    def _ask_server(self, asked: Sequence[Pair], unstored: Unstored, should_stop: Callable[[], bool]) -> list[tuple[Prompt, Arm, str]]:
        """One remote arm. A server that is away fails its own rows and nobody else's."""
        arm = asked[0][1]
        try:
            engine = self._remotes.engine(arm)
            engine.wait_ready(SERVER_SECONDS)
        except UserError as error:
            return [(prompt, arm, f"{arm.name}: {error}") for prompt, arm in asked]
        return self._in_pieces(engine, asked, {arm.id: BASE}, remote_answer, unstored, should_stop)

    def _ask_ours(self, asked: Sequence[Pair], unstored: Unstored, should_stop: Callable[[], bool]) -> list[tuple[Prompt, Arm, str]]:
        self._engine.wait_ready()
        unstored.begin()
        identity = self._adapters.check_base()
        names, away = self._bring({arm.id: arm for _, arm in asked}.values())
        here = [(prompt, arm) for prompt, arm in asked if arm.id in names]
        gone = [(prompt, arm, away[arm.id]) for prompt, arm in asked if arm.id in away]
        made = partial(_answer, identity=identity)
        gather = self._in_pieces if identity.device == "remote" else self._gather
        return gone + gather(self._engine, here, names, made, unstored, should_stop)

    def _in_pieces(
        self, engine: Engine, asked: Sequence[Pair], names: dict[int | None, str], made: Callable[[Prompt, Arm, Done], Answer],
        unstored: Unstored, should_stop: Callable[[], bool],
    ) -> list[tuple[Prompt, Arm, str]]:  # fmt: skip
        """For servers. One that answers nothing of a piece is not asked for the rest."""
        failures: list[tuple[Prompt, Arm, str]] = []
        for start in range(0, len(asked), AT_ONCE_AWAY):
            piece = asked[start : start + AT_ONCE_AWAY]
            failed = self._gather(engine, piece, names, made, unstored, should_stop)
            failures += failed
            if len(failed) == len(piece) or should_stop():
                words = failed[0][2] if failed else STOPPED
                return failures + [(prompt, arm, words) for prompt, arm in asked[start + AT_ONCE_AWAY :]]
        return failures

    @staticmethod
    def _gather(
        engine: Engine, asked: Sequence[Pair], names: dict[int | None, str], made: Callable[[Prompt, Arm, Done], Answer],
        unstored: Unstored, should_stop: Callable[[], bool],
    ) -> list[tuple[Prompt, Arm, str]]:  # fmt: skip
        waiting, failures, look = {f"{prompt.id}:{arm.id}": (prompt, arm) for prompt, arm in asked}, [], time.monotonic() + LOOK_SECONDS
        stream = engine.generate([request_for(key, *pair, names[pair[1].id], background=True) for key, pair in waiting.items()])
        for event in stream:
            if isinstance(event, Done):
                unstored.add(made(*waiting[event.request_id], event))
            elif isinstance(event, Failed):
                failures.append((*waiting.pop(event.request_id), event.error))
            if unstored.due or time.monotonic() > look:
                look = time.monotonic() + LOOK_SECONDS
                taken, goes_on = unstored.store() if unstored.due else ((), True)
                for key in taken:
                    del waiting[key]
                if not goes_on or should_stop():
                    stream.close()
        for key in unstored.store()[0]:
            del waiting[key]
        return failures + [(*left, STOPPED) for left in waiting.values()]

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


def _hopeless(asked: Sequence[tuple[int, int]], errors: Sequence[tuple[int, int, str]]) -> set[int]:
    """Arms of which nothing got through."""
    tried, failed = Counter(arm for _, arm in asked), Counter(arm for _, arm, _ in errors)
    return {arm for arm, count in failed.items() if count == tried[arm] >= HOPELESS}


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
        "kernel": identity.kernel, "versions": library_versions(),
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
