"""The house: settings, database, engine and every service, built once and handed to the web process and to the commands.

The engine is opened by whoever first needs an answer from it, never by building the house. Must not know screens or HTTP.
"""

import gc
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ft.engine import BASE, Activity, Check, Engine, Event, Identity, Request, Status
from ft.errors import Unavailable, UserError
from ft.memory import Memory, give_back
from ft.runs import BaseChoice
from review.services.adapters import Adapters
from review.services.after_training import AfterTraining, Verdicts
from review.services.answers import Answers
from review.services.asking import Asking
from review.services.bases import Bases, chosen_base
from review.services.boards import Boards
from review.services.cards import Cards
from review.services.comparisons import Comparisons
from review.services.estimates import Estimates
from review.services.exports import Exports
from review.services.faults import open_database
from review.services.integrity import Integrity
from review.services.keeping import Keeping
from review.services.keys import Keys
from review.services.ledger import Ledgers
from review.services.library import Library
from review.services.onboarding import Onboarding
from review.services.passports import Passports
from review.services.people import People
from review.services.promotions import Promotions
from review.services.remotes import Remotes
from review.services.sessions import Sessions
from review.services.sharing import Sharing
from review.services.studies import Studies
from review.services.sweeps import Sweeps
from review.services.training import Training
from review.services.upkeep import Upkeep
from review.settings import Settings
from storage.database import Database

EMBEDDED_NAMES = ("SmolLM2-135M-Instruct", "SmolLM2", "SmolLM")
FOLDERS = ("bases", "adapters", "runs", "quarantine", "exports")


