"""Arms and their answers: made ahead of time in mixed batches and stored with everything needed to make them again; and chat.

A job can be cut off anywhere: what is stored is never asked again. Must not know torch, screens or how votes are counted.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlmodel import Session

from ft.engine import BASE, Engine, Message
from ft.errors import BadInput, Conflict, NotFound, Unavailable
from ft.specs import DecodeSpec, TrainSpec, digest
from ft.template import DEFAULT_SYSTEM
from review.services import jobs
from review.services.adapter_views import of_earlier
from review.services.adapters import Adapters
from review.services.answering import SERVER_SECONDS, Answering, Progress
from review.services.chat import ChatStep, Voice, chat
from review.services.faults import reading, writing
from review.services.jobs import JobView
from review.services.remotes import Remotes
from storage.database import Database
from storage.queries import arms as queries
from storage.queries.people import audit
from storage.tables import SPLITS, Adapter, Arm, Job

ARM_DECODE = DecodeSpec()
MAX_CHAT_ARMS = 4
TALKING = ("base", "adapter", "remote")  # kinds of arms that can chat


@dataclass(frozen=True, slots=True)
class ArmView:
    """An arm as shown to engineers. `adapter` is the adapter's name, "" for others; `usable` False where it gives no more answers;
    `earlier`: it is of a base before the one there is now."""

    id: int
    name: str
    kind: str
    adapter: str
    title: str
    usable: bool
    earlier: bool = False


class Answers:
    """`adapters` brings an arm's adapter into memory when it is needed."""

    def __init__(self, db: Database, engine: Engine, adapters: Adapters, remotes: Remotes | None = None) -> None:
        self._db, self._engine, self._adapters, self._remotes = db, engine, adapters, remotes or Remotes(db)

    def arms(self) -> list[ArmView]:
        """Base, human and one per adapter, made where missing; oldest first."""
        self.ensure_arms()
        with reading(self._db) as session:
            retired = queries.retired_arms(session)
            return [_view(arm, adapter, retired.get(arm.id or 0, "")) for arm, adapter in queries.arms(session)]

    def talking(self) -> list[ArmView]:
        """Those that can chat now, oldest first."""
        return [arm for arm in self.arms() if arm.usable and arm.kind in TALKING]

    def base_arm(self) -> str:
        """Name of the arm of the base there is now; those of earlier bases keep theirs."""
        return next(arm.name for arm in self.arms() if arm.kind == "base" and arm.usable)

    def ensure_arms(self) -> None:
        """Make the arms that are missing. An arm never changes once made."""
        with reading(self._db) as session:
            found, retired = queries.arms(session), queries.retired_arms(session)
            having = {adapter.id for _, adapter in found if adapter}
            lacking = [adapter for adapter in queries.adapters(session) if adapter.id not in having and adapter.status == "registered"]
        kinds = {arm.kind for arm, _ in found if arm.id not in retired}
        if lacking or not {"base", "human"} <= kinds:
            with writing(self._db) as session:
                every = queries.arms(session)
                known = [(arm, adapter) for arm, adapter in every if arm.id not in retired]
                missing = {"base", "human"} - {arm.kind for arm, _ in known}
                new = [self._new_base_arm(session, bool(retired))] if "base" in missing else []
                new += [_arm("human", "human")] if "human" in missing else []
                new += [
                    _arm(adapter.name, "adapter", adapter.id, _system_of(queries.run_spec(session, adapter.run_id)))
                    for adapter in lacking
                    if adapter.id not in {each.id for _, each in every if each}
                ]
                session.add_all(new)

    @staticmethod
    def _new_base_arm(session: Session, another: bool) -> Arm:
        """The first is called base; after a change of base the next one is named after it."""
        if not another:
            return _arm("base", "base")
        base, taken = queries.base_now(session), queries.names_taken(session)
        stem = "base " + re.sub(r"[^\w .+-]", "-", base.rstrip("/").rpartition("/")[2])[:50]
        name = next(name for number in range(1, 1000) if (name := stem if number == 1 else f"{stem} {number}").casefold() not in taken)
        return _arm(name, "base", of=base)

    def start(self, set_name: str, split: str, arms: Sequence[str], by: int | None) -> int:
        """Queue the answering of a set's split by arms; returns the job's id. Raises NotFound, BadInput."""
        self.ensure_arms()
        chosen = list(dict.fromkeys(arms))
        with writing(self._db) as session:
            set_id = self._check(session, set_name, split, chosen)
            ids = [arm.id for arm, _ in queries.arms(session) if arm.name in chosen and arm.id is not None]
            job = Job(
                kind="answer", title=f"Answer {set_name} ({split}) with {', '.join(chosen)}", created_by=by,
                total=len(queries.unanswered(session, set_id, split, ids)), spec={"set": set_name, "split": split, "arms": chosen},
            )  # fmt: skip
            session.add(job)
            session.flush()
            audit(session, time.time(), by, "answering queued", job=job.id, set=set_name, split=split, arms=chosen)
            assert job.id is not None
            return job.id

    def run(self, job_id: int, should_stop: Callable[[], bool] | None = None, progress: Progress | None = None) -> None:
        """Do a queued job here, or watch it where another process has it. How it ends is in its row. `progress(done, total)`."""
        if jobs.claim(self._db, job_id):
            work = Answering(self._db, self._engine, self._adapters, self._remotes)
            work.run(job_id, should_stop or (lambda: False), progress or (lambda done, total: None))
            return
        while (job := jobs.one(self._db, job_id)).status not in (*jobs.OVER, "paused"):
            if should_stop and should_stop():
                return
            if progress:
                progress(job.done, job.total)
            time.sleep(0.3)

    def jobs(self) -> list[JobView]:
        """Answering and scoring, newest first."""
        with reading(self._db) as session:
            return [jobs.view(job) for job in queries.jobs(session)]

    def cancel(self, job_id: int, by: int | None = None) -> None:
        """Stop a job after the batch it is at; what is stored stays."""
        if jobs.one(self._db, job_id).status in jobs.OVER:
            raise Conflict("That job is over already. Nothing was changed.")
        jobs.end(self._db, job_id, "cancelled", "Cancelled. What was answered is kept.")
        self._note("job cancelled", by, job_id)

    def pause(self, job_id: int, by: int | None = None) -> None:
        """Stop answering until it is resumed; what is stored stays."""
        jobs.pause(self._db, job_id)
        self._note("job paused", by, job_id)

    def resume(self, job_id: int, by: int | None = None) -> None:
        """Go on with a paused job where it was: nothing is asked twice."""
        jobs.resume(self._db, job_id)
        self._note("job resumed", by, job_id)

    def _note(self, what: str, by: int | None, job_id: int) -> None:
        with writing(self._db) as session:
            audit(session, time.time(), by, what, job=job_id)

    def chat(self, arm_names: Sequence[str], messages: Sequence[Message], decode: DecodeSpec | None = None) -> Iterator[ChatStep]:
        """Answer a conversation with several arms from one mixed batch, texts growing in step. Waits for a model that is still loading.

        With a remote arm among them all texts come at once, at the end.

        Raises BadInput, NotFound, Unavailable before the first step; a later failure is a last step with `failed` set.
        """
        chosen = list(dict.fromkeys(arm_names))
        return self.converse({name: (name, messages) for name in chosen}, decode)

    def converse(self, said: Mapping[str, tuple[str, Sequence[Message]]], decode: DecodeSpec | None = None) -> Iterator[ChatStep]:
        """As `chat`, for conversations that differ: the name a text is shown under -> (arm, what was said to it so far)."""
        decode = decode or ARM_DECODE
        if problems := decode.problems():
            raise BadInput(" ".join(problems))
        if not 1 <= len(said) <= MAX_CHAT_ARMS:
            raise BadInput(f"Choose 1 to {MAX_CHAT_ARMS} arms to chat with.")
        self.ensure_arms()
        with reading(self._db) as session:
            known = {arm.name: (arm, adapter) for arm, adapter in queries.arms(session)}
            retired = queries.retired_arms(session)
        if unknown := [name for name, _ in said.values() if name not in known]:
            raise NotFound(f"There is no arm {unknown[0][:64]}. Choose from {', '.join(known)}.")
        if any(known[name][0].kind in ("base", "adapter") for name, _ in said.values()):
            self._engine.wait_ready(120)
            self._adapters.check_base()
        voices = {
            shown: self._voice(*known[name], messages, retired.get(known[name][0].id or 0, "")) for shown, (name, messages) in said.items()
        }
        return chat(self._engine, voices, decode)

    def _voice(self, arm: Arm, adapter: Adapter | None, messages: Sequence[Message], earlier: str) -> Voice:
        if arm.kind not in TALKING:
            raise BadInput(f"{arm.name} cannot chat: its answers were written elsewhere. Choose the base, an adapter or a remote arm.")
        if earlier:
            raise Unavailable(f"{arm.name} belongs to an earlier base, {earlier}, and gives no more answers. Choose another arm.")
        if arm.kind == "remote":
            engine = self._remotes.engine(arm)
            engine.wait_ready(SERVER_SECONDS)
            return Voice(BASE, arm.system_prompt, messages, engine)
        where = self._adapters.bring(adapter.id) if adapter and adapter.id else BASE
        return Voice(where, arm.system_prompt, messages)

    def _check(self, session: Session, set_name: str, split: str, chosen: Sequence[str]) -> int:
        """The set's id. Raises NotFound or BadInput where answering could not work."""
        prompt_set = queries.set_named(session, set_name)
        if prompt_set is None or prompt_set.id is None:
            raise NotFound(f"There is no prompt set {set_name}. Import it first, or choose one from the list.")
        if split not in SPLITS:
            raise BadInput(f"There is no split {split}. Choose {', '.join(SPLITS)}.")
        if not queries.count_prompts(session, prompt_set.id, split):
            raise BadInput(f"{set_name} has no {split} prompts. Choose another split or import some.")
        known = {arm.name: (arm, adapter) for arm, adapter in queries.arms(session)}
        if unknown := [name for name in chosen if name not in known]:
            raise NotFound(f"There is no arm {', '.join(unknown)}. Choose from {', '.join(known)}.")
        if not chosen:
            raise BadInput("No arm is chosen. Choose at least one.")
        retired = queries.retired_arms(session)
        for arm, adapter in (known[name] for name in chosen):
            if arm.kind == "imported":
                raise BadInput(f"{arm.name} came in with a study from elsewhere and cannot answer more prompts. Leave it out.")
            if earlier := retired.get(arm.id or 0):
                raise Unavailable(f"{arm.name} belongs to an earlier base, {earlier}, and gives no more answers. Choose another arm.")
            if not _view(arm, adapter).usable:
                raise Unavailable(f"{arm.name} cannot answer: its adapter is {adapter.status if adapter else 'gone'}. Choose another arm.")
            if arm.kind == "human" and (lacking := queries.without_reference(session, prompt_set.id, split)):
                raise BadInput(f"{lacking} prompts of {set_name} have no reference answer, so “human” cannot answer them. Leave it out.")
        return prompt_set.id


