"""Studies taken out and brought in: the same numbers afterwards, all or nothing, and one clear sentence with the line."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import col, select
from typer.testing import CliRunner

from ft.engine import Message
from ft.errors import BadInput, Conflict, NotFound, Refused, UserError
from ft.scripted import ScriptedEngine
from review.commands.main import program
from review.protocol.ballots import Ballot
from review.services.adapters import Adapters
from review.services.answers import Answers
from review.services.boards import Boards
from review.services.comparisons import Comparisons
from review.services.exchange import Exchange, recount
from review.services.figures import agreement, ratings_of
from review.services.library import Library
from review.services.people import People
from review.services.studies import Studies
from review.services.study_views import StudyResult
from storage.database import Database
from storage.tables import Answer, Arm, Assignment, Audit, Correction, Prompt, PromptSet, Study, StudyArm, User, Vote
from tests import foreign_studies
from tests.conftest import shared
from tests.foreign_studies import HEADER, write
from tests.judging import VARIANTS, cast, count, opened, prefer

STORED = (Answer, Arm, Assignment, Audit, Correction, Prompt, PromptSet, Study, StudyArm, User, Vote)
PAIR: list[dict[str, Any]] = [
    HEADER | {"name": "spring", "criteria": ["accuracy"], "reasons": ["too vague"]},
    {"type": "arm", "name": "old"},
    {"type": "arm", "name": "new"},
    {"type": "prompt", "id": "p1", "instruction": "How do I reset it?"},
    {"type": "answer", "prompt": "p1", "arm": "old", "text": "No idea."},
    {"type": "answer", "prompt": "p1", "arm": "new", "text": "Hold the button for ten seconds."},
    {"type": "vote", "reviewer": "Rita", "prompt": "p1", "left": "old", "right": "new", "choice": "right"},
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Any:
    """Another house: its own, empty database."""
    database = Database(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    database.migrate()
    yield database
    database.close()


def voted(db: Database, arms: tuple[str, ...] = ("plain", "tuned-v3", "tuned-v4"), **declared: Any) -> None:
    """The study "winter": three arms, three reviewers, marks, both_bad, ties, changes of mind, an ideal answer, a voided answer."""
    declared = {"criteria": ["accuracy"], "reasons": ["too vague"], "votes_per_pair": 3, "rule": {"min_votes": 7}} | declared
    house = opened(db, 8, arms, reviewers=3, **declared)
    for turn in range(48):
        wish = VARIANTS[1] if turn % 5 else VARIANTS[0]
        choice = "both_bad" if turn % 11 == 0 else lambda pair, wish=wish: prefer(pair, wish)
        pair = cast(house, turn % 3, choice, seconds=5 + turn, criteria={"accuracy": "same"}, reasons=("too vague",), comment="=1+1 «é»")
        if turn in (3, 9):
            again = Ballot(pair.assignment, "tie", key=f"again-{turn}", revises=1)
            house.comparisons.vote(house.reviewers[turn % 3], again)
    house.comparisons.correct(house.reviewers[2], pair.assignment, "First idea.", "k1")
    house.comparisons.correct(house.reviewers[2], pair.assignment, "Hold it for ten seconds.", "k2")
    with db.write() as session:
        judged = session.scalars(select(col(Assignment.left_answer_id)).order_by(col(Assignment.served_at))).first()
        session.execute(text("UPDATE answer SET voided_at = 1, void_reason = 'cut off' WHERE id = :id"), {"id": judged})
        old = session.get_one(Answer, judged)
        session.add(Answer(arm_id=old.arm_id, prompt_id=old.prompt_id, text="Answered once more."))
    with db.write() as session:  # a mark is set when a pair is given, so that of an old pair can only be made under the trigger
        session.execute(text("DROP TRIGGER keep_assignment_update"))
        session.execute(text("UPDATE assignment SET marked = 'ChatGPT' WHERE rowid % 9 = 0"))


def numbers(result: StudyResult) -> StudyResult:
    """Everything but the database's own number of the study."""
    return replace(result, study=replace(result.study, id=0))


def exported(db: Database, path: Path, name: str = "winter") -> Path:
    Exchange(db).write(name, path)
    return path


