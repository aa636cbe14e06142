"""Studies from the terminal: declared with everything, copied, decided on, told in full."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from review.commands.main import program
from storage.database import Database
from tests.judging import VARIANTS, House, cast, furnish, prefer


def run(*words: str, code: int = 0) -> str:
    """What it prints, or the words of its refusal where one is expected."""
    result = CliRunner().invoke(program(lambda: None), list(words))
    assert result.exit_code == code, result.output
    return str(result.exception) if code else result.output


@pytest.fixture
def house(db: Database, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    return furnish(db, prompts=8)


def disputed(house: House) -> None:
    house.studies.open("winter")
    for turn in range(8):
        for reviewer in range(2):
            wish = VARIANTS[1] if turn % 4 or reviewer else VARIANTS[0]
            cast(house, reviewer, lambda pair, wish=wish: prefer(pair, wish), seconds=30 + turn, criteria={"tone": "same"})


def declare(*more: str) -> str:
    return run("study", "create", "winter", "--set", "tickets", "--arm", "base", "--arm", "tuned-v3", "--votes-per-pair", "2", *more)


def test_a_study_is_declared_with_everything_and_copied(house: House) -> None:
    declare("--criterion", "tone", "--reason", "too vague", "--scale", "points", "--no-checks", "--reviewer", "reviewer 0", "--reviewer",
            "reviewer 1", "--any-tag", "--min-votes", "4", "--e-value", "100", "--reveal", "after_vote")  # fmt: skip
    made = house.studies.study("winter")
    assert (made.criteria, made.reasons, made.scale, made.checks, made.reveal) == (("tone",), ("too vague",), "points", False, "after_vote")
    assert (made.reviewers, made.rule.min_votes, made.rule.no_worse_tag) == (("reviewer 0", "reviewer 1"), 4, False)
    assert made.rule.e_value == 100
    run("study", "copy", "winter", "spring")
    assert house.studies.study("spring").scale == "points"
    assert "exists already" in run("study", "copy", "winter", "spring", code=1)


def test_status_tells_the_verdict_its_conditions_reviewers_and_checks(house: House) -> None:
    declare("--no-checks", "--criterion", "tone", "--min-reviewers", "2")
    disputed(house)
    words = run("study", "status", "winter")
    for told in ("16 votes of 16 wanted", "met: 16 votes", "reviewer 0", "Agreement on vote: alpha", "The left side won"):
        assert told in words
    told = json.loads(run("study", "status", "winter", "--json"))
    assert told["result"]["conditions"][0] == {"setting": "min_votes", "met": True, "words": "16 votes; at least 16 asked for."}
    assert {"tags", "agreements", "blinding", "consistency", "side", "aside", "adjudicated", "flips"} <= told["result"].keys()
    assert {"tags", "agreement", "skipped", "reviewers", "seconds"} <= told["progress"].keys()


def test_disputes_are_decided_and_reviewers_set_aside_with_a_reason(house: House) -> None:
    declare("--no-checks", "--criterion", "tone")
    disputed(house)
    pairs: list[dict[str, Any]] = json.loads(run("study", "disputes", "winter", "--json"))
    assert len(pairs) == 2
    assert pairs[0]["id"] in run("study", "disputes", "winter")
    run("study", "adjudicate", "winter", pairs[0]["id"], "tie", "--reason", "Both are right.")
    assert json.loads(run("study", "status", "winter", "--json"))["result"]["adjudicated"] == 1
    assert "is not a pair" in run("study", "adjudicate", "winter", "x:1", "tie", "--reason", "y", code=1)
    run("study", "decide", "winter", "reviewer 0", "--aside", "--reason", "A test account.")
    assert "Aside" in run("study", "status", "winter")
    assert json.loads(run("study", "status", "winter", "--json"))["result"]["votes"] == 8
    run("study", "decide", "winter", "reviewer 0", "--count", "--reason", "No, it was Rita.")
    assert json.loads(run("study", "status", "winter", "--json"))["result"]["votes"] == 16


def test_votes_are_printed_whole_as_lines_and_safe_as_a_table(house: House) -> None:
    declare("--no-checks", "--criterion", "tone")
    disputed(house)
    rows = [json.loads(line) for line in run("votes", "export", "winter").splitlines()]
    assert len(rows) == 16
    assert {"kind", "criteria", "reasons", "comment", "correction", "guess", "counts", "aside", "adjudicated"} <= rows[0].keys()
    table = run("votes", "export", "winter", "--format", "csv").splitlines()
    assert table[0].split(",")[:2] == ["study", "reviewer"]
    assert len(table) == 17
    assert "Choose csv or jsonl" in run("votes", "export", "winter", "--format", "xml", code=1)
