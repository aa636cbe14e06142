"""The ConnectPro demo: its split, its record, and how it comes into a new house."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from demo import connectpro, load
from demo.make import ADAPTER, SPEC, measure
from ft import curate, metrics
from ft.adapters import fingerprint, vet
from ft.bases import describe_base
from ft.scripted import ScriptedEngine
from ft.specs import DecodeSpec, TrainSpec
from review.services.house import House, build
from review.settings import Settings

DEMO = Path(connectpro.__file__).parent
TICKETS = connectpro.read()
SPLIT = connectpro.splits()


def of(split: str) -> list[connectpro.Ticket]:
    return [ticket for ticket in TICKETS if ticket.id in set(SPLIT[split])]


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEMO / "record.json").read_text())
    return found


def test_there_are_at_least_300_tickets_in_eight_categories() -> None:
    assert len(TICKETS) >= 300
    assert len({ticket.id for ticket in TICKETS}) == len(TICKETS)
    assert len({ticket.category for ticket in TICKETS}) >= 8
    assert all(ticket.instruction.strip() and ticket.output.strip() and ticket.tags is not None for ticket in TICKETS)


def test_every_ticket_is_in_one_split_and_60_are_for_the_test() -> None:
    ids = [ticket_id for chosen in SPLIT.values() for ticket_id in chosen]
    assert sorted(ids) == sorted(ticket.id for ticket in TICKETS)
    assert len(SPLIT["test"]) == 60
    assert len(SPLIT["validation"]) == 30
    counts = Counter(ticket.category for ticket in of("test"))
    assert set(counts) == {ticket.category for ticket in TICKETS}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_split_is_the_one_that_the_tickets_give() -> None:
    assert connectpro.divide(TICKETS) == SPLIT


def test_no_near_duplicate_cluster_is_in_two_splits() -> None:
    home = {ticket_id: name for name, ids in SPLIT.items() for ticket_id in ids}
    for cluster in connectpro.clusters(TICKETS):
        assert len({home[ticket.id] for ticket in cluster}) == 1, [ticket.id for ticket in cluster]
    placed = curate.place([curate.New(curate.whole(t.instruction, t.input), t.id, home[t.id]) for t in TICKETS])
    assert [ticket.id for ticket, place in zip(TICKETS, placed, strict=True) if place.moved] == []
    by_cluster = {(place.cluster, place.split) for place in placed}
    assert len(by_cluster) == len({place.cluster for place in placed})


def test_near_duplicates_are_there_to_be_kept_together() -> None:
    """Positive control: some tickets do ask nearly the same, and a draw blind to that would part them."""
    pairs = [cluster for cluster in connectpro.clusters(TICKETS) if len(cluster) > 1]
    assert len(pairs) >= 10
    first, second = pairs[0][:2]
    assert first.instruction != second.instruction


def test_no_answer_of_the_test_is_learned_word_for_word() -> None:
    learned = {curate.normal(ticket.output) for ticket in [*of("train"), *of("validation")]}
    assert [ticket.id for ticket in of("test") if curate.normal(ticket.output) in learned] == []


def test_the_adapter_is_small_and_passes_the_vet() -> None:
    verdict = vet(DEMO / "adapter")
    assert verdict.ok, verdict.reasons
    assert verdict.adapter is not None
    assert verdict.adapter.bytes < 6_000_000
    assert verdict.adapter.content_hash == record()["adapter_hash"]
    assert sorted(path.name for path in (DEMO / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.real
def test_the_adapter_fits_the_embedded_base(base_folder: Path) -> None:
    shape = describe_base(base_folder)
    assert vet(DEMO / "adapter", shape).ok
    assert record()["base_hash"] == shape.base_hash


def test_nothing_in_the_demo_names_a_machine_s_path() -> None:
    for path in (DEMO / "record.json", DEMO / "adapter" / "adapter_config.json", DEMO / "answers.jsonl", DEMO / "split.json"):
        text = path.read_text()
        assert not {"/root", "/home", "/tmp", "/work", "/Users"} & {part for part in text.replace('"', " ").split() if part.startswith("/")}
        assert "/work" not in text


def test_the_record_is_of_a_run_on_these_tickets_with_these_settings() -> None:
    found = record()
    assert TrainSpec.from_dict(found["spec"]) == SPEC
    assert found["rows"] == {"train": len(SPLIT["train"]), "validation": len(SPLIT["validation"]), "left_out": 0, "held_out": False}
    assert found["data_hash"] == data_hash()
    assert found["validation_loss"] < found["validation_loss_before"]


def data_hash() -> str:
    from ft.runs import hash_of

    return hash_of([t.row() for t in of("train")], [t.row() for t in of("validation")])


def texts() -> dict[tuple[str, str], str]:
    return {(row["arm"], row["id"]): row["text"] for row in load.answers()}


def test_every_test_ticket_has_both_answers_with_their_provenance() -> None:
    rows = load.answers()
    assert sorted((row["arm"], row["id"]) for row in rows) == sorted((arm, i) for arm in ("base", ADAPTER) for i in SPLIT["test"])
    hashes = {ticket.id: curate.content_hash(ticket.instruction, ticket.input) for ticket in TICKETS}
    found = record()
    for row in rows:
        assert row["prompt_hash"] == hashes[row["id"]]
        assert row["adapter_hash"] == ("" if row["arm"] == "base" else fingerprint(DEMO / "adapter"))
        assert row["base_hash"].partition(":")[0] == found["base_hash"]
        assert row["template_hash"] == found["template_hash"]
        assert row["decode_hash"] == DecodeSpec.from_dict(row["decode"]).hash
        assert row["text"]


def test_the_record_s_measures_are_those_of_the_stored_answers() -> None:
    measured = measure(of("test"), texts())
    stored = record()["measured"]
    for metric in metrics.available():
        for key in ("base", "adapter", "difference", "low", "high"):
            assert measured[metric][key] == pytest.approx(stored[metric][key], abs=1e-9), (metric, key)


@pytest.mark.parametrize("metric", ["rougeL", "meteor"])
def test_the_adapter_beats_the_base_with_intervals_clear_of_zero(metric: str) -> None:
    row = record()["measured"][metric]
    assert row["n"] == 60
    assert 0 < row["low"] < row["difference"] < row["high"]


def test_the_lead_is_gone_when_the_arms_are_the_same() -> None:
    """Positive control: base against base has no lead."""
    same = {(arm, i): texts()["base", i] for arm in ("base", ADAPTER) for i in SPLIT["test"]}
    assert measure(of("test"), same)["rougeL"]["low"] == 0


@pytest.fixture
def house(home: Path, db: Any) -> House:
    return build(Settings(home=home), db, ScriptedEngine())


def contents(house: House) -> dict[str, Any]:
    return {
        "people": sorted((person.name, person.role) for person in house.people.users()),
        "splits": {view.name: view.splits for view in house.library.sets()},
        "examples": house.library.example_counts(),
        "arms": sorted(arm.name for arm in house.answers.arms()),
        "adapters": [(view.name, view.wanted, view.in_use) for view in house.adapters.adapters()],
        "studies": [(study.name, study.state, study.votes_per_pair, study.arms) for study in house.studies.studies()],
        "answers": {row.arm: (row.answers, row.stale) for row in house.boards.board(connectpro.NAME).rows},
    }


def test_a_new_house_gets_the_whole_demo(house: House) -> None:
    assert load.load(house)
    found = contents(house)
    assert found["people"] == [("Enzo", "engineer"), ("Rita", "reviewer"), ("Vera", "viewer")]
    assert found["splits"] == {"connectpro": {name: len(ids) for name, ids in SPLIT.items()}}
    assert found["examples"]["approved"] == len(SPLIT["train"]) + len(SPLIT["validation"])
    assert found["arms"] == ["base", "connectpro-v1", "human"]
    assert found["adapters"] == [("connectpro-v1", True, True)]
    assert [study[:3] for study in found["studies"]] == [(load.STUDY, "open", 2)]
    assert found["answers"] == {arm: (60, False) for arm in ("base", "connectpro-v1", "human")}


def test_the_stored_splits_are_the_declared_ones(house: House) -> None:
    load.load(house)
    for name, ids in SPLIT.items():
        stored = {view.instruction for view in house.library.prompts(connectpro.NAME, split=name, limit=1000)}
        assert stored == {ticket.instruction for ticket in TICKETS if ticket.id in set(ids)}


def test_the_board_shows_the_record_s_lead(house: House) -> None:
    load.load(house)
    row = house.boards.board(connectpro.NAME).row(ADAPTER)
    assert row is not None
    for metric, stored in record()["measured"].items():
        if metric in row.versus_base:
            shown = row.versus_base[metric]
            assert (shown.value, shown.low, shown.high) == pytest.approx((stored["difference"], stored["low"], stored["high"]))


def test_the_first_reviewer_waits_for_nothing(house: House) -> None:
    load.load(house)
    rita = house.people.user("Rita")
    pair = house.comparisons.next_pair(rita.id)
    assert getattr(pair, "left", "")
    assert getattr(pair, "right", "")


def test_the_stored_answers_are_those_of_the_arms_settings(house: House) -> None:
    from storage.queries import arms as queries

    load.load(house)
    decode = {DecodeSpec.from_dict(arm.decode).hash for arm, _ in _arms(house) if arm.kind in ("base", "adapter")}
    assert decode == {row["decode_hash"] for row in load.answers()}
    with house.db.session() as session:
        contents_of = {adapter.content_hash for adapter in queries.adapters(session)}
    assert contents_of == {row["adapter_hash"] for row in load.answers()} - {""}


def _arms(house: House) -> list[Any]:
    from storage.queries import arms as queries

    with house.db.session() as session:
        return queries.arms(session)


def test_loading_twice_changes_nothing_and_undoes_nothing(house: House) -> None:
    load.load(house)
    house.studies.close(load.STUDY)
    house.adapters.use(None, None)
    house.adapters.remove(ADAPTER, None)
    before = contents(house)
    assert not load.load(house)
    assert contents(house) == before


STEPS = ["add_people", "add_tickets", "add_adapter", "add_answers", "add_study"]


@pytest.mark.parametrize(("step", "when"), list(itertools.product(STEPS, ["before", "after"])))
def test_a_load_that_was_cut_off_goes_on(house: House, step: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(load, step)

    def cut(house: House) -> None:
        if when == "after":
            right(house)
        raise KeyboardInterrupt

    monkeypatch.setattr(load, step, cut)
    with pytest.raises(KeyboardInterrupt):
        load.load(house)
    monkeypatch.setattr(load, step, right)
    assert load.load(house)
    found = contents(house)
    assert len(found["people"]) == 3
    assert found["answers"] == {arm: (60, False) for arm in ("base", "connectpro-v1", "human")}
    assert [study[:2] for study in found["studies"]] == [(load.STUDY, "open")]


def test_on_another_base_only_people_and_tickets_come(home: Path, db: Any) -> None:
    other = build(Settings(home=home, base="somebody/model"), db, ScriptedEngine())
    assert load.load(other)
    assert [view.name for view in other.library.sets()] == ["connectpro"]
    assert other.adapters.adapters() == []
    assert other.studies.studies() == []


def test_the_demo_loads_without_torch_in_seconds(home: Path) -> None:
    """Processor time, so that what else runs on the machine does not count."""
    code = (
        "import sys, time; from demo.load import load; from review.services.house import open_house; from review.settings import Settings\n"
        "with open_house(Settings.from_env()) as house:\n"
        "    began = time.process_time(); load(house); print(time.process_time() - began)\n"
        "assert not {'torch', 'transformers', 'peft', 'trl'} & set(sys.modules), 'torch came along'"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 3


def test_a_test_ticket_never_becomes_an_example(house: House) -> None:
    load.load(house)
    test = {ticket.instruction for ticket in of("test")}
    assert not test & {view.instruction for view in house.library.examples(limit=1000)}
