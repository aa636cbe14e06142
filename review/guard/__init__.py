"""The guard: a pure ASGI wall in front of the whole app. What it does not know, it refuses.

Must not know screens, services or the database: it is handed a function that says who a cookie belongs to.
"""

from review.guard.bodies import Refusal
from review.guard.calls import key_of, person_of, token_of
from review.guard.policy import Mount, Policy
from review.guard.wall import Guard

__all__ = ["Guard", "Mount", "Policy", "Refusal", "key_of", "person_of", "token_of"]