def _view(arm: Arm, adapter: Adapter | None, earlier: str = "") -> ArmView:
    """`earlier`: the base it belongs to, where that is not the base now."""
    usable = not earlier and (arm.kind in ("base", "human", "remote") or (adapter is not None and adapter.status == "registered"))
    title = (
        (of_earlier(earlier) if earlier else "")
        or (adapter.title if adapter else "")
        or {
            "base": "The base model",
            "human": "What people wrote",
            "imported": "From a study run elsewhere",
            "remote": f"{arm.remote.get('model')} on {urlsplit(str(arm.remote.get('url'))).hostname}",
        }.get(arm.kind, "")
    )
    return ArmView(arm.id or 0, arm.name, arm.kind, adapter.name if adapter else "", title, usable, bool(earlier))


def _arm(name: str, kind: str, adapter_id: int | None = None, system: str = DEFAULT_SYSTEM, of: str = "") -> Arm:
    if kind == "human":
        return Arm(name=name, kind=kind, settings_hash=digest([kind]))
    decode = ARM_DECODE.to_dict()
    hashed = digest([kind, adapter_id, system, decode, *([of] if of else [])])
    return Arm(name=name, kind=kind, adapter_id=adapter_id, system_prompt=system, decode=decode, settings_hash=hashed)


def _system_of(spec: dict[str, object]) -> str:
    """The system text an adapter was trained with."""
    known = TrainSpec.from_dict(spec) if spec else TrainSpec()
    return known.system_prompt.strip() or DEFAULT_SYSTEM