def test_a_result_recomputed_from_the_export_alone_is_identical(db: Database, tmp_path: Path) -> None:
    voted(db)
    shown = Studies(db).result("winter")
    assert shown.votes > 30
    assert shown.marked
    assert shown.voided
    assert shown.arms[0].strength is not None
    again = recount(exported(db, tmp_path / "winter.jsonl"))
    assert again == numbers(shown)


def test_a_study_imported_elsewhere_has_the_identical_result_and_board(db: Database, elsewhere: Database, tmp_path: Path) -> None:
    voted(db)
    Studies(db).close("winter")
    shown = Studies(db).result("winter")
    report = Exchange(elsewhere).import_file(exported(db, tmp_path / "winter.jsonl"))
    assert report.renamed == {}
    again = Studies(elsewhere).result("winter")
    assert again.study.closed_at == shown.study.closed_at
    told = [replace(arm, kind="imported", title="") for arm in shown.arms]
    assert numbers(again) == replace(numbers(shown), arms=tuple(told))
    ours, theirs = Boards(db).board("tickets"), Boards(elsewhere).board("tickets")
    assert {row.arm: row.human for row in ours.rows} == {row.arm: row.human for row in theirs.rows}


def test_an_export_of_an_import_is_the_same_file(db: Database, elsewhere: Database, tmp_path: Path) -> None:
    voted(db)
    Studies(db).close("winter")
    once = exported(db, tmp_path / "once.jsonl")
    Exchange(elsewhere).import_file(once)
    twice = exported(elsewhere, tmp_path / "twice.jsonl")

    def told(path: Path) -> list[dict[str, Any]]:
        """Lines without what each database numbers by itself."""
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        own = {"id", "prompt", "left_answer", "right_answer", "kind", "title"}
        return [{key: value for key, value in line.items() if key not in own} for line in lines]

    assert told(once) == told(twice)
    assert len(told(once)) > 80


def test_pandalm_imported_as_a_study_gives_the_published_figures(db: Database, tmp_path: Path) -> None:
    expected = json.loads(shared("expected.json").read_text())["pandalm"]
    report = Exchange(db).import_file(foreign_studies.pandalm(tmp_path / "pandalm.jsonl"))
    assert (report.votes, report.prompts, report.reviewers, report.identical) == (expected["votes"], expected["pairs"], 3, 0)
    result = Studies(db).result("pandalm")
    assert result.votes == expected["votes"]
    assert result.agreement == pytest.approx(expected["krippendorff_alpha_nominal"], abs=1e-5)
    strengths = {arm.arm: arm.strength.value for arm in result.arms if arm.strength}
    assert strengths == pytest.approx({row["model"]: row["log_strength"] for row in expected["bt_all_votes"]}, abs=1e-4)
    assert sorted(strengths, key=lambda arm: -strengths[arm]) == [row["model"] for row in expected["bt_majority"]]
    assert {arm.arm: arm.win_rate.value for arm in result.arms} == pytest.approx(
        {row["model"]: row["win_rate_ties_half"] for row in expected["bt_all_votes"]}, abs=1e-4
    )
    votes = Comparisons(db).export_votes("pandalm")
    assert agreement(ratings_of(votes)).kappa == pytest.approx(expected["cohen_kappa"], abs=1e-5)
    by_pair: dict[str, list[str]] = {}
    for vote in votes:
        by_pair.setdefault(vote["pair_key"], []).append(vote["choice"])
    labels = Counter({"tie": "0", "left": "1", "right": "2"}[Counter(said).most_common(1)[0][0]] for said in by_pair.values())
    assert labels == expected["majority_distribution"]


@pytest.mark.parametrize("other", ["alpaca-13b", "gpt35"])
def test_vicuna80_imports_with_the_published_wins(db: Database, tmp_path: Path, other: str) -> None:
    expected = json.loads(shared("expected.json").read_text())["vicuna80"]["reviews"][f"{other}_vicuna-13b"]
    report = Exchange(db).import_file(foreign_studies.vicuna80(tmp_path / "v.jsonl", other))
    assert (report.prompts, report.answers, report.votes) == (80, 160, 80)
    vicuna = Studies(db).result(report.study).arm("vicuna-13b")
    assert vicuna is not None
    rate = vicuna.win_rate
    assert (rate.wins, rate.losses, rate.ties) == (expected["vicuna_wins"], expected["other_wins"], expected["ties"])


