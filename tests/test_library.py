"""Imports are all or nothing and repeatable; examples come from training prompts alone; a snapshot is its content."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from ft.curate import content_hash
from ft.errors import BadInput, NotFound
from review.services import imports
from review.services.library import Library
from storage.database import Database
from storage.tables import Audit, Example, ImportReject, Prompt, PromptSet
from tests.conftest import ROOT, shared
from tests.judging import VARIANTS, House, cast, count, opened, prefer

QUESTIONS = (
    "How do I connect from a hotel network?", "The installer stops with CP-501 at once", "Can I move my licence to a new laptop?",
    "Why is the light amber since Monday?", "Please send the March invoice again", "My colleague left, remove her account",
    "Does the client run on Debian?", "The phone app asks for a profile", "Two factor codes never arrive", "Where are the logs kept?",
)  # fmt: skip


def rows_of(split: str | None = None, questions: tuple[str, ...] = QUESTIONS) -> list[dict[str, Any]]:
    return [{"instruction": q, "output": f"Answer to: {q}", **({"split": split} if split else {})} for q in questions]


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def library(db: Database) -> Library:
    return Library(db)


def stored(db: Database, table: Any) -> list[Any]:
    with db.session() as session:
        return list(session.exec(select(table).order_by(table.id)))


def test_an_import_stores_prompts_rejects_examples_and_who_did_it(library: Library, db: Database, home: Path) -> None:
    path = write(
        home, [*rows_of("train", QUESTIONS[:6]), "{broken", *rows_of("test", QUESTIONS[6:8]), {"instruction": "Bare?", "split": "train"}]
    )
    report = library.import_file(path, "tickets")
    assert (report.added, report.duplicates, report.examples) == (9, 0, 6)
    assert report.splits == {"train": 7, "validation": 0, "test": 2}
    assert [line for line, _ in report.rejected] == [7]
    assert [(r.line, r.raw) for r in library.rejects("tickets")] == [(7, "{broken")]
    [view] = library.sets()
    assert (view.name, view.source, view.prompts, view.references, view.rejected) == ("tickets", "rows.jsonl", 9, 8, 1)
    assert library.example_counts() == {"draft": 6, "approved": 0, "rejected": 0}
    assert [a.action for a in stored(db, Audit)] == ["prompts imported"]
    assert stored(db, Prompt)[0].content_hash == content_hash(QUESTIONS[0])


def test_the_same_file_again_adds_nothing(library: Library, db: Database, home: Path) -> None:
    path = write(home, [*rows_of(), "{broken", {"instruction": QUESTIONS[0].upper(), "output": "Another answer"}])
    first = library.import_file(path, "tickets", approve=True)
    before = {table: count(db, table) for table in (Prompt, Example, ImportReject, PromptSet)}
    again = library.import_file(path, "tickets", approve=True)
    assert (first.added, first.duplicates, len(first.rejected)) == (10, 0, 2)
    assert (again.added, again.duplicates, again.rejected) == (0, 10, first.rejected)
    assert {table: count(db, table) for table in before} == before


def test_the_same_question_with_another_answer_is_kept_aside_not_lost(library: Library, home: Path) -> None:
    library.import_file(write(home, [{"instruction": "Why?", "output": "Because."}]), "tickets")
    report = library.import_file(write(home, [{"instruction": "WHY? ", "output": "No reason."}, {"instruction": "why?"}]), "tickets")
    assert (report.added, report.duplicates) == (0, 1)
    assert "another answer; the first is kept" in report.rejected[0][1]
    assert "No reason." in library.rejects("tickets")[0].raw


def test_no_test_prompt_ever_becomes_an_example(library: Library, db: Database, home: Path) -> None:
    library.import_file(write(home, rows_of("test")), "tickets", approve=True)
    assert stored(db, Example) == []


def test_an_approved_import_approves_its_examples_and_says_by_whom(library: Library, db: Database, home: Path) -> None:
    library.import_file(write(home, rows_of("train")), "tickets", approve=True)
    assert {(e.state, e.origin, e.decided_at is not None) for e in stored(db, Example)} == {("approved", "imported", True)}


@pytest.mark.hostile
def test_a_later_import_cannot_eat_the_test_set(library: Library, db: Database, home: Path) -> None:
    """T30: exact, case, space, Unicode and near copies of test prompts, named train, from another set."""
    library.import_file(write(home, rows_of("test")), "tickets")
    tricks = (
        [q.upper() for q in QUESTIONS[:3]] + [q.replace(" ", "\u00a0 ") for q in QUESTIONS[3:5]] + [f"Hello, {q}" for q in QUESTIONS[5:]]
    )
    path = write(home, rows_of("train", tuple(tricks)), "more.jsonl")
    report = library.import_file(path, "more", split="train", approve=True)
    assert report.splits == {"train": 0, "validation": 0, "test": 10}
    assert [split for _, split in report.moved] == ["test"] * 10
    assert stored(db, Example) == []
    with pytest.raises(BadInput, match="No example is approved"):
        library.snapshot()


def test_a_cluster_keeps_its_split_in_every_later_import(library: Library, home: Path) -> None:
    library.import_file(write(home, rows_of("validation", QUESTIONS[:1])), "one")
    report = library.import_file(write(home, [{"instruction": f"{QUESTIONS[0]} Thanks!"}]), "two")
    assert report.splits["validation"] == 1
    assert library.prompts("one")[0].cluster == library.prompts("two")[0].cluster


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["{broken", '{"colour": 1}'], "Line 1 is not valid JSON"),
        (['{"colour": 1}'], "has no instruction among 'colour'"),
        ([""], "is empty"),
    ],
)
def test_a_file_without_a_usable_row_changes_nothing(library: Library, db: Database, home: Path, rows: list[str], words: str) -> None:
    with pytest.raises(BadInput) as error:
        library.import_file(write(home, rows), "tickets")
    assert words in str(error.value)
    assert library.sets() == []
    assert count(db, Audit) == 0


def test_a_failure_while_storing_leaves_nothing_half_imported(
    library: Library, db: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr(imports, "audit", fail)
    with pytest.raises(OSError, match="disk gone"):
        library.import_file(write(home, [*rows_of(), "{"]), "tickets")
    assert [count(db, table) for table in (PromptSet, Prompt, ImportReject, Example)] == [0, 0, 0, 0]


def test_an_import_that_another_overtakes_is_placed_anew(
    library: Library, db: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other import makes these questions test prompts after this one has looked and before it stores."""
    first, second = write(home, rows_of("test")), write(home, rows_of(None, tuple(f"{q} Thanks" for q in QUESTIONS)), "b.jsonl")
    plan = imports._Placer.plan
    overtaken = []

    def slow(self: Any) -> Any:
        made = plan(self)
        if not overtaken:
            overtaken.append(True)
            library.import_file(first, "first")
        return made

    monkeypatch.setattr(imports._Placer, "plan", slow)
    report = library.import_file(second, "second", split="train", approve=True)
    assert report.splits == {"train": 0, "validation": 0, "test": 10}


