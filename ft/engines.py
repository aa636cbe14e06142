"""Opens the engine that the settings name. Returns at once: a model loads in a thread of the engine's own.

Light: torch is imported by the local engine's thread only. Must not know reviewers, screens or the database.
"""

from pathlib import Path
from typing import Protocol

from ft.engine import Engine
from ft.errors import BadInput


class EngineSettings(Protocol):
    """What of the app's settings an engine needs."""

    @property
    def engine(self) -> str: ...
    @property
    def home(self) -> Path: ...
    @property
    def base(self) -> str: ...
    @property
    def quantisation(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def remote_url(self) -> str: ...
    @property
    def remote_model(self) -> str: ...
    @property
    def remote_key_env(self) -> str: ...
    @property
    def remote_adapters(self) -> str: ...


def open_engine(settings: EngineSettings) -> Engine:
    """The engine, loading or ready. Raises BadInput for a kind that is not there."""
    if settings.engine == "scripted":
        from ft.scripted import ScriptedEngine

        return ScriptedEngine()
    if settings.engine == "local":
        from ft.engine_local import LocalEngine

        return LocalEngine(settings.base, settings.home / "bases", settings.quantisation, settings.device, settings.dtype)
    if settings.engine == "remote":
        from ft.engine_remote import RemoteEngine
        from ft.remote import Server

        if not settings.remote_url:
            raise BadInput("TIEBREAK_ENGINE is remote, but TIEBREAK_REMOTE_URL is not set. Set it to the server's address.")
        return RemoteEngine(Server(settings.remote_url, settings.remote_key_env), settings.remote_model, settings.remote_adapters)
    raise BadInput(f"TIEBREAK_ENGINE is {settings.engine}. Set it to local, remote or scripted.")
