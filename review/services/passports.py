"""Passports: everything needed to answer the same again, for an arm and for a stored answer; and the proof, by answering again.

Must not know torch, screens or how votes are counted.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from ft.engine import BASE, Done, Engine, Failed, Identity
from ft.errors import BadInput, NotFound, Unavailable
from ft.specs import DecodeSpec
from ft.versions import library_versions
from review.services.adapters import Adapters
from review.services.answering import request_for
from review.services.answers import Answers
from review.services.faults import reading
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Adapter, Answer, Arm, Prompt

AROUND = 40  # characters shown before and after the first difference


@dataclass(frozen=True, slots=True)
class Passport:
    """`model` is what runs now and empty where no model is loaded; `answers`: how many are stored, by what computed them."""

    arm: str
    kind: str
    system_prompt: str
    decode: dict[str, Any]
    settings_hash: str
    adapter: dict[str, Any]
    model: dict[str, Any]
    remote: dict[str, Any]
    answers: tuple[dict[str, Any], ...]
    complete: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """A stored answer beside the one given now. `differs_at`: the first character that differs, or -1; `changed`: what is not as it was."""

    answer: int
    arm: str
    identical: bool
    differs_at: int
    stored_text: str
    text: str
    changed: tuple[str, ...]
    words: str
    was: dict[str, Any] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)


class Passports:
    def __init__(self, db: Database, engine: Engine, adapters: Adapters, answers: Answers) -> None:
        self._db, self._engine, self._adapters, self._answers = db, engine, adapters, answers

    def passport(self, name: str) -> Passport:
        """Raises NotFound. Loads nothing: what runs now is told where a model is ready."""
        self._answers.ensure_arms()
        with reading(self._db) as session:
            known = {arm.name: (arm, adapter) for arm, adapter in queries.arms(session)}
            if name not in known:
                raise NotFound(f"There is no arm {name}. Choose from {', '.join(known)}.")
            arm, adapter = known[name]
            made = tuple(queries.computed_by(session, arm.id or 0))
        ours = arm.kind in ("base", "adapter")
        model = _model(self._engine.identity()) if ours and self._engine.status().state == "ready" else {}
        missing = []
        if ours and not model and not made:
            missing.append("No model is loaded in this program, so base, dtype and template are not named.")
        if adapter and adapter.status == "removed":
            missing.append("Its adapter has been removed with its files.")
        return Passport(
            arm.name, arm.kind, arm.system_prompt, dict(arm.decode), arm.settings_hash, _adapter(adapter), model, dict(arm.remote), made,
            not missing, tuple(missing),
        )  # fmt: skip

    def replay(self, answer_id: int) -> Replay:
        """Answer a stored answer's prompt again, alone, and compare. Raises NotFound, BadInput (no model of ours gave it), Unavailable."""
        with reading(self._db) as session:
            answer, arm, adapter, prompt = self._stored(session, answer_id)
        if arm.kind not in ("base", "adapter"):
            raise BadInput(
                f"Answer {answer_id} is by {arm.name}, which is no model of this machine. Choose an answer of the base or an adapter."
            )
        if adapter is not None and adapter.status == "removed":
            raise Unavailable(f"The adapter of {arm.name} has been removed with its files, so its answers cannot be given again.")
        self._engine.wait_ready(600)
        where = self._adapters.bring(adapter.id) if adapter and adapter.id else BASE
        text = self._ask(arm, prompt, where)
        was, now = _facts_of(answer), _facts_now(self._engine.identity(), arm, where)
        changed = tuple(sorted(key for key in was if was[key] and was[key] != now.get(key)))
        return _compared(answer, arm, text, changed, was, now)

    def _stored(self, session: Session, answer_id: int) -> tuple[Answer, Arm, Adapter | None, Prompt]:
        answer = session.get(Answer, answer_id)
        if answer is None:
            raise NotFound(f"There is no answer {answer_id}. Its number stands in exports and on the page Integrity.")
        arm, prompt = session.get(Arm, answer.arm_id), session.get(Prompt, answer.prompt_id)
        assert arm is not None
        assert prompt is not None
        return answer, arm, session.get(Adapter, arm.adapter_id) if arm.adapter_id else None, prompt

    def _ask(self, arm: Arm, prompt: Prompt, where: str) -> str:
        for event in self._engine.generate([request_for("replay", prompt, arm, where)]):
            if isinstance(event, Failed):
                raise Unavailable(event.error)
            if isinstance(event, Done):
                return event.text.strip()
        raise Unavailable("The model gave no answer. Try again.")