def test_limits_are_named_and_nothing_comes_in(library: Library, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home, rows_of())
    for name, words in (("MAX_ROWS", "split the file"), ("MAX_BYTES", "split the file"), ("MAX_REJECTS", "right file")):
        with monkeypatch.context() as patch:
            patch.setattr(imports, name, 3)
            target = write(home, ["{"] * 9 + rows_of(), "bad.jsonl") if name == "MAX_REJECTS" else path
            with pytest.raises(BadInput, match=words):
                library.import_file(target, "tickets")
    assert library.sets() == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\0b"])
def test_a_set_needs_a_proper_name(library: Library, home: Path, name: str) -> None:
    with pytest.raises(BadInput, match="needs a name"):
        library.import_file(write(home, rows_of()), name)


def test_unknown_splits_sets_and_states_are_refused_in_words(library: Library, home: Path) -> None:
    with pytest.raises(BadInput, match="no split 'holdout'"):
        library.import_file(write(home, rows_of()), "tickets", split="holdout")
    for act in (library.prompts, library.rejects, library.prompt_count):
        with pytest.raises(NotFound, match="no prompt set"):
            act("nothing")
    with pytest.raises(BadInput, match="no state 'maybe'"):
        library.decide([1], "maybe")
    with pytest.raises(BadInput, match="no origin"):
        library.examples(origin="guess")
    with pytest.raises(NotFound, match="no snapshot 9"):
        library.snapshot_rows(9)
    with pytest.raises(NotFound, match="no study"):
        library.gather("nothing")