def test_llmbar_imports_with_its_labels(db: Database, tmp_path: Path) -> None:
    expected = json.loads(shared("expected.json").read_text())["llmbar_Natural"]
    Exchange(db).import_file(foreign_studies.llmbar(tmp_path / "l.jsonl"))
    first, second = (Studies(db).result("llmbar").arm(f"output {n}") for n in (1, 2))
    assert first is not None
    assert second is not None
    assert (first.win_rate.wins, second.win_rate.wins) == (expected["labels"]["1"], expected["labels"]["2"])


def test_votes_on_identical_answers_are_kept_and_reported_but_not_counted(db: Database, tmp_path: Path) -> None:
    same = [{"type": "prompt", "id": "p2", "instruction": "And then?"},
            {"type": "answer", "prompt": "p2", "arm": "old", "text": "Wait.  \r\n"},
            {"type": "answer", "prompt": "p2", "arm": "new", "text": "Wait."},
            {"type": "vote", "reviewer": "Rita", "prompt": "p2", "left": "old", "right": "new", "choice": "tie"}]  # fmt: skip
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, *same]))
    assert (report.votes, report.identical, report.identical_votes) == (2, 1, 1)
    result = Studies(db).result("spring")
    assert (result.votes, result.identical, result.marked) == (1, 1, 1)
    assert [row["counts"] for row in Comparisons(db).export_votes("spring")] == [True, False]
    again = recount(exported(db, tmp_path / "again.jsonl", "spring"))
    assert again == numbers(result)


def test_the_base_of_another_house_is_never_taken_for_ours(db: Database, elsewhere: Database, tmp_path: Path) -> None:
    voted(db, ("base", "tuned-v3", "tuned-v4"))
    shown = Studies(db).result("winter")
    report = Exchange(elsewhere).import_file(exported(db, tmp_path / "winter.jsonl"))
    assert report.renamed == {"base": "base (winter)"}
    result = Studies(elsewhere).result("winter")
    assert (result.study.against, result.verdict, result.e_value) == ("base (winter)", shown.verdict, shown.e_value)
    assert [arm.win_rate for arm in result.arms] == [arm.win_rate for arm in shown.arms]
    with elsewhere.session() as session:
        assert {(arm.name, arm.kind) for arm in session.scalars(select(Arm))} == {
            ("base (winter)", "imported"), ("tuned-v3", "imported"), ("tuned-v4", "imported"),
        }  # fmt: skip


def test_a_study_comes_back_into_its_own_house_beside_the_first(db: Database, tmp_path: Path) -> None:
    voted(db)
    path = exported(db, tmp_path / "winter.jsonl")
    with pytest.raises(Conflict, match="--name"):
        Exchange(db).import_file(path)
    report = Exchange(db).import_file(path, "winter again")
    assert report.set_name == "tickets (winter again)"
    assert report.renamed["reviewer 0"] == "reviewer 0 (winter again)"
    one, two = (Studies(db).result(name) for name in ("winter", "winter again"))
    assert (two.verdict, two.agreement, two.votes, two.marked, two.voided) == (
        one.verdict,
        one.agreement,
        one.votes,
        one.marked,
        one.voided,
    )
    assert [arm.win_rate for arm in two.arms] == [arm.win_rate for arm in one.arms]


def test_what_people_wrote_becomes_the_houses_human_arm(db: Database, tmp_path: Path) -> None:
    lines = [line | {"kind": "human"} if line.get("name") == "old" else line for line in PAIR]
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))
    assert report.renamed == {"old": "human"}
    assert {(arm.arm, arm.kind) for arm in Studies(db).result("spring").arms} == {("human", "human"), ("new", "imported")}
    second = [PAIR[0] | {"name": "summer"}, *lines[1:]]
    Exchange(db).import_file(write(tmp_path / "t.jsonl", second))
    with db.session() as session:
        assert sorted(session.scalars(select(col(Arm.name)))) == ["human", "new"]


def test_nobody_can_sign_in_as_an_imported_reviewer(db: Database, tmp_path: Path) -> None:
    Exchange(db).import_file(write(tmp_path / "s.jsonl", PAIR))
    people = People(db)
    assert people.user("Rita").disabled
    with pytest.raises(Refused):
        people.link("Rita")
    with pytest.raises(Refused):
        people.sign_in("Rita", "")
    with pytest.raises(Refused):
        Comparisons(db).next_pair(people.user("Rita").id)


