"""A board holds each arm's scores, the paired difference from the base and the blind win rate, and says when they are out of date."""

import csv
import io
import json
import sqlite3
from dataclasses import asdict
from typing import Any

import pytest
import sacrebleu

from ft import metrics
from ft.errors import BadInput, NotFound
from review.services import scoring
from review.services.boards import Board, Boards, board_csv, board_json
from review.services.spreadsheets import csv_text, safe_cell
from storage.database import Database
from storage.tables import Answer, Arm, Evaluation, Job, Prompt, PromptSet
from tests.judging import VARIANTS, add_arm, arm_id, cast, count, opened, prefer

GOOD, MIDDLING = "tuned-v3", "base"
REFERENCES = [f"Open Settings > Network, choose profile {i}, then restart the client and wait {i} seconds." for i in range(30)]
REPLIES = {
    GOOD: [r.replace("then restart", "and restart") for r in REFERENCES],
    MIDDLING: [f"Please contact your administrator about profile {i} and the network." for i in range(30)],
    "human": REFERENCES,
}


@pytest.fixture
def boards(db: Database) -> Boards:
    furnish(db)
    return Boards(db)


def furnish(db: Database, split: str = "test") -> None:
    """30 prompts, answered by base, an adapter and the human agent."""
    with db.write() as session:
        tickets = PromptSet(name="tickets")
        session.add(tickets)
        session.add(Arm(name="human", kind="human", settings_hash="human"))
        for name in (MIDDLING, GOOD):
            add_arm(session, name)
        session.flush()
        for i, reference in enumerate(REFERENCES):
            prompt = Prompt(set_id=tickets.id, split=split, instruction=f"Question {i}", reference=reference, content_hash=f"p{i}")
            session.add(prompt)
            session.flush()
            for name, replies in REPLIES.items():
                session.add(Answer(arm_id=arm_id(session, name), prompt_id=prompt.id, text=replies[i]))


def sql(db: Database, statement: str) -> None:
    with sqlite3.connect(db.path) as raw:
        raw.execute(statement)