def test_personal_data_is_counted_by_line_and_only_masked_when_asked(library: Library, home: Path) -> None:
    path = write(home, [{"instruction": "Call me at +49 30 901820", "output": "Write to a@b.io"}, {"instruction": "Nothing here"}])
    report = library.import_file(path, "open")
    assert report.findings == {"phone": 1, "email": 1}
    assert report.finding_lines == {"phone": (1,), "email": (1,)}
    assert "Names, street addresses" in report.note
    assert library.prompts("open")[0].instruction == "Call me at +49 30 901820"
    library.import_file(path, "masked", mask=True)
    masked = library.prompts("masked")[0]
    assert (masked.instruction, masked.reference) == ("Call me at [phone]", "Write to [email]")


def test_prompts_are_found_by_word_split_and_page(library: Library, home: Path) -> None:
    library.import_file(
        write(home, [*rows_of("train"), {"instruction": "100% sure?", "split": "test"}, {"instruction": "a_b", "split": "test"}]), "t"
    )
    assert [p.instruction for p in library.prompts("t", query="CP-501")] == [QUESTIONS[1]]
    assert [p.instruction for p in library.prompts("t", query="%")] == ["100% sure?"]
    assert [p.instruction for p in library.prompts("t", query="_")] == ["a_b"]
    assert [p.instruction for p in library.prompts("t", "train", offset=8, limit=50)] == list(QUESTIONS[8:])
    assert library.prompt_count("t", "test") == 2
    assert library.prompts("t", offset=-5, limit=10**30)[0].instruction == QUESTIONS[0]
    assert library.prompts("t", query="'; DROP TABLE prompt; --") == []


def test_deciding_counts_what_changed_and_survives_many_ids(library: Library, home: Path) -> None:
    library.import_file(write(home, rows_of("train")), "t")
    ids = [e.id for e in library.examples("draft")]
    assert library.decide(ids[:4], "approved") == 4
    assert library.decide(range(100_000), "approved") == 6
    assert library.decide(ids, "approved") == 0
    assert library.decide(ids[:1], "rejected") == 1
    assert library.example_counts() == {"draft": 0, "approved": 9, "rejected": 1}


def test_progress_ends_at_the_end(library: Library, home: Path) -> None:
    seen: list[tuple[int, int]] = []
    library.import_file(write(home, rows_of()), "t", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)


def test_the_same_content_is_the_same_snapshot_wherever_it_came_from(library: Library, home: Path, tmp_path: Path) -> None:
    library.import_file(write(home, rows_of("train")), "t", approve=True)
    first = library.snapshot()
    assert library.snapshot() == first
    assert (first.train, first.validation) == (10, 0)
    library.decide([library.examples("approved")[0].id], "rejected")
    smaller = library.snapshot()
    assert (smaller.train, smaller.hash != first.hash) == (9, True)
    assert [s.id for s in library.snapshots()] == [smaller.id, first.id]
    other = Library(fresh(tmp_path))
    other.import_file(write(home, rows_of("train")[::-1]), "other name", approve=True)
    assert other.snapshot().hash == first.hash
    assert other.snapshot_rows(1) == library.snapshot_rows(first.id)


def fresh(folder: Path) -> Database:
    made = Database(f"sqlite:///{folder / 'other.db'}")
    made.migrate()
    return made


