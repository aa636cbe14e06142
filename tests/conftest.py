"""What every test shares: an isolated home, a migrated database, the embedded base model, a browser, and the lots it draws.

In CI a missing browser, WordNet or model is a failure, never a skip. What the app draws by lot (`secrets`: sides, the order of pairs,
tokens) comes in the test process from a seeded generator, anew for each test, so that a test that passed does not fail by chance later;
TIEBREAK_SEED=n draws other lots. Processes that tests start draw real ones.
"""

import os
import random
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
IN_CI = bool(os.environ.get("CI"))
SEED = os.environ.get("TIEBREAK_SEED", "0")
LOTS = random.Random()

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def pytest_configure() -> None:
    import base64

    def token_bytes(nbytes: int | None = None) -> bytes:
        return LOTS.randbytes(32 if nbytes is None else nbytes)

    secrets.token_bytes = token_bytes
    secrets.token_hex = lambda nbytes=None: token_bytes(nbytes).hex()
    secrets.token_urlsafe = lambda nbytes=None: base64.urlsafe_b64encode(token_bytes(nbytes)).rstrip(b"=").decode()
    secrets.randbelow, secrets.randbits, secrets.choice = LOTS.randrange, LOTS.getrandbits, LOTS.choice


def draw_for(what: str) -> None:
    """Lots, and the generators that tests use without a seed of their own."""
    seed = f"{SEED} {what}"
    LOTS.seed(seed)
    random.seed(seed)
    number = random.Random(seed).getrandbits(32)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(number)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    draw_for(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Iterator[Any]:
    """What many tests share is drawn from lots of its own: the same whichever test asks for it first."""
    if fixturedef.scope == "function":
        return (yield)
    draw_for(f"{fixturedef.baseid} {fixturedef.argname} {getattr(request, 'param', '')}")
    try:
        return (yield)
    finally:
        draw_for(request._pyfuncitem.nodeid)


def missing(what: str, cure: str) -> None:
    """Fail in CI, skip elsewhere, with the cure in the reason."""
    (pytest.fail if IN_CI else pytest.skip)(f"{what} is missing: {cure}")


def shared(*parts: str) -> Path:
    """A file of the shared real data; skips with the reason where the folder is not beside the checkout."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data {'/'.join(parts)} is not beside this checkout")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own; no TIEBREAK_ setting of the machine reaches a test."""
    for name in [n for n in os.environ if n.startswith("TIEBREAK_") and n not in ("TIEBREAK_FULL", "TIEBREAK_WHEEL")]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TIEBREAK_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file of the present schema, migrated once; a copy of it is a database at a hundredth of the time."""
    from storage.database import Database

    path = tmp_path_factory.mktemp("migrated") / "tiebreak.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name], "the log is part of the file once it is closed"
    return path


@pytest.fixture
def db(home: Path, migrated: Path) -> Iterator[Any]:
    from storage.database import Database

    shutil.copy(migrated, home / "tiebreak.db")
    database = Database(f"sqlite:///{home / 'tiebreak.db'}")
    yield database
    database.close()


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The embedded 135M base, converted once and kept in the checkout's .cache folder."""
    from ft.embedded import fetch_embedded

    folder = ROOT / ".cache" / "embedded"
    fetch_embedded(folder)
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Debian's Chromium (or Chrome)."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    missing("Chromium", "apt install chromium")
    raise AssertionError


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """One headless Chromium for the session; each test opens contexts of its own."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with sync_playwright() as play:
        instance = play.chromium.launch(executable_path=chromium, args=flags)
        yield instance
        instance.close()