def test_scores_are_those_of_the_metrics_on_the_stored_answers(boards: Boards) -> None:
    report = boards.score("tickets", "test", [MIDDLING, GOOD, "human"])
    assert report.scored == (MIDDLING, GOOD)
    assert report.skipped == {"human": scoring.IS_REFERENCE}
    board = boards.board("tickets")
    row = board.row(GOOD)
    assert row
    assert row.scores["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(REPLIES[GOOD], [REFERENCES]).score)
    for name in metrics.available():
        ours, theirs = row.scores[name], metrics.score(name, REPLIES[GOOD], REFERENCES)
        assert (ours.value, ours.low, ours.high, ours.signature, ours.n) == (theirs.value, theirs.low, theirs.high, theirs.signature, 30)
    assert board.metrics == metrics.available()
    assert (board.prompts, board.references, board.base, row.answers, row.note, row.stale) == (30, 30, MIDDLING, 30, "", False)


def test_the_difference_from_the_base_is_paired_prompt_by_prompt(boards: Boards) -> None:
    boards.score("tickets", "test", [MIDDLING, GOOD])
    board = boards.board("tickets")
    row, base = board.row(GOOD), board.row(MIDDLING)
    assert row
    assert base
    assert base.versus_base == {}
    for name, difference in row.versus_base.items():
        ours, theirs = (metrics.score(name, REPLIES[arm], REFERENCES).statistics for arm in (GOOD, MIDDLING))
        assert difference == metrics.paired(name, ours, theirs)
        assert difference.clear
    assert set(row.versus_base) == set(row.scores)


def test_only_prompts_that_both_answered_are_compared(boards: Boards, db: Database) -> None:
    sql(db, "UPDATE answer SET voided_at = 1 WHERE arm_id = (SELECT id FROM arm WHERE name = 'base') AND prompt_id <= 10")
    sql(db, "UPDATE answer SET voided_at = 1 WHERE arm_id = (SELECT id FROM arm WHERE name = 'tuned-v3') AND prompt_id > 25")
    boards.score("tickets", "test", [MIDDLING, GOOD])
    row = boards.board("tickets").row(GOOD)
    assert row
    assert (row.scores["rougeL"].n, row.versus_base["rougeL"].n) == (25, 15)
    assert "25 of 30" in row.note
    common = range(10, 25)
    ours, theirs = (
        metrics.score("rougeL", [REPLIES[a][i] for i in common], [REFERENCES[i] for i in common]).value for a in (GOOD, MIDDLING)
    )
    assert row.versus_base["rougeL"].value == pytest.approx(ours - theirs)


def test_the_same_answers_are_scored_once(boards: Boards, db: Database) -> None:
    boards.score("tickets", "test", [GOOD])
    again = boards.score("tickets", "test", [GOOD])
    assert (again.scored, again.unchanged) == ((), (GOOD,))
    assert count(db, Evaluation) == 1


def test_an_arm_whose_answers_changed_is_stale_until_scored_again(boards: Boards, db: Database) -> None:
    boards.score("tickets", "test", [MIDDLING, GOOD])
    newest = "SELECT max(answer.id) FROM answer JOIN arm ON arm.id = arm_id WHERE name = 'tuned-v3'"
    sql(db, f"UPDATE answer SET voided_at = 1 WHERE id = ({newest})")  # noqa: S608
    board = boards.board("tickets")
    assert [(r.arm, r.stale) for r in board.rows if r.scores] == [(GOOD, True), (MIDDLING, False)]
    assert "changed" in (board.row(GOOD) or board.rows[0]).note
    assert boards.score("tickets", "test", [GOOD]).scored == (GOOD,)
    row = boards.board("tickets").row(GOOD)
    assert row
    assert (row.stale, row.scores["bleu"].n) == (False, 29)


def test_scores_of_another_kind_are_not_compared(boards: Boards, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    boards.score("tickets", "test", [MIDDLING])
    sql(db, "UPDATE score SET signature = replace(signature, 'tok:13a', 'tok:intl') WHERE metric = 'bleu'")
    boards.score("tickets", "test", [GOOD])
    row = boards.board("tickets").row(GOOD)
    assert row
    assert set(row.scores) - set(row.versus_base) == {"bleu"}
    monkeypatch.setattr(metrics, "available", lambda: ("bleu", metrics.STEM_METEOR))
    assert boards.score("tickets", "test", [GOOD]).scored == (GOOD,)
    board = boards.board("tickets")
    assert set((board.row(GOOD) or board.rows[0]).scores) == {"bleu", metrics.STEM_METEOR}


def test_an_arm_without_scores_stands_on_the_board_and_says_what_is_missing(boards: Boards) -> None:
    board = boards.board("tickets")
    notes = {row.arm: (row.scores, row.note) for row in board.rows}
    assert notes[GOOD] == ({}, "Not scored yet.")
    assert notes["human"][1] == scoring.IS_REFERENCE
    assert (board.metrics, board.base, board.study) == ((), "", None)


def test_what_cannot_be_scored_is_said_in_words(boards: Boards, db: Database) -> None:
    for act in (
        lambda: boards.board("nothing"),
        lambda: boards.score("nothing", "test", [GOOD]),
        lambda: boards.start_score("nothing", "test", []),
    ):
        with pytest.raises(NotFound, match="no prompt set"):
            act()
    with pytest.raises(NotFound, match="no arm gone"):
        boards.score("tickets", "test", ["gone"])
    with pytest.raises(BadInput, match="no split"):
        boards.board("tickets", "all")
    with pytest.raises(BadInput, match="no answers to prompts that have a reference"):
        boards.score("tickets", "train", [GOOD])
    with pytest.raises(BadInput, match="references themselves"):
        boards.score("tickets", "test", ["human"])
    with pytest.raises(BadInput, match="no opened study"):
        boards.board("tickets", study="nothing")


def test_prompts_without_a_reference_are_not_scored(boards: Boards, db: Database) -> None:
    with db.write() as session:
        prompt = Prompt(set_id=1, split="test", instruction="No reference", content_hash="bare")
        session.add(prompt)
        session.flush()
        session.add(Answer(arm_id=arm_id(session, GOOD), prompt_id=prompt.id, text="something"))
    boards.score("tickets", "test", [GOOD])
    board = boards.board("tickets")
    row = board.row(GOOD)
    assert row
    assert (board.prompts, board.references, row.answers, row.scores["bleu"].n, row.note) == (31, 30, 31, 30, "")


def voted(db: Database) -> Board:
    house = opened(db)
    for _ in range(4):
        cast(house, 0, lambda found: prefer(found, VARIANTS[1]))
    cast(house, 0, "tie")
    cast(house, 0, "both_bad")
    return Boards(db).board("tickets")


def test_the_blind_win_rate_is_the_studys_own(db: Database) -> None:
    board = voted(db)
    assert board.study
    assert board.studies == ("winter",)
    for row in board.rows:
        result = board.study.arm(row.arm)
        assert result
        assert row.human
        assert (row.human.value, row.human.low, row.human.high) == (result.win_rate.value, result.win_rate.low, result.win_rate.high)
        assert (row.human.votes, row.human.both_bad) == (6, 1)
    assert [(r.arm, r.human and r.human.value) for r in board.rows] == [("tuned-v3", 0.9), ("base", pytest.approx(0.1))]


def test_a_study_without_votes_gives_no_win_rate(db: Database) -> None:
    opened(db)
    board = Boards(db).board("tickets")
    assert board.study
    assert [row.human for row in board.rows] == [None, None]


def test_a_draft_study_is_not_on_the_board(db: Database) -> None:
    from tests.judging import furnish as judged

    house = judged(db)
    house.studies.create("draft", "tickets", ["base", "tuned-v3"])
    assert Boards(db).board("tickets").studies == ()


def test_judged_arms_stand_first_and_the_rest_by_score(boards: Boards) -> None:
    boards.score("tickets", "test", [MIDDLING, GOOD])
    assert [row.arm for row in boards.board("tickets").rows] == [GOOD, MIDDLING, "human"]


def test_a_board_is_plain_data_that_json_holds_exactly(db: Database) -> None:
    board = voted(db)
    Boards(db).score("tickets", "test", ["base", "tuned-v3"])
    board = Boards(db).board("tickets")
    back = json.loads(board_json(board))
    assert back == json.loads(json.dumps(asdict(board)))
    assert back["rows"][0]["scores"]["bleu"]["value"] == board.rows[0].scores["bleu"].value
    assert set(back["words"]) == set(back["metrics"]) == set(back["titles"])
    assert back["interval_words"]


@pytest.mark.hostile
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_cell_of_a_csv_runs_as_a_formula(start: str) -> None:
    cell = f'{start}HYPERLINK("http://evil")'
    text = csv_text(["name", cell], [{"name": cell, cell: -0.5}])
    header, row = list(csv.reader(io.StringIO(text, newline="")))
    assert header == ["name", f"'{cell}"]
    assert row == [f"'{cell}", "-0.5"]
    assert safe_cell("plain = fine") == "plain = fine"


def test_the_csv_has_every_score_and_win_rate(db: Database) -> None:
    voted(db)
    Boards(db).score("tickets", "test", ["base", "tuned-v3"])
    board = Boards(db).board("tickets")
    lines = list(csv.DictReader(io.StringIO(board_csv(board))))
    assert len(lines) == 2 * (1 + len(metrics.available()))
    best = [line for line in lines if line["arm"] == "tuned-v3"]
    assert best[0]["measure"] == "blind win rate"
    assert float(best[0]["value"]) == 0.9
    score = next(line for line in best if line["measure"] == "rougeL")
    row = board.row("tuned-v3")
    assert row
    assert float(score["value"]) == row.scores["rougeL"].value
    assert float(score["versus_base_low"]) == row.versus_base["rougeL"].low


def job(db: Database, job_id: int) -> Job:
    with db.session() as session:
        return session.get_one(Job, job_id)


def test_a_score_job_runs_to_its_end_and_says_how_it_went(boards: Boards, db: Database) -> None:
    job_id = boards.start_score("tickets", "test", [MIDDLING, GOOD, "human"])
    queued = job(db, job_id)
    assert (queued.kind, queued.status, queued.spec) == (
        "score",
        "queued",
        {"set": "tickets", "split": "test", "arms": [MIDDLING, GOOD, "human"]},
    )
    seen: list[tuple[int, int]] = []
    boards.run(job_id, progress=lambda done, total: seen.append((done, total)))
    done = job(db, job_id)
    assert (done.status, done.done, done.total) == ("finished", 12, 12)
    assert done.ended_at
    assert "human: " in done.message
    assert seen[-1] == (12, 12)
    boards.run(job_id)
    assert count(db, Evaluation) == 2


def test_a_job_that_cannot_score_fails_with_the_reason(boards: Boards, db: Database) -> None:
    job_id = boards.start_score("tickets", "train", [GOOD])
    boards.run(job_id)
    assert job(db, job_id).status == "failed"
    assert "no answers" in job(db, job_id).message
    with pytest.raises(NotFound):
        boards.run(99)


def test_a_stopped_job_keeps_what_it_finished(boards: Boards, db: Database) -> None:
    job_id = boards.start_score("tickets", "test", [MIDDLING, GOOD])
    boards.run(job_id, should_stop=lambda: count(db, Evaluation) == 1)
    assert (job(db, job_id).status, count(db, Evaluation)) == ("cancelled", 1)


def test_an_unforeseen_error_fails_the_job_and_is_not_hidden(boards: Boards, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(metrics, "score", fail)
    job_id = boards.start_score("tickets", "test", [GOOD])
    with pytest.raises(RuntimeError, match="canary"):
        boards.run(job_id)
    assert job(db, job_id).status == "failed"
    assert "canary" not in job(db, job_id).message


def test_the_list_of_boards_names_each_split_with_answers(boards: Boards, db: Database) -> None:
    boards.score("tickets", "test", [GOOD])
    [link] = boards.boards()
    assert (link.set_name, link.split, link.answered, link.scored) == ("tickets", "test", 3, 1)
