"""Model cards: what Hugging Face's own reader accepts, with the data, the settings and the scores, and no way to smuggle markup in."""

import json
from pathlib import Path

import pytest

from ft.cards import CardFacts, CardScore, card
from ft.errors import NotFound
from review.services.boards import Boards
from review.services.cards import Cards
from review.services.keeping import Keeping
from storage.database import Database
from storage.tables import Adapter, Arm, Example, Preference, Prompt, PromptSet, Run, Snapshot, SnapshotExample, User

SPEC = {"name": "gates", "objective": "dpo", "quantisation": "4bit", "learning_rate": 2e-4, "seed": 7, "lora": {"rank": 16, "alpha": 32}}
RECORD = {"base": "maker/model-8B", "base_hash": "abc", "targets": ["q_proj"], "steps": 12, "best_step": 10, "validation_loss": 1.25,
          "validation_loss_before": 2.5, "seconds": 240, "rows": {"left_out": 2}, "versions": {"peft": "0.19"}}  # fmt: skip


def facts(**changes: object) -> CardFacts:
    given = dict(
        name="gates-v1", base="maker/model-8B", run_id="r1", spec=SPEC, record=RECORD, snapshot_hash="f" * 64, train=200, validation=20
    )
    return CardFacts(**given | changes)  # type: ignore[arg-type]


def test_hugging_face_reads_the_card() -> None:
    from huggingface_hub import ModelCard

    read = ModelCard(card(facts()))
    assert read.data.base_model == "maker/model-8B"
    assert read.data.library_name == "peft"
    assert "dpo" in read.data.tags
    assert "QLoRA (nf4)" in read.text
    assert "2.5 before, 1.25 kept" in read.text


def test_scores_come_with_intervals_and_what_got_worse() -> None:
    score = CardScore("tickets", "ROUGE-L", 0.36, 0.33, 0.39, 60, (0.3, 0.27, 0.33))
    told = card(facts(scores=(score,), worse=("arithmetic: 2 of 6",)))
    assert "| tickets | ROUGE-L | 0.36 (0.33 to 0.39) | +0.3 (0.27 to 0.33) | 60 |" in told
    assert "- arithmetic: 2 of 6" in told


@pytest.mark.parametrize(("base", "name"), [
    ("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("/home/ann/models/llama-8b", "llama-8b"), ("./models/x.gguf", "x.gguf"),
    ("maker/model-8B", "maker/model-8B"),
])  # fmt: skip
def test_the_base_goes_by_the_name_that_others_know(base: str, name: str) -> None:
    told = card(facts(base=base))
    assert f'base_model: "{name}"' in told
    assert f'from_pretrained("{name}")' in told
    assert "/home" not in told
    assert ("4-bit GGUF" in told) == (base == "embedded")


def test_names_cannot_bring_markup_or_yaml_along() -> None:
    from huggingface_hub import ModelCard

    evil = '<script>x</script> | "\nlicense: mit\n---'
    read = ModelCard(card(facts(name=evil, base=evil, categories={evil: 3})))
    assert "<script>" not in read.text.split("```")[0] + read.text.split("```")[-1]
    assert read.data.to_dict().get("license") is None


def made(db: Database, home: Path, objective: str = "sft") -> Path:
    """A finished run with its adapter; its directory."""
    folder = home / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(RECORD))
    weights = home / "adapters" / "abc"
    weights.mkdir(parents=True)
    weights.chmod(0o500)
    with db.write() as session:
        session.add_all([User(id=1, name="Enzo", role="engineer"), PromptSet(id=1, name="tickets"), Snapshot(id=1, content_hash="s" * 64)])
        session.flush()
        session.add(Prompt(id=1, set_id=1, split="train", instruction="q", category="refunds", content_hash="1"))
        session.flush()
        session.add(Example(id=1, prompt_id=1, instruction="write to ann@example.com", output="a", origin="correction", origin_id="1",
                            state="approved", decided_by=1))  # fmt: skip
        session.flush()
        session.add(SnapshotExample(snapshot_id=1, example_id=1))
        judged = [Preference(snapshot_id=1, seq=at, kind="single", prompt_id=1, chosen=f"mail a{at}@example.com") for at in range(3)]
        session.add_all(judged)
        session.flush()
        session.add(Run(id="r1", snapshot_id=1, spec={**SPEC, "objective": objective}, folder=str(folder), status="finished",
                        ended_at=1.7e9))  # fmt: skip
        session.flush()
        adapter = Adapter(name="gates-v1", folder="abc", content_hash="abc", rank=16, alpha=32, bytes=1, run_id="r1")
        session.add_all([adapter, Adapter(name="foreign", folder="x", content_hash="x", rank=8, alpha=8, bytes=1)])
        session.flush()
        session.add_all([Arm(name="base", kind="base", settings_hash="b"),
                         Arm(name="gates-v1", kind="adapter", adapter_id=adapter.id, settings_hash="g")])  # fmt: skip
    return folder


def test_a_card_is_gathered_from_the_run_and_written_beside_the_weights(db: Database, home: Path) -> None:
    folder, weights = made(db, home), home / "adapters" / "abc"
    cards = Cards(db, home, Boards(db), Keeping(db))
    told = cards.write("gates-v1").read_text()
    for words in ("Subjects: refunds 1", "Approved by: Enzo 1", "correction 1", "email 1", "too long: 2", "14 November 2023"):
        assert words in told, words
    assert weights.stat().st_mode & 0o777 == 0o500
    cards.write("gates-v1")
    with pytest.raises(NotFound, match="not trained here"):
        cards.text("foreign")
    (folder / "record.json").unlink()
    told = cards.text("gates-v1")
    assert "The record of the run is lost" in told
    assert "kept: None" not in told
    (folder / "record.json").write_text("[1]")
    assert "a base that is not known any more" in cards.text("gates-v1")


def test_a_card_tells_revision_curve_leakage_energy_and_the_whole_spec(db: Database, home: Path) -> None:
    more = {
        "base_revision": "0a1b2c",
        "validation_curve": [[0, 2.5], [10, 1.25]],
        "energy_kwh": 0.25,
        "rows": {"train": 9, "validation": 3},
    }
    (made(db, home) / "record.json").write_text(json.dumps(RECORD | more))
    told = Cards(db, home, Boards(db), Keeping(db)).text("gates-v1")
    for words in (
        "| Base revision | 0a1b2c |", "| 10 | 1.25 |", "| Energy | 0.25 kWh |", "9 training and 3 validation examples",
        "On the day this was written 0 approved ones were", '"learning_rate": 0.0002',
    ):  # fmt: skip
        assert words in told, words


def test_the_card_of_a_run_on_votes_counts_the_votes(db: Database, home: Path) -> None:
    made(db, home, "kto")
    told = Cards(db, home, Boards(db), Keeping(db)).text("gates-v1")
    for words in ("3 training and 0 validation judged answers", "Where the answers come from: votes 3", "email 3"):
        assert words in told, words
    assert "Approved by" not in told


@pytest.mark.parametrize(("form", "library", "words"), [
    ("adapter", "peft", "PeftModel.from_pretrained"), ("merged", "transformers", "merged with a QLoRA"), ("gguf", None, "llama-server"),
])  # fmt: skip
def test_each_form_of_an_export_tells_how_it_is_used(form: str, library: str | None, words: str) -> None:
    from huggingface_hub import ModelCard

    read = ModelCard(card(facts(), form))
    assert read.data.to_dict().get("library_name") == library
    assert words in read.text
    assert ("PeftModel" in read.text) == (form == "adapter")