def test_a_snapshot_gives_both_splits_and_can_be_of_chosen_examples(library: Library, home: Path) -> None:
    library.import_file(write(home, [*rows_of("train", QUESTIONS[:5]), *rows_of("validation", QUESTIONS[5:7])]), "t", approve=True)
    train, validation = library.snapshot_rows(library.snapshot().id)
    assert (len(train), len(validation)) == (5, 2)
    assert set(train[0]) == {"instruction", "input", "output"}
    chosen = library.snapshot(ids=[1, 2])
    assert (chosen.train, chosen.validation) == (2, 0)
    library.decide([1], "draft")
    with pytest.raises(BadInput, match="1 of the chosen examples are not approved"):
        library.snapshot(ids=[1, 2])


def test_a_snapshot_can_be_of_chosen_prompt_sets(library: Library, home: Path) -> None:
    library.import_file(write(home, rows_of("train", QUESTIONS[:5])), "old", approve=True)
    library.import_file(write(home, rows_of("train", QUESTIONS[5:7])), "new", approve=True)
    library.import_file(write(home, rows_of("train", QUESTIONS[7:])), "drafts")
    assert [library.snapshot(sets=names).train for names in ((), ["new"], ["new", "old"], ["new", "drafts"])] == [7, 2, 7, 2]
    with pytest.raises(BadInput, match="No example of drafts is approved"):
        library.snapshot(sets=["drafts"])


@pytest.mark.hostile
def test_a_snapshot_leaves_out_what_is_too_close_to_a_test_prompt(library: Library, db: Database, home: Path) -> None:
    """Rows that slipped past the import (here: written by SQL) are still not trained on."""
    library.import_file(write(home, [*rows_of("train", QUESTIONS[:3]), *rows_of("test", QUESTIONS[3:])]), "t", approve=True)
    tests = [p for p in stored(db, Prompt) if p.split == "test"]
    for at, (text, cluster) in enumerate(
        [(f"Hi! {tests[0].instruction}", "unknown"), ("Quite another question, honestly", tests[1].cluster)]
    ):
        smuggle(db, tests[0].set_id, text, cluster, at)
    view = library.snapshot()
    assert (view.train, view.too_close) == (3, 2)
    assert len(library.snapshot_rows(view.id)[0]) == 3


def smuggle(db: Database, set_id: int, text: str, cluster: str, at: int) -> None:
    with db.write() as session:
        prompt = Prompt(set_id=set_id, split="train", instruction=text, content_hash=f"smuggled {at}", cluster=cluster)
        session.add(prompt)
        session.flush()
        session.add(Example(prompt_id=prompt.id, instruction=text, output="x", origin="imported", origin_id=f"x{at}", state="approved"))


def train_study(db: Database, prompts: int = 6, **declared: Any) -> House:
    """An open study on prompts of the train split."""
    return opened(db, prompts=prompts, split="train", **declared)


def test_corrections_and_winners_of_training_prompts_become_drafts(db: Database) -> None:
    house, library = train_study(db), Library(db)
    first = cast(house, 0, lambda found: prefer(found, VARIANTS[1]))
    house.comparisons.correct(house.reviewers[0], first.assignment, "The ideal answer.", "c1")
    house.comparisons.correct(house.reviewers[0], first.assignment, "The better ideal answer.", "c2")
    for _ in range(3):
        cast(house, 0, lambda found: prefer(found, VARIANTS[1]))
    cast(house, 0, "tie")
    cast(house, 0, "both_bad")
    report = library.gather("winter")
    assert (report.corrections, report.winners, report.already_there, report.refused_test) == (1, 3, 0, 0)
    drafts = library.examples("draft")
    assert [d.output for d in drafts if d.origin == "correction"] == ["The better ideal answer."]
    assert all(VARIANTS[1] in d.output for d in drafts if d.origin == "winner")
    assert {d.split for d in drafts} == {"train"}
    again = library.gather("winter")
    assert (again.corrections, again.winners, again.already_there) == (0, 0, 4)


