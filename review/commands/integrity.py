"""`tiebreak integrity`: whether each arm is what it says, what was found, and which answers were taken back."""

from typing import Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table


def integrity(
    check: Annotated[bool, typer.Option("--check", help="Load the model in this program and look now.")] = False, as_json: AsJson = False
) -> None:
    """Show the looks at base and adapters: fingerprints, what was found, what was taken back. Ends with 1 where something is bad."""
    with house() as open_house:
        if check:
            open_house.adapters.reconcile_when_ready()
            open_house.integrity.check()
        found = open_house.integrity.view()
    if as_json:
        emit_json(found)
    else:
        rows = [(arm.name, arm.proof, arm.where, arm.fingerprint[:16], arm.words) for arm in found.arms]
        table(("arm", "proof", "where", "fingerprint", ""), rows, "")
        for gone in found.voided:
            say(f"Taken back: {gone.answers} answers of {gone.arm} in {gone.set_name} ({gone.split}). {gone.reason}")
        for arm, set_name, split in found.waiting:
            say(f"To be answered again: {set_name} ({split}) by {arm}.")
    raise typer.Exit(1 if any(arm.proof == "bad" for arm in found.arms) else 0)
