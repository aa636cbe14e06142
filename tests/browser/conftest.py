"""The real app in a process of its own, on the real model and the demo, as a person meets it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

UP_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """One started app: its address, its process, and the one-time links it printed, by role."""

    home: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    links: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Running":
        """Start it and wait for the first page; `seconds` is how long that took."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("TIEBREAK_")}
        env |= {"TIEBREAK_HOME": str(self.home), "TIEBREAK_PORT": str(self.port), "PYTHONUNBUFFERED": "1", **self.env}
        log = (self.home / "app.log").open("a+")
        begun = time.monotonic()
        self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log, text=True)
        while not self._answers():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() - begun < UP_SECONDS, self.printed()
            time.sleep(0.05)
        self.seconds = time.monotonic() - begun
        while not (found := re.findall(r"^\s+(\w+)\s+\S+\s+(http\S+/login/\S+)$", self.printed(), re.M)):
            time.sleep(0.05)
        self.links = dict(found)
        return self

    def printed(self) -> str:
        return (self.home / "app.log").read_text()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/login", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


@pytest.fixture(scope="module")
def app(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The app on the embedded model with the demo, its base brought already."""
    home = tmp_path_factory.mktemp("app")
    shutil.copytree(base_folder, home / "bases" / "embedded", copy_function=os.link)
    running = Running(home, free_port()).start()
    yield running
    running.stop()


def sign_in(browser: Any, app: Running, role: str, **context: Any) -> Any:
    """A page of a fresh context, signed in with the role's printed link."""
    page = browser.new_context(**context).new_page()
    page.goto(app.links[role])
    page.get_by_role("button", name=re.compile("Continue")).click()
    page.wait_for_url(re.compile(r"/(review|lab|boards)/?$"))
    return page
