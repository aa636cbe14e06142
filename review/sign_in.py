"""The pages outside the screens, written by hand: sign-in, one-time links, errors. They share look.css and need no script.

Every value is escaped. Must not know services, the database or Gradio.
"""

import html

from review.screens.mark import MARK

TITLES = {403: "Not here", 404: "Nothing here", 429: "One moment", 500: "Something went wrong", 503: "One moment"}


def page(title: str, body: str) -> str:
    """A whole page. `body` is HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)} · Tiebreak</title>"
        '<link rel="icon" href="/static/mark.svg"><link rel="stylesheet" href="/static/look.css">'
        '<link rel="stylesheet" href="/static/sign_in.css">'
        '</head><body class="tb-plain-page"><script src="/static/sign_in.js"></script>'
        f'<header class="tb-bar"><a class="tb-brand" href="/">{MARK}<span>Tiebreak</span></a></header>'
        f'<main class="tb-card tb-sign"><h1>{html.escape(title)}</h1>{body}</main></body></html>'
    )


def said(words: str, tone: str = "bad") -> str:
    return f'<p class="tb-said tb-{tone}" role="alert">{html.escape(words)}</p>' if words else ""


def sign_in_form(problem: str = "", name: str = "") -> str:
    """Name and password, for people who have been given one."""
    return page(
        "Sign in",
        said(problem)
        + '<form method="post" action="/login"><label for="name">Name</label>'
        + f'<input id="name" name="name" value="{html.escape(name)}" autocomplete="username" maxlength="100" required autofocus>'
        + '<label for="password">Password</label>'
        + '<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000" required>'
        + '<button class="tb-go" type="submit">Sign in</button></form>'
        + '<p class="tb-muted tb-small">No password? Open the one-time sign-in link you were given, or ask your admin for a new one.</p>',
    )


def continue_as(name: str, role: str, token: str) -> str:
    """What a one-time link opens: nothing is used up before the button is pressed, so a mail scanner cannot burn the link."""
    who = f"<bdi>{html.escape(name)}</bdi> ({html.escape(role)})"
    return page(
        "Sign in",
        f"<p>This link signs you in as {who}. It works once.</p>"
        f'<form method="post" action="/login/{html.escape(token)}">'
        f'<button class="tb-go" type="submit" autofocus>Continue as {who}</button></form>',
    )


def dead_link(words: str) -> str:
    return page("This link does not work", said(words) + '<p><a href="/login">Sign in with a password instead</a></p>')


def signed_out() -> str:
    return page("Signed out", '<p>You are signed out of this browser. Close the tab, or <a href="/login">sign in again</a>.</p>')


def refusal(status: int, words: str, signed_in: bool) -> str:
    """Any error as a page, with a way on."""
    way = '<a href="/">Go to your part of Tiebreak</a>' if signed_in else '<a href="/login">Sign in</a>'
    return page(TITLES.get(status, "That did not work"), f"{said(words)}<p>{way}</p>")
