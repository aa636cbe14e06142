"""The README names every file with its purpose, every setting and every command, and its pictures exist."""

import re
import subprocess
from pathlib import Path

import pytest

from review.settings import VARIABLES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLDERS_AS_ONE = r"^(tests|demo/tickets|docs/screens|storage/migrations/versions)/"
NOT_LISTED = re.compile(FOLDERS_AS_ONE + r"|^(\.gitignore|\.dockerignore|LICENSE)$|(^|/)__init__\.py$")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if not NOT_LISTED.search(name) and (ROOT / name).exists()]


def tree_lines() -> list[str]:
    return README.split("<!-- tree -->")[1].split("<!-- /tree -->")[0].strip().strip("`").splitlines()


def listed_paths() -> dict[str, str]:
    """Path -> comment, read from the indented tree."""
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in tree_lines():
        match = re.match(r"^( *)(\S+)\s*(.*)$", line)
        if not match:
            continue
        depth, name, comment = len(match[1]) // 2, match[2], match[3]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        found["".join(folders) + ("" if name.endswith("/") else name)] = comment
    return found


def test_the_tree_names_every_file_with_a_comment() -> None:
    listed = listed_paths()
    assert [name for name in tracked() if not listed.get(name)] == []


def test_the_tree_names_no_file_that_is_gone() -> None:
    assert [name for name in listed_paths() if not (ROOT / name).exists()] == []


def test_the_settings_table_names_every_setting() -> None:
    assert [name for name in VARIABLES if f"`{name}`" not in README] == []


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
