"""What every screen is made of: `acts` (who may do what, and how errors are said) and the pieces of HTML all screens share.

All HTML here is built on the server from escaped text. Must not know storage, models or what a screen is about.
"""

import html
import inspect
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import UserError
from review.screens.mark import MARK

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

log = logging.getLogger(__name__)

PARTS: dict[str, tuple[str, str]] = {
    "review": ("/review", "Review"),
    "lab": ("/lab", "Lab"),
    "boards": ("/boards", "Boards"),
    "admin": ("/admin", "Admin"),
}
PARTS_OF: dict[str, tuple[str, ...]] = {
    "reviewer": ("review",),
    "engineer": ("lab", "boards"),
    "viewer": ("boards",),
    "admin": ("admin", "lab", "boards"),
}
ROLE_WORDS = {"reviewer": "reviewer", "engineer": "engineer", "viewer": "stakeholder", "admin": "admin"}

observers: list[Callable[["UserView", str], None]] = []
"""Called with (person, handler name) each time a handler is let in, before it runs. Tests use it as a side-effect log."""


def roles_of(part: str) -> tuple[str, ...]:
    """The roles that may open a part of the app."""
    return tuple(role for role, parts in PARTS_OF.items() if part in parts)


QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How an event is wired that ends in milliseconds: past the queue, no spinner, no public name."""
SLOW: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
"""How an event is wired that may take seconds: through the queue, with a spinner."""


def acts(house: "House", *roles: str, quiet: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a handler: the signed-in person is read from the database at each call and passed first; other roles never reach it.

    A UserError is shown as it is; anything else is logged with an id and only the id is shown. `quiet` handlers, which a timer
    calls, show nothing: what fails every two seconds must not fill the page.
    """

    def decorate(do: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{do.__module__}.{do.__qualname__}"

        def act(request: gr.Request, *values: Any) -> Any:
            try:
                return do(_let_in(house, roles, request, name), *values)
            except Exception as error:
                raise _said(error, name, quiet) from None

        def stream(request: gr.Request, *values: Any) -> Iterator[Any]:
            try:
                yield from do(_let_in(house, roles, request, name), *values)
            except Exception as error:
                raise _said(error, name, quiet) from None

        handler: Callable[..., Any] = stream if inspect.isgeneratorfunction(do) else act
        handler.__name__, handler.__qualname__, handler.__doc__ = do.__name__, do.__qualname__, do.__doc__
        handler.__dict__["roles"] = roles
        return handler

    return decorate


def _let_in(house: "House", roles: tuple[str, ...], request: gr.Request, name: str) -> "UserView":
    username = getattr(request, "username", None)
    if not username:
        raise gr.Error("You are signed out. Open your sign-in page and sign in again.", title="Signed out", print_exception=False)
    person = house.people.user(username)
    if person.disabled or person.role not in roles:
        who = ROLE_WORDS.get(person.role, person.role)
        raise gr.Error(
            f"You are signed in as {escape(who)}, and this is not part of that role. Ask an admin if it should be.",
            title="Not your part", print_exception=False,
        )  # fmt: skip
    for observe in observers:
        observe(person, name)
    return person


def _said(error: Exception, name: str, quiet: bool) -> Exception:
    """The error as a person may see it. Toasts render HTML, so every message is escaped."""
    if isinstance(error, gr.Error):
        error.visible = error.visible and not quiet
        return error
    if isinstance(error, UserError):
        return gr.Error(escape(str(error)), title="That did not work", visible=not quiet, print_exception=False)
    number = secrets.token_hex(4)
    log.error("error %s in %s", number, name, exc_info=error)
    return gr.Error(
        f"Something went wrong (id {number}). Try again; if it stays, give this id to the admin, who finds it in the log.",
        title="Something went wrong", visible=not quiet, print_exception=False,
    )  # fmt: skip


def escape(text: object) -> str:
    """Text as HTML text or attribute value. Everything a person or a model wrote passes through here."""
    return html.escape(str(text), quote=True)


def note(words: str) -> None:
    """A short word of success in the corner of the page."""
    gr.Info(escape(words), duration=4, title="Done")


def block(value: str = "", elem_id: str | None = None, classes: str = "", min_height: int | None = None) -> gr.HTML:
    """A place for HTML of ours. It never flickers while an event runs, and keeps its height while empty."""
    return gr.HTML(
        value, elem_id=elem_id, elem_classes=classes.split() or None, min_height=min_height, js_on_load=None,
        apply_default_css=False, padding=False,
    )  # fmt: skip


def header_html(person: "UserView | None", part: str) -> str:
    """The bar on top: product, one's own parts, who is signed in, light or dark, sign out."""
    links, who = "", ""
    if person is not None:
        for key in PARTS_OF.get(person.role, ()):
            address, title = PARTS[key]
            here = ' aria-current="page"' if key == part else ""
            links += f'<a href="{address}"{here}>{title}</a>'
        role = ROLE_WORDS.get(person.role, person.role)
        who = f'<span class="tb-who"><b dir="auto">{escape(person.name)}</b> <span>{escape(role)}</span></span>'
    return (
        f'<header class="tb-bar"><a class="tb-brand" href="/">{MARK}<span>Tiebreak</span></a>'
        f'<nav aria-label="Parts of Tiebreak">{links}</nav>{who}'
        '<button type="button" class="tb-quiet" data-tb="theme" aria-label="Light or dark" title="Light or dark">◐</button>'
        '<form method="post" action="/logout"><button class="tb-quiet" type="submit">Sign out</button></form></header>'
    )


def page(house: "House", part: str, title: str, words: str = "") -> gr.HTML:
    """The top of a screen, inside its Blocks: the bar, the page's one h1, and the place beside it, which is returned.

    The person's name comes with the load event.
    """
    bar = block(header_html(None, part), elem_id="tb-header", min_height=52)
    lead = f"<p>{escape(words)}</p>" if words else ""
    with gr.Row(elem_classes=["tb-top"]):
        block(f'<div class="tb-title"><h1>{escape(title)}</h1>{lead}</div>', elem_id="tb-title")
        aside = block(elem_id="tb-aside", min_height=28)

    @acts(house, *roles_of(part))
    def show_header(person: "UserView") -> str:
        return header_html(person, part)

    on_load(show_header, outputs=[bar])
    return aside


def on_load(handler: Callable[..., Any], outputs: list[Any], inputs: list[Any] | None = None) -> Any:
    """Run a handler when the page opens, at once and without a spinner. Call inside a Blocks."""
    blocks = gr.context.Context.root_block
    assert blocks is not None, "on_load belongs inside a Blocks"
    return blocks.load(handler, inputs=inputs, outputs=outputs, **QUICK)


def heading(title: str, words: str = "") -> gr.HTML:
    """A section's h2 with one sentence."""
    lead = f"<p>{escape(words)}</p>" if words else ""
    return block(f'<div class="tb-h2"><h2>{escape(title)}</h2>{lead}</div>')


def actions() -> gr.Row:
    """A row of buttons, with or without the field that they act on: `with actions(): …`."""
    return gr.Row(elem_classes=["tb-actions"])


def brings_into_view(event: Any, elem_id: str) -> None:
    """What a click fills below the edge of the screen is scrolled to, as far as needed to see it whole."""
    how = "{block: 'nearest', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'}"
    event.then(None, js=f"() => void setTimeout(() => document.getElementById('{elem_id}')?.scrollIntoView({how}), 100)")


def empty_state(words: str, action: str = "", address: str = "") -> str:
    """What to show where nothing is yet: one sentence, and the way to the first thing."""
    link = f'<a href="{escape(address)}">{escape(action)} →</a>' if address else f"<span>{escape(action)}</span>" if action else ""
    return f'<div class="tb-empty"><p>{escape(words)}</p>{link}</div>'


def progress_bar(done: float, total: float, words: str = "", label: str = "Progress") -> str:
    """A bar with its words. `total` 0 shows an empty bar."""
    share = 0.0 if total <= 0 else min(1.0, max(0.0, done / total))
    return (
        f'<div class="tb-progress"><div class="tb-track" role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{round(share * 100)}"><i style="width:{share * 100:.1f}%"></i></div>'
        f'<span class="tb-num">{escape(words)}</span></div>'
    )


def badge(words: str, tone: str = "plain") -> str:
    """A short state: tone plain, good, warn or bad. The words carry the meaning, never the colour alone."""
    return f'<span class="tb-badge tb-is-{escape(tone)}">{escape(words)}</span>'


def table(headings: list[str], rows: list[list[str]], caption: str, numeric: tuple[int, ...] = ()) -> str:
    """A table of cells that are HTML already (escape them). `numeric` columns align right with tabular figures."""

    def cls(index: int) -> str:
        return ' class="tb-num"' if index in numeric else ""

    head = "".join(f'<th scope="col"{cls(i)}>{escape(h)}</th>' for i, h in enumerate(headings))
    body = "".join("<tr>" + "".join(f"<td{cls(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return (
        f'<div class="tb-scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="tb-table">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def count(number: int, thing: str) -> str:
    """ "1 vote", "2 votes"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def when(at: float | None) -> str:
    """A moment as the reader's browser shows it best: UTC, to the minute."""
    return "" if at is None else time.strftime("%d %b %Y %H:%M UTC", time.gmtime(at))


def minutes(seconds: float) -> str:
    """A span of time as people say it: "under a minute", "about 3 minutes", "about 2 hours"."""
    if seconds < 45:
        return "under a minute"
    whole = max(1, round(seconds / 60))
    if whole < 90:
        return f"about {whole} minute{'s' if whole != 1 else ''}"
    return f"about {round(whole / 60)} hours"
