"""The house rules that tools can check: lint, types, container files, and nothing in the tree that belongs to one machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_ruff_finds_nothing() -> None:
    done = run(str(BIN / "ruff"), "check", ".")
    assert done.returncode == 0, done.stdout


def test_mypy_finds_nothing() -> None:
    done = run(str(BIN / "mypy"))
    assert done.returncode == 0, done.stdout


def test_dockerfile_passes_hadolint() -> None:
    done = run(str(BIN / "hadolint"), "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_compose_file_matches_its_schema() -> None:
    done = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_dockerfile_runs_as_a_plain_user_with_a_health_check_and_no_secret() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER (?!root)", text, re.M)
    assert "HEALTHCHECK" in text
    assert not re.search(r"(?i)(token|password|secret)\s*=", text)


def tracked() -> list[str]:
    listed = run("git", "ls-files", "-z")
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def test_no_pickle_or_weights_other_than_safetensors_are_shipped() -> None:
    assert [n for n in tracked() if n.endswith((".bin", ".pt", ".pth", ".pkl", ".gguf", ".ckpt", ".db"))] == []


def test_no_file_is_larger_than_eight_megabytes() -> None:
    assert [n for n in tracked() if (ROOT / n).is_file() and (ROOT / n).stat().st_size > 8 << 20] == []


def test_constraints_pin_exactly_and_leave_torch_free() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all("==" in line for line in lines)
    assert not [line for line in lines if line.startswith(("torch=", "nvidia", "triton"))]
    assert not any("://" in line or "+cpu" in line for line in lines)


def test_no_source_calls_a_shell_or_unpickles() -> None:
    bad = re.compile(r"shell=True|os\.system\(|torch\.load\(|trust_remote_code=True|pickle\.loads?\(")
    hits = [n for n in tracked() if n.endswith(".py") and not n.startswith("tests/") and bad.search((ROOT / n).read_text())]
    assert hits == []
