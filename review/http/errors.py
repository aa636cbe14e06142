"""What goes wrong, as a client of the OpenAI protocol reads it; what nobody foresaw is logged under an id. Must not know routes."""

import logging
import secrets

from ft.errors import NotFound, UserError
from review.guard.replies import api_error
from review.http.wire import param_of

log = logging.getLogger(__name__)


def said(error: Exception) -> tuple[int, bytes]:
    """Status and body."""
    if isinstance(error, UserError):
        code = "model_not_found" if isinstance(error, NotFound) else None
        return error.status, api_error(error.status, str(error), code, param_of(error))
    number = secrets.token_hex(4)
    log.error("error %s over HTTP", number, exc_info=error)
    return 500, api_error(500, f"Something went wrong (id {number}). Try again; if it stays, give this id to the admin.")