def _compared(answer: Answer, arm: Arm, text: str, changed: tuple[str, ...], was: dict[str, Any], now: dict[str, Any]) -> Replay:
    at = _first_difference(answer.text, text)
    words = "Identical to the stored answer, character for character."
    if at >= 0:
        words = f"It differs from character {at + 1} on: stored “{_around(answer.text, at)}”, now “{_around(text, at)}”. "
        if changed:
            words += f"Changed since: {', '.join(changed)}."
        elif now["dtype"] in ("bfloat16", "float16") or now["quantisation"] in ("8bit", "4bit"):
            words += (
                f"Nothing changed, but in {now['dtype']} rounding depends on what else is in the batch, so a near tie may fall otherwise."
            )
        else:
            words += "Nothing that is recorded has changed. Look at the page Integrity."
    elif changed:
        words += f" All the same, something changed since: {', '.join(changed)}."
    if DecodeSpec.from_dict(arm.decode).temperature > 0:
        words += " The answer was drawn at random, by a recorded seed."
    return Replay(answer.id or 0, arm.name, at < 0, at, answer.text, text, changed, words, was, now)


def _first_difference(one: str, other: str) -> int:
    if one == other:
        return -1
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _around(text: str, at: int) -> str:
    before, after = text[max(0, at - AROUND) : at], text[at : at + AROUND]
    return f"{'…' if at > AROUND else ''}{before}⟨{after}⟩{'…' if at + AROUND < len(text) else ''}"


def _facts_of(answer: Answer) -> dict[str, Any]:
    base, dtype, quantisation = (*answer.base_hash.split(":"), "", "")[:3]
    facts: dict[str, Any] = {"base": base, "dtype": dtype, "quantisation": quantisation, "device": answer.engine.get("device", "")}
    facts |= {"template": answer.template_hash, "adapter": answer.adapter_hash, "decoding": answer.decode_hash}
    facts["kernel"] = answer.engine.get("kernel", "")
    return facts | {name: number for name, number in answer.engine.get("versions", {}).items()}


def _facts_now(identity: Identity, arm: Arm, where: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"base": identity.base_hash, "dtype": identity.dtype, "quantisation": identity.quantisation}
    facts |= {
        "device": identity.device,
        "kernel": identity.kernel,
        "template": identity.template_hash,
        "adapter": "" if where == BASE else where,
    }
    return facts | {"decoding": DecodeSpec.from_dict(arm.decode).hash} | library_versions()


def _model(identity: Identity) -> dict[str, Any]:
    return {
        "base": identity.base, "base_hash": identity.base_hash, "template_hash": identity.template_hash, "dtype": identity.dtype,
        "quantisation": identity.quantisation, "device": identity.device, "kernel": identity.kernel,
        "context_length": identity.context_length,
        "reasons": dict(identity.reasons), "versions": library_versions(),
    }  # fmt: skip


def _adapter(adapter: Adapter | None) -> dict[str, Any]:
    if adapter is None:
        return {}
    return {
        "name": adapter.name, "content_hash": adapter.content_hash, "method": adapter.method, "rank": adapter.rank, "alpha": adapter.alpha,
        "targets": list(adapter.targets), "bytes": adapter.bytes, "base_hash": adapter.base_hash, "run": adapter.run_id,
        "status": adapter.status, "about": dict(adapter.about),
    }  # fmt: skip
