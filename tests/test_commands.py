"""The `tiebreak` program: the loop without a browser, JSON for programs, and one clear line for what goes wrong."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from review.commands.main import program

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "serve", "import", "sets", "answer", "score", "chat", "board", "train", "adapters", "users", "votes", "study", "review", "runs", "rank",
    "agreement", "keys", "arms",
)  # fmt: skip


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one command in this process on the scripted engine; fails unless it exits as expected."""
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str, typed: str = "", code: int = 0) -> str:
        result = CliRunner().invoke(program(lambda: None), list(words), input=typed, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    return call


def write_rows(path: Path, count: int = 12, test_every: int = 2) -> Path:
    words = ["printer", "gateway", "invoice", "password", "tunnel", "licence", "router", "update", "backup", "portal", "cable", "screen"]
    rows = [
        {"instruction": f"My {words[n % 12]} number {n} stopped, what now?", "output": f"Restart the {words[n % 12]} and wait {n} minutes."}
        | {"split": "test" if n % test_every else "train"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def program_run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, **env, "TIEBREAK_ENGINE": "scripted"}
    return subprocess.run([sys.executable, "app.py", *words], cwd=ROOT, env=full, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_with_help(cli: Any, command: str) -> None:
    text = cli(command, "--help")
    assert "Usage" in text
    assert len(text) > 200


def test_the_loop_runs_from_import_to_the_board_without_a_browser(cli: Any, tmp_path: Path) -> None:
    report = json.loads(cli("import", str(write_rows(tmp_path / "rows.jsonl")), "--set", "rows", "--approve", "--json"))
    assert (report["added"], report["splits"]["test"]) == (12, 6)
    job = json.loads(cli("answer", "rows", "--arm", "base", "--arm", "human", "--json"))
    assert (job["status"], job["done"]) == ("finished", 12)
    board = json.loads(cli("score", "rows", "--arm", "base", "--arm", "human", "--json"))
    base = next(row for row in board["rows"] if row["arm"] == "base")
    assert {"bleu", "chrf", "rouge1", "rouge2", "rougeL"} <= set(base["scores"])
    assert all(score["low"] <= score["value"] <= score["high"] for score in base["scores"].values())
    cli("users", "add", "Rita", "--role", "reviewer")
    cli("study", "create", "trial", "--set", "rows", "--arm", "base", "--arm", "human", "--open")
    cli("review", "--as", "Rita", typed="1\n2\n3\nq\n")
    votes = [json.loads(line) for line in cli("votes", "export", "trial").splitlines()]
    assert [vote["choice"] for vote in votes] == ["left", "right", "tie"]
    assert json.loads(cli("votes", "list", "--json")) == [{"study": "trial", "state": "open", "votes": 3, "needed": 6}]
    shown = json.loads(cli("board", "rows", "--json"))
    assert next(row for row in shown["rows"] if row["arm"] == "human")["human"]["votes"] == 3
    status = json.loads(cli("study", "status", "trial", "--json"))
    assert status["result"]["verdict"]["kind"] == "more"


def test_importing_the_same_file_twice_adds_nothing(cli: Any, tmp_path: Path) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl"))
    cli("import", rows, "--set", "rows")
    again = json.loads(cli("import", rows, "--set", "rows", "--json"))
    assert (again["added"], again["duplicates"]) == (0, 12)


def test_votes_as_csv_are_read_back_by_a_csv_reader(cli: Any, tmp_path: Path) -> None:
    cli("import", str(write_rows(tmp_path / "rows.jsonl")), "--set", "rows")
    cli("answer", "rows", "--arm", "base", "--arm", "human")
    cli("users", "add", "Rita")
    cli("study", "create", "trial", "--set", "rows", "--arm", "base", "--arm", "human", "--open")
    cli("review", "--as", "Rita", typed="4\nq\n")
    (row,) = csv.DictReader(io.StringIO(cli("votes", "export", "trial", "--format", "csv")))
    assert row["choice"] == "both_bad"


def test_a_resolved_spec_is_printed_and_read_back(cli: Any, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(cli("train", "--show-spec", "--rank", "4", "--steps", "10"))
    again = json.loads(cli("train", str(spec), "--show-spec"))
    assert (again["lora"]["rank"], again["max_steps"]) == (4, 10)


def test_three_mistakes_in_a_spec_are_all_named(home: Path, tmp_path: Path) -> None:
    done = program_run("train", "--rank", "0", "--learning-rate", "9", "--epochs", "-1")
    assert done.returncode == 1
    assert all(word in done.stderr for word in ("rank is 0", "learning_rate is 9", "epochs is -1"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["import", "no-such-file.jsonl"], "no-such-file.jsonl"),
        (["board", "nothing"], "nothing"),
        (["adapters", "load", "ghost"], "ghost"),
        (["adapters", "add", "tests"], "adapter_model.safetensors"),
        (["study", "status", "ghost"], "ghost"),
        (["runs", "show", "ghost"], "ghost"),
        (["users", "link", "ghost"], "ghost"),
        (["users", "add", "Bo", "--role", "king"], "king"),
        (["train"], "approved"),
    ],
)
def test_what_goes_wrong_is_one_clear_line_without_a_traceback(home: Path, words: list[str], part: str) -> None:
    done = program_run(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert part in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1


def test_a_key_is_made_listed_and_revoked(cli: Any) -> None:
    made = json.loads(cli("keys", "add", "Nightly job", "--json"))
    assert made["key"].startswith("tb-")
    assert "not shown again: tb-" in cli("keys", "add", "Prometheus", "--role", "viewer")
    assert "opens nothing any more" in cli("keys", "revoke", "Nightly job")
    assert [(key["name"], key["role"], key["revoked"]) for key in json.loads(cli("keys", "list", "--json"))] == [
        ("Prometheus", "viewer", False), ("Nightly job", "engineer", True),
    ]  # fmt: skip
    assert made["key"] not in cli("keys", "list") + cli("keys", "list", "--json")


def test_a_remote_arm_is_added_and_listed_with_its_cost(cli: Any) -> None:
    told = cli("arms", "add-remote", "hosted", "--url", "https://models.example/v1", "--model", "large", "--key-env", "EXAMPLE_KEY")
    assert "The prompts go to that server" in told
    arms = {arm["name"]: arm for arm in json.loads(cli("arms", "list", "--json"))}
    assert (arms["hosted"]["kind"], arms["hosted"]["cost"], arms["base"]["cost"]) == ("remote", 0.0, None)
    assert "large on models.example" in cli("arms", "list")
