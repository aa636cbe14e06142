"""Messages fit to show a person. Every UserError says what happened and why, and ends with what to do.

    UserError
    ├── BadInput        what was sent cannot be used (HTTP 400)
    ├── NotFound        the thing named does not exist (404)
    ├── Refused         the person may not do that, or not now (403)
    ├── Conflict        it clashes with what is already there (409)
    ├── TooMany         too many attempts; wait (429)
    ├── Busy            try again in a moment (503)
    └── Unavailable     a model, a disk, a program or a server is missing or broken (503)

This module must not know HTTP, screens or models; `status` is only a number for those who do.
"""


class UserError(Exception):
    """A message for a person: one or two sentences, the last one saying what to do."""

    status = 400


class BadInput(UserError):
    status = 400


class NotFound(UserError):
    status = 404


class Refused(UserError):
    status = 403


class Conflict(UserError):
    status = 409


class TooMany(UserError):
    status = 429


class Busy(UserError):
    status = 503


class Unavailable(UserError):
    status = 503
