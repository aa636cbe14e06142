"""The admin's screen: people and their sign-in links, health, backups.

A one-time link is shown once, to the admin who made it, and kept nowhere. Must not know how people or backups are stored.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.admin_keys import build_keys
from review.screens.lab import studies_doubts as doubts
from review.screens.parts import (
    QUICK,
    ROLE_WORDS,
    SLOW,
    actions,
    acts,
    badge,
    block,
    empty_state,
    escape,
    heading,
    note,
    on_load,
    page,
    progress_bar,
    table,
    when,
)

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.upkeep import BackupView, Health

ROLES = [(words.capitalize(), role) for role, words in ROLE_WORDS.items()]
LINK_HOURS = 24


def people_html(people: "list[UserView]") -> str:
    rows = [
        [
            f"<bdi>{escape(person.name)}</bdi>",
            escape(ROLE_WORDS.get(person.role, person.role)),
            badge("disabled", "warn") if person.disabled else badge("active", "good"),
        ]
        for person in people
    ]
    return table(["Name", "Role", "State"], rows, "People") if rows else empty_state("Nobody can sign in yet. Add the first person below.")


def link_html(name: str, address: str) -> str:
    """The one time a link is seen."""
    return (
        f'<div class="tb-card" role="status"><p><b>One-time link for <bdi>{escape(name)}</bdi></b>, good for {LINK_HOURS} hours. '
        f"Send it to them now; it is not shown again.</p>"
        f'<pre class="tb-plain" tabindex="0" id="tb-link" aria-label="Sign-in link">{escape(address)}</pre></div>'
    )


def size(number: int) -> str:
    """Bytes as people say them."""
    value = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:.0f} {unit}" if unit in ("B", "KB") else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def engine_html(health: "Health") -> str:
    status = health.engine
    if status.state == "loading":
        return progress_bar(status.share, 1, status.message, label="Loading the model")
    tone, word = {"ready": ("good", "ready"), "away": ("warn", "away")}.get(status.state, ("bad", "failed"))
    return f"<p>{badge(word, tone)} {escape(status.message)}</p>"


def health_html(health: "Health", adapters: list[str]) -> str:
    known = health.identity
    facts = [
        ("Disk", f"{size(health.disk_free)} free of {size(health.disk_total)}"),
        ("Data folder", health.home),
        ("Database", f"{health.database} ({size(health.database_bytes)})"),
        ("Adapters in memory", ", ".join(adapters) or "none"),
    ]
    if known:
        facts += [
            ("Base model", f"{known.base} ({known.base_hash[:12]})"),
            ("Runs on", f"{known.device}, {known.dtype}, quantisation {known.quantisation}, context {known.context_length} tokens"),
            *((f"Why this {name}", reason) for name, reason in known.reasons.items()),
        ]
    rows = [[escape(name), escape(value)] for name, value in facts]
    settings = [[escape(name), escape(value)] for name, value in health.settings.items()]
    return (
        engine_html(health)
        + table(["What", "Now"], rows, "Health")
        + f'<details class="tb-more"><summary>All settings</summary>{table(["Setting", "Value"], settings, "Settings")}</details>'
    )


def backups_html(backups: "list[BackupView]") -> str:
    if not backups:
        return empty_state("No backup yet. Make the first one below.")
    rows = [
        [
            f'<a href="/download/backups/{escape(backup.name)}" download>{escape(backup.name)}</a>',
            size(backup.bytes),
            when(backup.made_at),
        ]
        for backup in backups
    ]
    return table(["File", "Size", "Made"], rows, "Backups", numeric=(1,))


def build(house: "House") -> gr.Blocks:
    """The blocks of /admin."""
    with gr.Blocks(title="Admin · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        page(house, "admin", "Admin")
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("People"):
                _people(house)
            with gr.Tab("Votes in doubt"):
                _doubts(house)
            with gr.Tab("Keys"):
                build_keys(house)
            with gr.Tab("Health"):
                _health(house)
            with gr.Tab("Backups"):
                _backups(house)
    return blocks


def _people(house: "House") -> None:
    heading("People", "A role counts from the person's next click. Whoever may ask the models by name does not judge them blind.")
    listed = block(elem_id="tb-people", min_height=80)
    with actions():
        chosen = gr.Dropdown([], label="Person", elem_id="chosen-person", value=None, allow_custom_value=True, scale=2)
        new_role = gr.Dropdown(ROLES, value="reviewer", label="New role", elem_id="changed-role", filterable=False)
        change = gr.Button("Change role", elem_id="change-role")
        make_link = gr.Button("New sign-in link", elem_id="make-link")
        enable = gr.Button("Enable", elem_id="enable-person")
        disable = gr.Button("Disable", variant="stop", elem_id="disable-person")
    heading("Add a person", "They sign in with a link that works once.")
    with actions():
        name = gr.Textbox(label="Name", max_length=80, elem_id="new-name", scale=2)
        role = gr.Dropdown(ROLES, value="reviewer", label="Role", elem_id="new-role", filterable=False)
        add = gr.Button("Add and make a link", variant="primary", elem_id="add-person")
    link = block(elem_id="tb-link-place", min_height=24)
    shown = [listed, chosen]

    def listing(selected: str | None = None) -> list[Any]:
        people = house.people.users()
        names = [person.name for person in people]
        return [people_html(people), gr.Dropdown(choices=names, value=selected if selected in names else None)]

    def linked(person: "UserView", whom: str) -> str:
        return link_html(whom, f"{house.settings.address}/login/{house.people.link(whom, LINK_HOURS, by=person.id)}")

    @acts(house, "admin")
    def show_people(person: "UserView") -> list[Any]:
        return listing()

    @acts(house, "admin")
    def add_person(person: "UserView", new: str, role: str) -> list[Any]:
        added = house.people.add(new, role, by=person.id)
        return [*listing(added.name), linked(person, added.name), ""]

    @acts(house, "admin")
    def show_link(person: "UserView", whom: str | None) -> str:
        return linked(person, _named(whom))

    @acts(house, "admin")
    def change_role(person: "UserView", whom: str | None, role: str) -> list[Any]:
        changed = house.people.set_role(_named(whom), role, by=person.id)
        note(f"{changed.name} is {ROLE_WORDS[changed.role]} from the next click on.")
        return listing(changed.name)

    @acts(house, "admin")
    def disable_person(person: "UserView", whom: str | None) -> list[Any]:
        note(f"{house.people.disable(_named(whom), by=person.id).name} is signed out everywhere.")
        return listing(whom)

    @acts(house, "admin")
    def enable_person(person: "UserView", whom: str | None) -> list[Any]:
        note(f"{house.people.enable(_named(whom), by=person.id).name} may sign in again.")
        return listing(whom)

    on_load(show_people, outputs=shown)
    add.click(add_person, [name, role], [*shown, link, name], **SLOW)
    make_link.click(show_link, [chosen], [link], **SLOW)
    change.click(change_role, [chosen, new_role], shown, **SLOW)
    disable.click(disable_person, [chosen], shown, **SLOW)
    enable.click(enable_person, [chosen], shown, **SLOW)


def _named(whom: str | None) -> str:
    if not whom:
        raise BadInput("No person is chosen. Choose one from the list first.")
    return whom


def _doubts(house: "House") -> None:
    heading("Votes in doubt", "Too fast, one side only, or at odds with themselves: aside until somebody decides. No vote is deleted.")
    listed = block(elem_id="tb-doubts", min_height=80)
    chosen = doubts.decision_row(house, ("admin",), [listed], lambda: drawn()[:1])

    def drawn() -> list[Any]:
        found = doubts.doubted(house)
        return [doubts.doubts_html(found), gr.Dropdown(choices=doubts.choices_of(found), value=None)]

    @acts(house, "admin")
    def show_doubts(person: "UserView") -> list[Any]:
        return drawn()

    on_load(show_doubts, outputs=[listed, chosen])


def _health(house: "House") -> None:
    heading("Health")
    facts = block(elem_id="tb-health", min_height=240)

    @acts(house, "admin", quiet=True)
    def show_health(person: "UserView") -> str:
        return health_html(house.upkeep.health(), [one.name for one in house.adapters.adapters() if one.resident])

    on_load(show_health, outputs=[facts])
    gr.Timer(10).tick(show_health, None, [facts], **QUICK)


def _backups(house: "House") -> None:
    heading("Backups", "Each holds every vote, study, prompt and person. The adapters' files lie in the data folder beside it.")
    listed = block(elem_id="tb-backups", min_height=80)
    with actions():
        make = gr.Button("Make a backup now", variant="primary", elem_id="make-backup")

    @acts(house, "admin")
    def show_backups(person: "UserView") -> str:
        return backups_html(house.upkeep.backups())

    @acts(house, "admin")
    def make_backup(person: "UserView") -> str:
        made = house.upkeep.back_up(by=person.id)
        note(f"{made.name} holds everything up to now ({size(made.bytes)}).")
        return backups_html(house.upkeep.backups())

    on_load(show_backups, outputs=[listed])
    make.click(make_backup, None, [listed], **SLOW)