class EngineOnDemand:
    """An Engine that is opened at its first use. Asking for its status never opens it. It can leave the memory to others and come back."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._engine: Engine | None = None
        self._failure = ""
        self._away = ""  # why it must not be open now
        self._leaves_by = 0.0
        self._comes_back = False
        self._lock = threading.Lock()

    def open(self) -> Engine:
        """Open the engine now and return at once; its weights come in a thread of its own. Raises Unavailable."""
        with self._lock:
            if self._away:
                self._comes_back = True
                raise Unavailable(self._away)
            if self._engine is None:
                try:
                    self._engine = self._opener()
                except (UserError, ImportError) as error:
                    self._failure = f"The model cannot be opened: {error}"
                    raise Unavailable(self._failure) from error
            return self._engine

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    @property
    def away(self) -> str:
        """Why it left, and when it is back; "" while it has not."""
        return self._away

    def leave(self, words: str, patience: float = 0.0) -> bool:
        """Take nothing new, and leave the memory when what is under way is said, `patience` seconds from the first call at the latest.

        Returns whether it is away; call it again until it is, and with newer `words` whenever there are.
        """
        with self._lock:
            if not self._away:
                self._leaves_by = time.monotonic() + patience
            self._away, engine = words, self._engine
            if engine is None:
                return True
            busy = engine.activity()
            if engine.status().state == "loading" or ((busy.waiting or busy.running) and time.monotonic() < self._leaves_by):
                return False
            self._engine, self._comes_back = None, True
        engine.close()
        del engine
        gc.collect()
        give_back()
        return True

    def come_back(self) -> None:
        """Where it left: it may be opened again, and is at once where it was open or asked for meanwhile."""
        with self._lock:
            if not self._away:
                return
            self._away, opening, self._comes_back = "", self._comes_back, False
        if opening:
            with suppress(Unavailable):  # its status says so
                self.open()

    def status(self) -> Status:
        if self._away:
            return Status("away", self._away)
        if engine := self._engine:
            return engine.status()
        return Status("failed", self._failure) if self._failure else Status("loading", "The model starts loading in a moment.")

    def wait_ready(self, timeout: float | None = None) -> None:
        self.open().wait_ready(timeout)

    def activity(self) -> Activity:
        engine = self._engine
        return engine.activity() if engine else Activity()

    def identity(self) -> Identity:
        return self.open().identity()

    def adapters(self) -> dict[str, str]:
        engine = self._engine
        return engine.adapters() if engine else {}

    def load(self, name: str, folder: Path) -> None:
        self.open().load(name, folder)

    def unload(self, name: str) -> None:
        if engine := self._engine:
            engine.unload(name)

    def check(self, name: str = BASE) -> Check:
        return self.open().check(name)

    def generate(self, requests: Sequence[Request]) -> Generator[Event, None, None]:
        return self.open().generate(requests)

    def close(self) -> None:
        with self._lock:
            if self._engine:
                self._engine.close()


@dataclass(frozen=True)
class House:
    """Everything a screen, a command or a background job may use."""

    settings: Settings
    db: Database
    engine: EngineOnDemand
    people: People
    library: Library
    answers: Answers
    adapters: Adapters
    bases: Bases
    integrity: Integrity
    passports: Passports
    studies: Studies
    comparisons: Comparisons
    sessions: Sessions
    onboarding: Onboarding
    boards: Boards
    training: Training
    estimates: Estimates
    upkeep: Upkeep
    keys: Keys
    keeping: Keeping
    promotions: Promotions
    cards: Cards
    exports: Exports
    sweeps: Sweeps
    asking: Asking
    remotes: Remotes


def build(settings: Settings, db: Database, engine: Engine) -> House:
    """Connect the services. Opens nothing."""
    on_demand = engine if isinstance(engine, EngineOnDemand) else EngineOnDemand(lambda: engine)
    library, boards, ledgers = Library(db), Boards(db), Ledgers()
    adapters = Adapters(db, settings.home, on_demand, settings.base, settings.adapter_memory_mb, strict=settings.engine == "local")
    remotes = Remotes(db)
    answers = Answers(db, on_demand, adapters, remotes)
    base = BaseChoice(settings.base, str(settings.home / "bases"), settings.device, settings.dtype)
    studies, keeping = Studies(db), Keeping(db)
    promotions = Promotions(db, adapters, studies, boards, keeping, answers)
    verdicts = Verdicts(keeping, promotions, Cards(db, settings.home, boards, keeping))
    sharing = Sharing(on_demand, settings.home, Memory(settings.device)) if settings.engine == "local" else None
    training = Training(db, settings.home, library, base, AfterTraining(db, adapters, answers, boards, verdicts), sharing)
    return House(
        settings=settings,
        db=db,
        engine=on_demand,
        people=People(db),
        library=library,
        answers=answers,
        adapters=adapters,
        bases=Bases(db, settings.home, settings.base, on_demand),
        integrity=Integrity(db, on_demand, adapters, answers),
        passports=Passports(db, on_demand, adapters, answers),
        studies=studies,
        comparisons=Comparisons(db, names=EMBEDDED_NAMES if settings.base == "embedded" else (settings.base,), ledgers=ledgers),
        sessions=Sessions(db, ledgers=ledgers),
        onboarding=Onboarding(db),
        boards=boards,
        training=training,
        estimates=Estimates(training, settings.home),
        upkeep=Upkeep(settings, db, on_demand),
        keys=Keys(db),
        keeping=keeping,
        promotions=promotions,
        cards=verdicts.cards,
        exports=Exports(db, settings.home, base, adapters, verdicts.cards, settings.gguf_converter),
        sweeps=Sweeps(db, training),
        asking=Asking(db, on_demand, adapters, answers, remotes),
        remotes=remotes,
    )


def engine_of(settings: Settings) -> Engine:
    """The engine the settings ask for. Returns at once; raises Unavailable where its files are missing."""
    from ft.engines import open_engine

    return open_engine(settings)


@contextmanager
def open_house(settings: Settings) -> Iterator[House]:
    """The house for as long as the block runs, on a migrated database; files made inside it are private to the owner (umask 077).

    Raises UserError, in words, for a data folder or database that cannot be used.
    """
    os.umask(0o077)
    for name in FOLDERS:
        settings.folder(name)
    db = open_database(settings.database_url)
    try:
        db.migrate()
        settings = replace(settings, base=chosen_base(db, settings.base))
        house = build(settings, db, EngineOnDemand(lambda: engine_of(settings)))
        try:
            yield house
        finally:
            house.remotes.close()
            house.engine.close()
    finally:
        db.close()
