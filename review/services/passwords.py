"""Argon2 passwords: hashing, checking with equal work for unknown users, and what makes a password acceptable.

Must not know the database or the screens.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ft.errors import BadInput, Busy

SHORTEST = 12
LONGEST = 1024
AT_ONCE = 4  # one check takes 64 MiB: many at once would be a way to fill the memory
PATIENCE = 10.0  # seconds to wait for a turn


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._making = threading.Lock()
        self._nobodys = ""

    def hash(self, password: str, name: str) -> str:
        """Raises BadInput for a password that is too short, too long or the name itself, Busy after `PATIENCE` seconds."""
        _check(password, name)
        with self._turn():
            return self._hasher.hash(password)

    def matches(self, stored: str, password: str) -> bool:
        """Whether `password` is the one hashed in `stored`; the same work where `stored` is empty (no such user, no password)."""
        with self._turn():
            nobody = self._nobody()  # always: the first attempt must not show whether the name exists
            try:
                same = self._hasher.verify(stored or nobody, password[:LONGEST].encode("utf-8", "surrogatepass"))
            except (VerificationError, InvalidHashError):
                return False
            return same and bool(stored) and len(password) <= LONGEST

    def renewed(self, stored: str, password: str) -> str:
        """`stored`, or its replacement where it was hashed with other settings than today's. Only for a password that matches."""
        return self._hasher.hash(password) if self._hasher.check_needs_rehash(stored) else stored

    def _nobody(self) -> str:
        with self._making:
            self._nobodys = self._nobodys or self._hasher.hash("nobody")
            return self._nobodys

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=PATIENCE):
            raise Busy("Too many people are signing in at once. Try again in a moment.")
        try:
            yield
        finally:
            self._turns.release()


def _check(password: str, name: str) -> None:
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadInput(f"The password has {len(password)} characters. Choose one of {SHORTEST} to {LONGEST}.")
    if password.casefold() == name.casefold() or len(set(password)) < 4:
        raise BadInput("That password is too easy to guess. Choose another, such as four unrelated words.")
    if not password.isprintable():
        raise BadInput("The password holds characters that cannot be typed again. Choose letters, digits, signs and spaces.")