def test_a_newer_correction_replaces_the_draft_of_the_older(db: Database) -> None:
    house, library = train_study(db), Library(db)
    found = cast(house, 0)
    house.comparisons.correct(house.reviewers[0], found.assignment, "First try.", "c1")
    library.gather("winter")
    house.clock.time += 60
    house.comparisons.correct(house.reviewers[0], found.assignment, "Second try.", "c2")
    library.gather("winter")
    assert [(e.output, e.state) for e in library.examples(origin="correction")] == [("First try.", "rejected"), ("Second try.", "draft")]


def test_an_answer_that_lost_as_often_as_it_won_is_no_winner(db: Database) -> None:
    house, library = train_study(db, prompts=1, votes_per_pair=2), Library(db)
    cast(house, 0, lambda found: prefer(found, VARIANTS[0]))
    cast(house, 1, lambda found: prefer(found, VARIANTS[1]))
    assert library.gather("winter").winners == 0


@pytest.mark.hostile
def test_votes_and_corrections_on_test_prompts_are_refused_and_counted(db: Database) -> None:
    house, library = opened(db), Library(db)
    found = cast(house, 0, "left")
    house.comparisons.correct(house.reviewers[0], found.assignment, "The ideal answer.", "c1")
    cast(house, 0, "right")
    report = library.gather("winter")
    assert (report.corrections, report.winners, report.refused_test) == (0, 0, 2)
    assert "can no longer be tested" in report.reason
    assert stored(db, Example) == []


def test_a_voided_answer_does_not_win(db: Database) -> None:
    house, library = train_study(db, prompts=1), Library(db)
    cast(house, 0, lambda found: prefer(found, VARIANTS[1]))
    with sqlite3.connect(db.path) as raw:
        raw.execute("UPDATE answer SET voided_at = 1, void_reason = 'test'")
    assert library.gather("winter").winners == 0


def told() -> list[tuple[str, int, int, tuple[int, ...]]]:
    """(file, prompts in, rows kept aside, splits) as docs/data.md tells of the files by others."""
    line = re.compile(r"^\| `([^`]+)`.*\| ([\d,]+) of [\d,]+ \| (\d+|none)\b.*\| ([\d,]+ / [\d,]+ / [\d,]+) \|$", re.MULTILINE)
    found = line.findall((ROOT / "docs" / "data.md").read_text())
    return [(name, number(count), number(aside), tuple(map(number, splits.split("/")))) for name, count, aside, splits in found]


def number(words: str) -> int:
    return 0 if words == "none" else int(words.replace(",", ""))


@pytest.mark.parametrize(("name", "added", "kept_aside", "splits"), told())
def test_files_by_others_come_in_as_the_documents_say(
    library: Library, name: str, added: int, kept_aside: int, splits: tuple[int, ...]
) -> None:
    [path] = shared(".").rglob(name)
    report = library.import_file(path, "theirs", approve=True)
    assert (report.added, len(report.rejected), tuple(report.splits.values())) == (added, kept_aside, splits)
    if report.examples:
        view = library.snapshot()
        assert view.too_close == 0
        assert view.train + view.validation + view.repeated == report.examples


def test_the_documents_tell_of_all_the_files() -> None:
    assert len(told()) == 8


@pytest.mark.hostile
@pytest.mark.parametrize(
    "text", ["\u202eevil", "👩‍👩‍👧", "{{user}} {%x%}", "<|im_start|>system", "a" * 400_000, "=cmd|'/c calc'!A0", "\x1b[31m", "\u2028x"]
)
def test_strange_texts_are_stored_exactly(library: Library, home: Path, text: str) -> None:
    library.import_file(write(home, [{"instruction": text, "output": text, "split": "train"}]), "t", approve=True)
    assert library.prompts("t")[0].instruction == text
    assert library.snapshot_rows(library.snapshot().id)[0][0]["output"] == text
