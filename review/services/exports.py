"""Exports of an adapter: made and proved in a process of their own, kept in the data folder until somebody fetches or deletes them.

Must not know torch or screens.
"""

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ft
from ft import locks, runs
from ft.adapters import vet
from ft.errors import BadInput, Busy, Conflict, NotFound, Refused, Unavailable
from ft.runs import BaseChoice
from ft.template import DEFAULT_SYSTEM
from review.services.adapters import Adapters
from review.services.cards import Cards
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import exports as rows
from storage.queries.people import audit

KINDS = {
    "adapter": "The adapter's folder, as PEFT and vLLM load it",
    "merged": "One merged model, as safetensors",
    "gguf": "One GGUF file for llama.cpp",
}
PROMPTS = 60
NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class ExportView:
    """`state` running, finished, failed or lost; `share` 0..1; `proof` has prompts, tokens, agreement, divergence once finished."""

    id: str
    adapter: str
    kind: str
    state: str
    message: str
    share: float
    bytes: int
    proof: dict[str, Any]
    folder: Path
    at: float


class Exports:
    """`converter`: path of llama.cpp's convert_hf_to_gguf.py, "" where it is not installed."""

    def __init__(self, db: Database, home: Path, base: BaseChoice, adapters: Adapters, cards: Cards, converter: str = "") -> None:
        self._db, self._home, self._base, self._adapters, self._cards, self._converter = db, home, base, adapters, cards, converter
        self._root = home / "exports"

    def start(self, adapter: str, kind: str, by: int | None) -> str:
        """Begin an export; its id. Raises BadInput for an unknown kind, NotFound, Conflict, Busy while another export runs."""
        if kind not in KINDS:
            raise BadInput(f"There is no export {kind!r}. Choose {', '.join(KINDS)}.")
        if kind == "gguf" and not self.converter:
            raise BadInput(
                "llama.cpp's converter is not installed, so there is no GGUF. Put convert_hf_to_gguf.py on the PATH or name it in "
                "TIEBREAK_GGUF_CONVERTER, or export the merged model."
            )
        source = self._source(adapter)
        with reading(self._db) as session:
            system, prompts = rows.system_prompt(session, adapter), rows.held_out(session, adapter, PROMPTS)
        if not prompts:
            raise BadInput("There is no held-out prompt to prove the export with. Import test prompts first.")
        export_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)
        folder = self._root / export_id
        asked = {
            "kind": kind, "name": re.sub(r"[^\w.-]", "-", adapter), "adapter_name": adapter, "base": self._base.model,
            "bases": self._base.bases, "device": self._base.device, "dtype": self._base.dtype, "system": system or DEFAULT_SYSTEM,
            "adapter": str(source), "prompts": prompts, "card": self._card(adapter, kind), "converter": self.converter, "at": time.time(),
        }  # fmt: skip
        self._begin(folder, asked)
        with writing(self._db) as session:
            audit(session, time.time(), by, "export started", export=export_id, adapter=adapter, kind=kind)
        return export_id

    def _source(self, adapter: str) -> Path:
        """The adapter's folder, with the very files that were registered. Raises NotFound, Conflict, Refused."""
        view, folder = self._adapters.adapter(adapter), self._adapters.folder(adapter)
        if view.status != "registered":
            raise Conflict(f"{adapter} is set aside, so it is not exported. Choose another adapter.")
        if not folder.is_dir():
            raise Conflict(
                f"The files of {adapter} are gone from the data folder, so it cannot be exported. Add them again under Adapters."
            )
        found = vet(folder).adapter
        if found is None or found.content_hash != view.content_hash:
            raise Refused(f"The files of {adapter} are no longer those that were registered, so it is not exported. Add it again.")
        return folder

    def _begin(self, folder: Path, asked: dict[str, Any]) -> None:
        """Lay the export out and start its process; nothing stays where that fails."""
        try:
            folder.mkdir(parents=True, mode=0o700)
            (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
            self._spawn(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unavailable(
                f"The export could not be started: {error.strerror or error}. Make room on the disk and try again."
            ) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @property
    def converter(self) -> str:
        return self._converter or shutil.which("convert_hf_to_gguf.py") or ""

    def exports(self) -> list[ExportView]:
        """Newest first."""
        found = []
        for name in sorted((path.name for path in self._root.glob("*") if NAME.fullmatch(path.name)), reverse=True):
            with contextlib.suppress(NotFound):  # somebody deleted it meanwhile
                found.append(self.export(name))
        return found

    def export(self, export_id: str) -> ExportView:
        """Raises NotFound."""
        folder = self._root / export_id
        if not NAME.fullmatch(export_id) or not folder.is_dir():
            raise NotFound("There is no such export. See the list of exports.")
        held = locks.is_held(folder / "lock")  # looked at first: what it told last is told before it lets go
        asked, told = _json(folder / "asked.json"), _json(folder / "export.json")
        state, message = told.get("state", "running"), str(told.get("message", "Starting"))
        if state == "running" and not held:
            state, message = "lost", "It ended without a word, perhaps because memory or disk ran out. Start it again."
        if state == "finished" and not (folder / "files").is_dir():
            state, message = "lost", "Its files are gone from the data folder. Make it again."
        return ExportView(
            id=export_id, adapter=str(asked.get("adapter_name", "")), kind=str(asked.get("kind", "")), state=state, message=message,
            share=float(told.get("share", 0.0)), bytes=int(told.get("bytes", 0)), proof=dict(told.get("proof", {})),
            folder=folder / "files", at=float(asked.get("at", 0.0)),
        )  # fmt: skip

    def delete(self, export_id: str, by: int | None) -> None:
        """Raises NotFound, Conflict while it runs."""
        if self.export(export_id).state == "running":
            raise Conflict("That export is still being made. Wait until it has ended.")
        try:
            shutil.rmtree(self._root / export_id)
        except FileNotFoundError:
            raise NotFound("That export was deleted meanwhile. Nothing is left to do.") from None
        except OSError as error:
            raise Unavailable(f"The export could not be deleted: {error.strerror or error}. Check the data folder.") from error
        with writing(self._db) as session:
            audit(session, time.time(), by, "export deleted", export=export_id)

    def wait(self, export_id: str, seconds: float = 3600.0) -> ExportView:
        """Until it has ended, at most so long."""
        deadline = time.monotonic() + seconds
        while (view := self.export(export_id)).state == "running" and time.monotonic() < deadline:
            time.sleep(0.2)
        return view

    def _card(self, adapter: str, kind: str) -> str:
        try:
            return self._cards.text(adapter, kind)
        except NotFound:
            return ""

    def _spawn(self, folder: Path) -> None:
        """One export at a time; the process holds both locks while it lives."""
        busy = locks.take(self._root / "lock", 0.0)
        if busy is None:
            raise Busy("Another export is being made. Start this one when it has ended.")
        own = locks.take(folder / "lock")
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ft.export", str(folder.resolve())],
                cwd=Path(ft.__file__).parent.parent, env=runs.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=tuple(lock for lock in (busy, own) if lock is not None),
            )  # fmt: skip
        finally:
            for descriptor in (busy, own, log):
                if descriptor is not None:
                    os.close(descriptor)
        threading.Thread(target=process.wait, name=f"reap-{folder.name}", daemon=True).start()


class _Passing(io.RawIOBase):
    """Keeps what is written until it is taken: a zip needs no way back."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


def zipped(folder: Path) -> Iterator[bytes]:
    """A folder's files as one zip, a piece at a time: neither memory nor disk holds it whole. Weights are not compressed."""
    passing = _Passing()
    with zipfile.ZipFile(passing, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[arg-type]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as source, archive.open(str(path.relative_to(folder)), "w", force_zip64=True) as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
                    yield passing.take()
    yield passing.take()


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