def test_a_reviewer_who_has_that_name_here_gets_no_votes(db: Database, tmp_path: Path) -> None:
    ours = People(db).add("RITA", "reviewer")
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", PAIR))
    assert report.renamed == {"Rita": "Rita (spring)"}
    assert {row["reviewer"] for row in Comparisons(db).export_votes("spring")} == {"Rita (spring)"}
    assert not People(db).user("RITA").disabled
    assert ours.name == "RITA"


def test_an_imported_study_is_closed_and_kept_for_good(db: Database, tmp_path: Path) -> None:
    Exchange(db).import_file(write(tmp_path / "s.jsonl", PAIR))
    assert Studies(db).study("spring").state == "closed"
    with pytest.raises(Refused):
        Studies(db).open("spring")
    with sqlite3.connect(str(db.path)) as raw:
        for change in ("DELETE FROM vote", "DELETE FROM assignment", "UPDATE vote SET choice = 'left'"):
            with pytest.raises(sqlite3.IntegrityError, match="kept for good"):
                raw.execute(change)


def test_corrections_come_along_and_on_test_prompts_teach_nothing(db: Database, tmp_path: Path) -> None:
    lines = [*PAIR[:-1], PAIR[-1] | {"correction": "Hold it. For ten seconds."}]
    Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))
    with db.session() as session:
        assert list(session.scalars(select(col(Correction.text)))) == ["Hold it. For ten seconds."]
    Library(db).gather("spring")
    assert sum(Library(db).example_counts().values()) == 0


def test_an_imported_arm_is_not_asked_for_more_answers(db: Database, home: Path, tmp_path: Path) -> None:
    Exchange(db).import_file(write(tmp_path / "s.jsonl", PAIR))
    engine = ScriptedEngine()
    answers = Answers(db, engine, Adapters(db, home, engine))
    assert {arm.name: arm.kind for arm in answers.arms()} == {"old": "imported", "new": "imported", "base": "base", "human": "human"}
    with pytest.raises(BadInput, match="came in with a study"):
        answers.start("spring", "test", ["old"], by=None)
    with pytest.raises(BadInput, match="cannot chat"):
        next(answers.chat(["old"], [Message("user", "Hello?")]))


def test_an_imported_arm_is_scored_against_references(db: Database, tmp_path: Path) -> None:
    lines = [line | {"reference": "Hold the button for ten seconds."} if line["type"] == "prompt" else line for line in PAIR]
    Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))
    Boards(db).score("spring", "test", ["old", "new"])
    new = Boards(db).board("spring").row("new")
    assert new is not None
    assert new.scores["rougeL"].value == pytest.approx(1.0)
    assert new.human is not None
    assert new.human.value == 1.0


def test_one_text_under_two_ids_stays_two_prompts(db: Database, tmp_path: Path) -> None:
    more = [line | ({"id": "p2"} if line["type"] == "prompt" else {"prompt": "p2"}) for line in PAIR[3:]]
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR, *more]))
    assert (report.prompts, Studies(db).result("spring").votes) == (2, 2)


def test_lines_may_come_in_any_order_after_the_first(db: Database, tmp_path: Path) -> None:
    Exchange(db).import_file(write(tmp_path / "s.jsonl", [PAIR[0], *reversed(PAIR[1:])]))
    assert Studies(db).result("spring").votes == 1


def test_text_from_right_to_left_and_html_come_in_as_they_are(db: Database, tmp_path: Path) -> None:
    texts = "שלום <b>&amp;</b>\u2028<script>alert(1)</script>"
    lines = [line | {"text": texts} if line.get("arm") == "new" else line for line in PAIR]
    Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))
    assert texts in {row["right"] for row in Comparisons(db).export_votes("spring")}


