"""Seconds from process start to the first page, on a second start, against a bare Gradio app started the same way.

Must not import the app: it is measured from outside, as a person meets it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.row import Row

ROOT = Path(__file__).parents[1]
BARE = "import gradio as gr\nwith gr.Blocks() as page:\n    gr.Markdown('hello')\npage.launch(server_port={port}, quiet=True)\n"
LIMIT = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def seconds_to_page(command: list[str], url: str, env: dict[str, str]) -> float:
    """Start `command`, wait for `url` to answer 200, end it; the time between in seconds."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not answers(url):
            if process.poll() is not None or time.perf_counter() - begun > LIMIT:
                raise RuntimeError(f"{command[:3]} showed no page at {url}")
            time.sleep(0.02)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(30)


def app_seconds(home: str) -> float:
    port = free_port()
    env = {"TIEBREAK_HOME": home, "TIEBREAK_PORT": str(port), "TIEBREAK_ENGINE": "scripted"}
    return seconds_to_page([sys.executable, "app.py"], f"http://127.0.0.1:{port}/login", env)


def bare_seconds() -> float:
    port = free_port()
    command = [sys.executable, "-c", BARE.format(port=port)]
    return seconds_to_page(command, f"http://127.0.0.1:{port}/", {"GRADIO_ANALYTICS_ENABLED": "False"})


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=Path.home()) as home:
        app_seconds(home)
        bare_seconds()
        ours = min(app_seconds(home) for _ in range(3))
    return [Row("first page, second start", ours, min(bare_seconds() for _ in range(3)), "bare Gradio", "s", "lower")]
