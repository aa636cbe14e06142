"""What a study file must not lose beside the votes: skipped pairs with their reasons, and the earlier turns of conversations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from ft.errors import BadInput
from review.commands.main import program
from review.protocol.ballots import BlindPair
from review.services.exchange import Exchange, recount
from review.services.studies import Studies
from review.services.study_views import StudyProgress
from storage.database import Database
from storage.tables import Answer, Arm, Assignment, Prompt, Skip, Study
from tests.foreign_studies import write
from tests.judging import House, cast, count, opened
from tests.test_exchange import PAIR, elsewhere, numbers
from tests.test_study_whole import furnished, vote_all

__all__ = ["elsewhere"]
SKIPPED = {
    "type": "skip",
    "reviewer": "Tom",
    "prompt": "p1",
    "left": "new",
    "right": "old",
    "reason": "Not my field",
    "at": 1_700_000_000.5,
}
TURNS = [{"role": "user", "content": "Which router is it?"}, {"role": "assistant", "content": "The white one."}]


def skip_some(house: House) -> None:
    """Everybody skips a few of whatever comes, repeats and plain pairs too; somebody does nothing else."""
    for turn in range(9):
        for at, reviewer in enumerate(house.reviewers):
            found = house.comparisons.next_pair(reviewer)
            if isinstance(found, BlindPair) and (at == 3 or turn % 3 == 0):
                house.clock.time += 7
                house.comparisons.skip(
                    reviewer, found.assignment, ("Not my field", "=needs «a» specialist")[turn % 2], f"s-{found.assignment}"
                )
        vote_all(replace(house, reviewers=house.reviewers[:3]), 4, {}, seed=turn)


def told(progress: StudyProgress) -> StudyProgress:
    return replace(progress, state="")


def test_progress_with_its_skips_is_the_same_in_another_house_and_on_the_way_back(
    db: Database, elsewhere: Database, tmp_path: Path
) -> None:
    house = furnished(db, reviewers=4)
    house.studies.create("winter", "tickets", ["base", "tuned-v3"], votes_per_pair=3, rule={"min_votes": 30})
    house.studies.open("winter")
    skip_some(house)
    with db.write() as session:  # a plain pair that shows an answer of an arm outside the study, skipped
        session.add(Arm(id=99, name="human", kind="human", settings_hash="human"))
        session.flush()
        prompt, other = session.exec(select(Prompt)).all()[:2]
        good = Answer(arm_id=99, prompt_id=prompt.id, text="Right.")
        bad = session.exec(select(Answer).where(Answer.prompt_id == other.id)).first()
        session.add(good)
        session.flush()
        assert bad
        study, reviewer = session.exec(select(Study)).one(), house.reviewers[0]
        session.add(Assignment(id="plain", study_id=study.id, reviewer_id=reviewer, prompt_id=prompt.id, left_answer_id=bad.id,
                               right_answer_id=good.id, pair_key=f"{bad.id}-{good.id}", kind="gold"))  # fmt: skip
        session.flush()
        session.add(Skip(assignment_id="plain", reviewer_id=reviewer, reason="Unclear", request_key="plain", created_at=house.clock.time))
    with db.session() as session:
        given = {row.id: row.kind for row in session.exec(select(Assignment))}
        assert {given[row.assignment_id] for row in session.exec(select(Skip))} >= {"real", "gold"}
    shown, path = house.studies.progress("winter"), tmp_path / "winter.jsonl"
    assert len(shown.skipped) > 12
    assert {r.votes for r in shown.reviewers if r.name == "reviewer 3"} == {0}
    Exchange(db).write("winter", path)
    assert recount(path) == numbers(house.studies.result("winter"))
    report = Exchange(elsewhere).import_file(path)
    again = Studies(elsewhere).progress("winter")
    assert report.skips == len(shown.skipped)
    assert told(again) == told(shown)
    Exchange(elsewhere).write("winter", tmp_path / "twice.jsonl")
    once, twice = (
        [line for text in one.read_text().splitlines() if (line := json.loads(text))["type"] == "skip"]
        for one in (path, tmp_path / "twice.jsonl")
    )
    own = ("prompt", "left_answer", "right_answer")
    plain = [[{key: value for key, value in line.items() if key not in own} for line in lines] for lines in (once, twice)]
    assert json.loads(json.dumps(plain[1]).replace("base (winter)", "base")) == plain[0]


def test_a_skip_of_another_house_comes_in_with_its_reviewer_time_and_reason(db: Database, tmp_path: Path) -> None:
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, SKIPPED]))
    assert (report.skips, report.votes, report.reviewers) == (1, 1, 2)
    progress = Studies(db).progress("spring")
    assert [(one.reviewer, one.reason, one.at) for one in progress.skipped] == [("Tom", "Not my field", 1_700_000_000.5)]
    assert {one.name: (one.votes, one.skipped) for one in progress.reviewers} == {"Rita": (1, 0), "Tom": (0, 1)}
    assert Studies(db).result("spring").votes == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reviewer": "Rita"}, "Line 8: Rita has a vote on this pair, or skipped it, on line 7; keep one"),
        ({"left": "older"}, "Line 8: there is no arm 'older'"),
        ({"prompt": "p9"}, "Line 8: there is no prompt 'p9'"),
        ({"left": "old"}, "Line 8: old cannot meet itself"),
        ({"reason": " "}, "Line 8: a skip needs its reason"),
        ({"kind": "odd"}, "Line 8: there is no kind of vote 'odd'"),
        ({"at": -1}, "Line 8: at is -1"),
        ({"left_answer": "x"}, "Line 8: there is no answer 'x' of new"),
        ({"reviewer": "rita"}, "there in another spelling"),
    ],
)
def test_a_skip_that_does_not_fit_is_refused_with_its_line(db: Database, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, SKIPPED | change]))
    assert count(db, Skip) == count(db, Study) == 0


def test_a_pair_skipped_twice_by_one_reviewer_is_refused(db: Database, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Line 9: Tom has a vote on this pair, or skipped it, on line 8"):
        Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, SKIPPED, SKIPPED | {"left": "old", "right": "new"}]))


def test_earlier_turns_of_a_conversation_go_along_and_one_question_in_two_conversations_is_two_prompts(
    db: Database, elsewhere: Database, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [line | {"history": TURNS} if line["type"] == "prompt" else line for line in PAIR]
    more = [{"type": "prompt", "id": "p2", "instruction": "How do I reset it?", "history": TURNS[:1]}]
    more += [{"type": "answer", "prompt": "p2", "arm": arm, "text": arm} for arm in ("old", "new")]
    Exchange(db).import_file(write(tmp_path / "s.jsonl", [*lines, *more]))
    Exchange(db).write("spring", tmp_path / "again.jsonl")
    Exchange(elsewhere).import_file(tmp_path / "again.jsonl")
    for house in (db, elsewhere):
        with house.session() as session:
            assert [prompt.history for prompt in session.exec(select(Prompt).order_by(Prompt.id))] == [TURNS, TURNS[:1]]  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", ["hello", [1], [{"role": "bot", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": 1}]])
def test_earlier_turns_of_another_form_are_refused(db: Database, tmp_path: Path, turns: Any) -> None:
    lines = [line | {"history": turns} if line["type"] == "prompt" else line for line in PAIR]
    with pytest.raises(BadInput, match="Line 4: history must be a list of turns"):
        Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))


def test_a_lead_who_decides_a_disputed_pair_reads_the_whole_conversation(db: Database) -> None:
    house = opened(db, prompts=1, votes_per_pair=2)
    with db.write() as session:
        session.connection().exec_driver_sql("DROP TRIGGER keep_prompt_text")
        session.exec(select(Prompt)).one().history = TURNS
    pair = cast(house, 0, "left")
    cast(house, 1, lambda other: "right" if other.left == pair.left else "left")
    (disputed,) = house.studies.disagreements("winter")
    assert disputed.prompt == pair.prompt
    assert "Customer:\nWhich router is it?" in disputed.prompt


def test_a_study_taken_out_as_one_json_list_comes_in_again(
    home: Path, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")
    Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, SKIPPED]))

    def run(*words: str) -> str:
        result = CliRunner().invoke(program(lambda: None), list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    found = json.loads(run("study", "export", "spring", "--json"))
    assert [line["type"] for line in found] == ["study", "arm", "arm", "prompt", "answer", "answer", "vote", "skip"]
    out = tmp_path / "spring.json"
    run("study", "export", "spring", "--json", "--out", str(out))
    assert json.loads(out.read_text()) == found
    assert "1 skipped pairs came along" in run("study", "import", str(out), "--name", "autumn")
