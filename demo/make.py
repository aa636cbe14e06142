"""`python -m demo.make`: make the demo's split, adapter, answers and record again, with the project's own trainer, engine and metrics.

Takes about twenty minutes on two cores; a run that is already finished with the same tickets and settings is not trained again. Must not
know the database or the screens.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo.connectpro import FOLDER, NAME, SPLITS, Ticket, divide, read
from ft import metrics, runs
from ft.adapters import fingerprint
from ft.curate import content_hash
from ft.engine import BASE, Done, Engine, Failed, Request
from ft.errors import UserError
from ft.journal import TERMINAL, write_whole
from ft.models import EMBEDDED
from ft.specs import DecodeSpec, LoraSpec, TrainSpec, digest
from ft.template import messages_for

ADAPTER = f"{NAME}-v1"
SPEC = TrainSpec(
    name=ADAPTER, lora=LoraSpec(rank=8, alpha=16), learning_rate=5e-4, epochs=4, batch_size=4, accumulation=2, evaluations=8, patience=3
)
DECODE = DecodeSpec()  # as the app's arms answer
AT_ONCE = 8  # prompts a batch, each answered by both arms


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.make", description="Make the demo's adapter, answers and record again.")
    parser.add_argument("--base", default=EMBEDDED, help="the base model: embedded, a folder or a hub id")
    parser.add_argument("--work", type=Path, default=FOLDER.parent / ".cache", help="where the base and the run are kept")
    parser.add_argument("--split-only", action="store_true", help="write split.json and stop")
    given = parser.parse_args()
    try:
        tickets = read()
        ids = divide(tickets)
        write_whole(SPLITS, ids)
        if not given.split_only:
            make(tickets, ids, runs.BaseChoice(given.base, str(given.work)), given.work)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(tickets: Sequence[Ticket], ids: dict[str, list[str]], base: runs.BaseChoice, work: Path) -> None:
    split = {name: [ticket for ticket in tickets if ticket.id in set(chosen)] for name, chosen in ids.items()}
    folder = train(split, base, work / "runs")
    shutil.rmtree(FOLDER / "adapter", ignore_errors=True)
    shutil.copytree(folder / "adapter", FOLDER / "adapter")
    answers = answer(split["test"], base)
    lines = [json.dumps(answers[arm, ticket.id], ensure_ascii=False) for arm in ("base", ADAPTER) for ticket in split["test"]]
    (FOLDER / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = json.loads((folder / "record.json").read_text())
    record["adapter_hash"] = fingerprint(FOLDER / "adapter")
    record["measured"] = measure(split["test"], {key: row["text"] for key, row in answers.items()})
    write_whole(FOLDER / "record.json", record)
    for metric, row in record["measured"].items():
        lead = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        print(f"{metric:8} base {row['base']:.3f}  {ADAPTER} {row['adapter']:.3f}  difference {lead}")


def train(split: dict[str, list[Ticket]], base: runs.BaseChoice, root: Path) -> Path:
    """The directory of a finished run on exactly these rows and settings. Raises UserError when it fails."""
    root.mkdir(parents=True, exist_ok=True)
    rows = {name: [ticket.row() for ticket in split[name]] for name in ("train", "validation")}
    folder = root / f"{ADAPTER}-{digest([SPEC.to_dict(), base.model, rows])}"
    if folder.exists() and runs.state(folder).status != "finished":
        shutil.rmtree(folder)
    if not folder.exists():
        runs.create(root, folder.name, SPEC, rows["train"], rows["validation"], base)
        runs.start(folder)
    while (state := runs.state(folder)).status not in TERMINAL:
        print(
            f"\rstep {state.step} of {state.steps or '?'}, about {round((state.seconds_left or 0) / 60)} minutes left ", end="", flush=True
        )
        time.sleep(2)
    print(f"\n{state.message}")
    if state.status != "finished":
        raise UserError(f"{state.message} The log is in {folder / 'log.txt'}.")
    return folder


def answer(tickets: Sequence[Ticket], base: runs.BaseChoice) -> dict[tuple[str, str], dict[str, Any]]:
    """Each ticket answered by both arms in mixed batches, with everything needed to do it again."""
    from ft.engine_local import LocalEngine

    engine = LocalEngine(base.model, Path(base.bases))
    try:
        engine.wait_ready()
        engine.load(ADAPTER, FOLDER / "adapter")
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for at in range(0, len(tickets), AT_ONCE):
            found |= answer_batch(engine, tickets[at : at + AT_ONCE])
            print(f"\r{min(at + AT_ONCE, len(tickets))} of {len(tickets)} test tickets answered ", end="", flush=True)
        print()
    finally:
        engine.close()
    return found


def answer_batch(engine: Engine, tickets: Sequence[Ticket]) -> dict[tuple[str, str], dict[str, Any]]:
    by_id = {ticket.id: ticket for ticket in tickets}
    identity, loaded = engine.identity(), engine.adapters()
    requests = [
        Request(f"{arm}:{ticket.id}", messages_for(ticket.instruction, ticket.input), adapter, DECODE)
        for ticket in tickets
        for arm, adapter in (("base", BASE), (ADAPTER, ADAPTER))
    ]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in engine.generate(requests):
        if isinstance(event, Failed):
            raise UserError(f"{event.request_id} could not be answered: {event.error}")
        if isinstance(event, Done):
            arm, ticket_id = event.request_id.split(":")
            ticket = by_id[ticket_id]
            found[arm, ticket_id] = {
                "id": ticket_id, "arm": arm, "prompt_hash": content_hash(ticket.instruction, ticket.input), "text": event.text.strip(),
                "prompt_tokens": event.prompt_tokens, "new_tokens": event.new_tokens, "finish": event.finish,
                "seconds": round(event.seconds, 2),
                "base_hash": f"{identity.base_hash}:{identity.dtype}:{identity.quantisation}",
                "adapter_hash": "" if event.adapter == BASE else loaded[event.adapter], "template_hash": identity.template_hash,
                "decode": DECODE.to_dict(), "decode_hash": DECODE.hash, "seed": DECODE.seed,
            }  # fmt: skip
    return found


def measure(tickets: Sequence[Ticket], texts: dict[tuple[str, str], str]) -> dict[str, dict[str, Any]]:
    """Per metric: both arms' values, and the adapter's lead over the base with its paired 95 % interval."""
    references = [ticket.output for ticket in tickets]
    found = {}
    for metric in metrics.available():
        base, adapter = (metrics.score(metric, [texts[arm, t.id] for t in tickets], references) for arm in ("base", ADAPTER))
        lead = asdict(metrics.paired(metric, adapter.statistics, base.statistics))
        found[metric] = {
            "base": base.value, "adapter": adapter.value, "difference": lead["value"], "low": lead["low"], "high": lead["high"],
            "n": lead["n"], "signature": adapter.signature,
        }  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main())