def reworded(**kinds: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """The small study with the lines of some kinds said otherwise."""
    return [kinds.get(line["type"], dict)(line) for line in PAIR]


def renamed(**names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda line: {names.get(name, name): value for name, value in line.items()}


def said(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda line: line | fields


ODD: dict[str, list[dict[str, Any]]] = {
    "ids are numbers": reworded(prompt=said(id=1), answer=said(prompt=1), vote=said(prompt=1, reviewer=7)),
    "the winner is in capitals": reworded(vote=said(choice="RIGHT")),
    "the winner is named": reworded(vote=said(choice="new")),
    "fields are called as in other sets": reworded(
        prompt=renamed(id="question_id", instruction="text"), answer=renamed(prompt="question_id", arm="model", text="output"),
        vote=renamed(prompt="question_id", left="model_a", right="model_b", choice="winner", reviewer="judge"),
    ),
    "nobody is named": reworded(vote=lambda line: {name: value for name, value in line.items() if name != "reviewer"}),
    "nulls stand for nothing": reworded(vote=said(comment=None, at=None, reviewer=None), prompt=said(reference=None)),
    "fields of their own": reworded(vote=said(mood="good"), prompt=said(source="web")),
    "no arm lines": [line for line in PAIR if line["type"] != "arm"],
    "no format and no name": [{"type": "study"}, *PAIR[1:]],
    "types in capitals": [line | {"type": line["type"].title()} for line in PAIR],
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_but_plain_files_come_in_as_the_same_study(db: Database, tmp_path: Path, case: str) -> None:
    report = Exchange(db).import_file(write(tmp_path / "spring.jsonl", ODD[case]))
    result = Studies(db).result("spring")
    assert {arm.arm: arm.win_rate.wins for arm in result.arms} == {"old": 0, "new": 1}
    assert report.ignored == (("prompt.source", "vote.mood") if case == "fields of their own" else ())


def test_names_of_any_script_come_in_with_their_joiners_and_spaces(db: Database, tmp_path: Path) -> None:
    old, new, rita = "👩‍💻 coder", "مدل‌یک", "Zoë\u00a0K"
    lines = json.loads(json.dumps(PAIR).replace('"old"', json.dumps(old)).replace('"new"', json.dumps(new)).replace("Rita", rita))
    report = Exchange(db).import_file(write(tmp_path / "s.jsonl", lines), "Größe – 3\u202f%")
    assert report.renamed == {}
    assert {arm.arm for arm in Studies(db).result("Größe – 3\u202f%").arms} == {old, new}
    assert Studies(db).progress("Größe – 3\u202f%").reviewers[0].name == rita
    for odd in ("a\nb", "a\u202eb", "a\u200bb", "\u00a0"):
        with pytest.raises(BadInput, match="printable characters"):
            Exchange(db).import_file(write(tmp_path / "t.jsonl", json.loads(json.dumps(PAIR).replace('"old"', json.dumps(odd)))), "x")


@pytest.mark.parametrize(
    ("at", "seconds"), [("2024-05-01T12:00:00Z", 1714564800.0), ("2024-05-01 14:00:00.5+02:00", 1714564800.5), ("2024-05-01", 1714521600.0)]
)
def test_a_time_may_be_written_as_people_write_it(db: Database, tmp_path: Path, at: str, seconds: float) -> None:
    Exchange(db).import_file(write(tmp_path / "s.jsonl", [*PAIR[:-1], PAIR[-1] | {"at": at}]))
    assert [row["created_at"] for row in Comparisons(db).export_votes("spring")] == [seconds]


@pytest.mark.parametrize("encoded", ["mark", "utf-16", "windows", "list"])
def test_odd_but_plain_encodings_come_in_as_the_same_study(db: Database, tmp_path: Path, encoded: str) -> None:
    plain = "\n".join(json.dumps(line, ensure_ascii=False) for line in PAIR)
    raw = {"mark": b"\xef\xbb\xbf" + plain.encode(), "utf-16": plain.encode("utf-16"), "windows": plain.replace("\n", "\r\n").encode(),
           "list": json.dumps(PAIR, indent=1).encode()}[encoded]  # fmt: skip
    (tmp_path / "s.jsonl").write_bytes(raw)
    Exchange(db).import_file(tmp_path / "s.jsonl")
    assert Studies(db).result("spring").votes == 1


def test_words_that_only_votes_name_are_the_studys_criteria_and_reasons(db: Database, tmp_path: Path) -> None:
    lines = [{name: value for name, value in PAIR[0].items() if name not in ("criteria", "reasons")}, *PAIR[1:-1]]
    vote = PAIR[-1] | {"criteria": {"tone": {"left": 2, "right": 5}}, "reasons": ["left: too vague", "unsafe"]}
    Exchange(db).import_file(write(tmp_path / "s.jsonl", [*lines, vote]))
    study = Studies(db).study("spring")
    assert (study.criteria, study.reasons) == (("tone",), ("too vague", "unsafe"))


def test_votes_brought_in_from_elsewhere_are_doubted_in_words_but_never_set_aside_unasked(db: Database, tmp_path: Path) -> None:
    """Where no lot drew the sides and nobody watched, a rule of this house must not drop what others published."""
    lines = [*PAIR[:3]]
    for n in range(40):
        lines += [{"type": "prompt", "id": str(n), "instruction": f"Question {n}?"}]
        lines += [{"type": "answer", "prompt": str(n), "arm": arm, "text": f"{arm} {n}"} for arm in ("old", "new")]
        lines += [PAIR[6] | {"prompt": str(n), "seconds": 1}]
    Exchange(db).import_file(write(tmp_path / "s.jsonl", lines))
    studies = Studies(db)
    result, rita = studies.result("spring"), studies.progress("spring").reviewers[0]
    assert (result.votes, result.aside) == (40, ())
    assert result.side is not None
    assert not result.side.drawn
    assert [words.split(" of ")[0] for words in rita.doubts] == ["40"]
    studies.decide_reviewer("spring", "Rita", False, "A script.")
    assert (studies.result("spring").votes, studies.result("spring").aside) == (0, ("Rita",))


def changed(line_at: int, **fields: Any) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [line | fields if number == line_at else line for number, line in enumerate(PAIR)]


def added(*lines: dict[str, Any]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [*PAIR, *lines]


def without(at: int) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [line for number, line in enumerate(PAIR) if number != at]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (changed(6, left="older"), r"Line 7: there is no arm 'older'"),
        (changed(4, arm="older"), r"Line 5: there is no arm 'older'"),
        (changed(6, prompt="p9"), r"Line 7: there is no prompt 'p9'"),
        (added(PAIR[6]), r"Line 8: Rita has a vote on this pair on line 7 already"),
        (added(PAIR[6] | {"left": "new", "right": "old", "choice": "left"}), r"Line 8: Rita has a vote on this pair on line 7 already"),
        (added(PAIR[6] | {"left": "new", "right": "old", "revision": 2}), r"Line 8: the sides differ from those on line 7"),
        (without(5), r"Line 6: this vote is about an answer of new to prompt p1 that is missing"),
        (lambda: PAIR[:4], r"Line 1: this study has no answers"),
        (added(PAIR[5]), r"Line 8: new has an answer to prompt p1 on line 6 already"),
        (without(2), r"Line 1: a study compares at least two arms"),
        (changed(2, name="OLD"), r"Line 3: the arm OLD is on line 2 already"),
        (changed(2, kind="alien"), r"Line 3: there is no kind of arm 'alien'"),
        (added(PAIR[3]), r"Line 8: the prompt p1 is on line 4 already"),
        (changed(3, instruction="  "), r"Line 4: a prompt needs an id, and a text"),
        (changed(6, choice="best"), r"Line 7: the choice is 'best': choose left, right, tie, both_bad"),
        (changed(6, right="old"), r"Line 7: old cannot meet itself"),
        (changed(6, seconds=-1), r"Line 7: seconds is -1"),
        (changed(6, seconds="fast"), r"Line 7: seconds must be a number"),
        (changed(6, revision=0), r"Line 7: the revision is 0"),
        (changed(6, revision=True), r"Line 7: revision must be a whole number"),
        (changed(6, chioce="left"), r"Line 7: vote has no chioce; did you mean choice"),
        (changed(6, criteria={"style": "left"}), r"Line 7: the study line names no criteria or reasons style"),
        (changed(6, reviewer="x" * 301), r"Line 7: a reviewer needs a name"),
        (added(PAIR[6] | {"reviewer": "Tom", "at": 5}), r"Line 7: this vote has no time"),
        (added(PAIR[6] | {"reviewer": "rita"}), r"the reviewer rita is there in another spelling"),
        (changed(5, text="a\0b"), r"Line 6: text contains a character that cannot be stored"),
        (changed(5, text="x" * 1_000_001), r"Line 6: text is longer than 1000000 characters"),
        (changed(6, at="yesterday"), r"Line 7: at must be a number of UTC seconds"),
        (changed(6, at=1e300), r"Line 7: at is 1e\+300: times are UTC seconds"),
        (changed(0, closed_at=-5), r"Line 1: closed_at is -5: times are UTC seconds"),
        (changed(1, decode=json.loads('{"a":' * 900 + "1" + "}" * 900)), r"Line 2: its values are nested too deeply"),
        (changed(5, text=None), r"Line 6: text must be text"),
        (changed(6, guess="maybe"), r"Line 7: the guess is 'maybe'"),
        (changed(6, criteria={"accuracy": {"left": 3}}), r"Line 7: a criterion's mark"),
        (changed(0, scale="stars"), r"Line 1: scale is 'stars'"),
        (changed(0, aside="never"), r"Line 1: aside is 'never'"),
        (changed(0, tuned=["newer"]), r"Line 1: there is no arm 'newer'"),
        (added({"type": "decision", "reviewer": "Tom", "counted": False}), r"Line 8: there is no reviewer 'Tom'"),
        (added({"type": "adjudication", "prompt": "p1", "first": "old", "second": "new", "winner": "me"}), r"Line 8: the winner is 'me'"),
        (changed(1, type="arms"), r"Line 2: its type must be one of study, arm, prompt, answer, vote"),
        (without(0), r"Line 1: the study line comes first"),
        (added(PAIR[0]), r"Line 8: there is a second study line"),
        (changed(0, version=2), r"Line 1: .* is not a “tiebreak study” file of version 1"),
        (changed(0, split="tests"), r"Line 1: The split is 'tests'"),
        (changed(0, against="other"), r"Line 1: the arm to beat, other, has no arm line"),
        (changed(0, rule={"min_votes": 0}), r"Line 1: min_votes is 0"),
        (changed(0, rule={"least": 3}), r"Line 1: Unknown rule setting least"),
        (changed(0, name=" "), r"Line 1: The name must have 1 to 100"),
        (lambda: [], r"is empty"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_in_one_sentence_with_the_line_and_nothing_is_stored(
    db: Database, tmp_path: Path, lines: Callable[[], list[dict[str, Any]]], words: str
) -> None:
    before = [count(db, table) for table in STORED]
    with pytest.raises(BadInput, match=words) as caught:
        Exchange(db).import_file(write(tmp_path / "s.jsonl", lines()))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert [count(db, table) for table in STORED] == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "Line 8: this is not JSON"),
        ("[1]", "Line 8: its type"),
        ('{"type":"vote","seconds":NaN}', "NaN is no number"),
        ("[" * 100_000, "Line 8: this is not JSON"),
    ],
)
def test_a_broken_line_is_named(db: Database, tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path / "s.jsonl", PAIR)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(BadInput, match=words):
        Exchange(db).import_file(path)


def test_a_file_that_is_missing_or_no_text_is_one_sentence(db: Database, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "s.jsonl", tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError):
            Exchange(db).import_file(path)
    with pytest.raises(NotFound, match="no study"):
        Exchange(db).export("ghost")


def test_an_import_that_breaks_half_way_leaves_nothing(db: Database, tmp_path: Path) -> None:
    """The database itself refuses the votes, after prompts, answers and users are in."""
    before = [count(db, table) for table in STORED]
    with db.write() as session:
        session.execute(text("CREATE TRIGGER full BEFORE INSERT ON vote BEGIN SELECT RAISE(ABORT, 'no more'); END"))
    with pytest.raises(Exception, match="no more"):
        Exchange(db).import_file(write(tmp_path / "s.jsonl", PAIR))
    assert [count(db, table) for table in STORED] == before


def test_commands_take_a_study_out_count_it_and_bring_it_in(
    home: Path, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIEBREAK_ENGINE", "scripted")

    def run(*words: str) -> str:
        result = CliRunner().invoke(program(lambda: None), list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    path = str(write(tmp_path / "s.jsonl", PAIR))
    assert json.loads(run("study", "import", path, "--json"))["votes"] == 1
    assert "came in: 1 votes of 1 reviewers" in run("study", "import", path, "--name", "autumn")
    out = tmp_path / "out.jsonl"
    assert str(out) in run("study", "export", "spring", "--out", str(out))
    assert out.stat().st_mode & 0o077 == 0
    assert run("study", "export", "spring") == out.read_text(encoding="utf-8")
    shown = json.loads(run("study", "status", "spring", "--json"))["result"]
    again = json.loads(run("study", "recount", str(out), "--json"))
    assert shown | {"study": None} == again | {"study": None}
    assert json.loads(run("agreement", "--study", "spring", "--json"))["ratings"] == 1
