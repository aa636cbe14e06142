"""The events of the form that declares a study: filled once, copied from another study, looked over at each change, declared.

Must not know storage, or how the form is laid out.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab import studies_declare as declare
from review.screens.lab.room import TOLD
from review.screens.parts import QUICK, acts, note
from review.services import study_plans as plans

if TYPE_CHECKING:
    from review.screens.lab.studies_desk import Desk
    from review.services.house import House
    from review.services.people import UserView

ROLES = ("engineer", "admin")


def wire(
    house: "House", desk: "Desk", form: declare.Form, preview: gr.HTML, create: gr.Button, around: tuple[Any, ...], back: tuple[Any, ...]
) -> None:
    """The form: filled once, copied from another study, looked over at each change, declared."""
    tab, here, tabs, chosen, copying = around
    now, state, who = back
    fields = form.all

    def looked_over(wish: plans.Wish) -> str:
        return declare.plan_html(plans.plan(house.db, wish), wish)

    def filled(wish: plans.Wish) -> list[Any]:
        values = declare.filled(house, wish, plans.plan(house.db, wish).tags)
        return [*values, looked_over(plans.replace(wish, name=values[0]))]

    @acts(house, *ROLES)
    def open_form(person: "UserView", *values: Any) -> list[Any]:
        """Filled with the usual things the first time; afterwards what was written stays, beside the arms and people there are by now."""
        wish = declare.wish_of(values)
        if wish.name:
            refilled = declare.filled(house, wish, plans.plan(house.db, wish).tags)
            return ["new", wish.name, *refilled[1:], looked_over(wish)]
        return ["new", *filled(usual(house))]

    @acts(house, *ROLES)
    def look_over(person: "UserView", *values: Any) -> str:
        return looked_over(declare.wish_of(values))

    @acts(house, *ROLES)
    def choose_prompts(person: "UserView", *values: Any) -> list[Any]:
        wish = declare.wish_of(values)
        tags = plans.plan(house.db, wish).tags
        wish = plans.replace(wish, tags=tuple(tag for tag in wish.tags if tag in tags))
        return [declare.tags_of(tags, wish.tags), looked_over(wish)]

    @acts(house, *ROLES)
    def copy_study(person: "UserView", picked: str | None) -> list[Any]:
        if not picked:
            return [gr.skip() for _ in range(len(fields) + 3)]
        return [gr.Tabs(selected="new"), "new", *filled(declare.wish_like(house.studies.study(picked)))]

    @acts(house, *ROLES)
    def declare_study(person: "UserView", *values: Any) -> list[Any]:
        made = plans.declare(house.db, house.studies, declare.wish_of(values), person.id)
        note(f"{made.name} is declared. Open it when reviewers may start.")
        return [*state(made.name), gr.Tabs(selected="progress"), "progress", desk.progress(made.name), *filled(usual(house))]

    tab.select(open_form, fields, [here, *fields, preview], **QUICK)
    for prompts in (form.set_name, form.split):
        prompts.input(choose_prompts, fields, [form.tags, preview], **QUICK)
    for field in fields:
        event = field.blur if isinstance(field, gr.Textbox) else field.input
        if field not in (form.set_name, form.split):
            event(look_over, fields, [preview], **QUICK)
    copying.click(copy_study, [chosen], [tabs, here, *fields, preview], **QUICK)
    create.click(declare_study, fields, [*now, tabs, here, who, *fields, preview], **TOLD)


def usual(house: "House") -> plans.Wish:
    """What most people declare next: the adapter in use, or the newest, against the base, on the newest prompts."""
    known = house.answers.arms()
    best = house.adapters.in_use() or next((arm.name for arm in reversed(known) if arm.kind == "adapter" and arm.usable), None)
    sets = house.library.sets()
    arms = tuple(arm.name for arm in known if arm.name in (best, house.answers.base_arm()))
    number = len(house.studies.studies()) + 1
    return plans.Wish(plans.free_name(house.db, f"Study {number}"), sets[-1].name if sets else "", arms=arms)
