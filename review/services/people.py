"""People: users, roles, one-time sign-in links, passwords, sessions. Everything about who somebody is comes from the database, every time.

Tokens are random, kept only as hashes, and never logged. There is no default password. `by` is the acting user's id and must be an enabled
admin's; None is the command line, whose user owns the database file anyway. Must not know HTTP, cookies or screens.
"""

import hashlib
import secrets
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from ft.errors import BadInput, Conflict, NotFound, Refused, TooMany
from review.services.faults import reading, writing
from review.services.passwords import Passwords
from storage.database import Database
from storage.queries import people as queries
from storage.tables import ROLES, SignInFailure, SignInLink, User
from storage.tables import Session as SignedIn

DAY = 86_400.0
SESSION_SECONDS = 30 * DAY
FAILURES = 10
WINDOW_SECONDS = 15 * 60.0
LONGEST_NAME = 80
LONGEST_TOKEN = 200
LONGEST_LINK_HOURS = 30 * 24
DEAD_LINK = "This sign-in link was used already, has expired, or is incomplete. Ask your admin for a new one."


@dataclass(frozen=True, slots=True)
class UserView:
    id: int
    name: str
    role: str
    disabled: bool


class People:
    """`now` is the clock, in seconds since 1970."""

    def __init__(self, db: Database, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._now = now
        self._passwords = Passwords()

    def add(self, name: str, role: str, by: int | None = None) -> UserView:
        """Raises BadInput for a bad name or role, Conflict for a name that is taken (whatever its case)."""
        name = clean_name(name)
        check_role(role)
        with writing(self._db) as session:
            check_admin(session, by)
            if queries.user_by_name(session, name):
                raise Conflict(f"There is a user {name} already. Choose another name.")
            user = User(name=name, role=role, created_at=self._now())
            session.add(user)
            session.flush()
            queries.audit(session, self._now(), by, "user added", user=user.id, name=name, role=role)
            return _view(user)

    def users(self) -> list[UserView]:
        with reading(self._db) as session:
            return [_view(user) for user in queries.all_users(session)]

    def user(self, name: str) -> UserView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return _view(queries.user_spelled(session, name) or _named(session, name))

    def link(self, name: str, hours: float = 24, by: int | None = None) -> str:
        """The token of a new one-time sign-in link; this is the only time it can be seen."""
        if not 0 < hours <= LONGEST_LINK_HOURS:
            raise BadInput(f"A sign-in link cannot last {hours:g} hours. Choose up to {LONGEST_LINK_HOURS}.")
        token = secrets.token_urlsafe(32)
        with writing(self._db) as session:
            check_admin(session, by)
            user = _named(session, name)
            if user.disabled_at is not None:
                raise Refused(f"{user.name} is disabled. Enable the user first.")
            now = self._now()
            session.add(SignInLink(token_hash=hashed(token), user_id=_id(user), created_at=now, expires_at=now + hours * 3600))
            queries.audit(session, now, by, "link made", user=user.id, hours=hours)
        return token

    def peek(self, token: str) -> UserView:
        """Whose link it is, without using it up. Raises NotFound with one message for unknown, used and expired."""
        with reading(self._db) as session:
            found = queries.usable_link(session, hashed(token), self._now())
        if found is None:
            raise NotFound(DEAD_LINK)
        return _view(found[1])

    def redeem(self, token: str) -> tuple[str, UserView]:
        """Use the link up and sign its user in: a new session token, good for 30 days. Raises NotFound."""
        with writing(self._db) as session:
            found = queries.usable_link(session, hashed(token), self._now())
            if found is None:
                raise NotFound(DEAD_LINK)
            link, user = found
            link.used_at = self._now()
            return self._begin(session, user, "link"), _view(user)

    def who(self, session_token: str) -> UserView | None:
        """Who is signed in, with today's role; None for an unknown, expired or ended session or a disabled user."""
        if not session_token or len(session_token) > LONGEST_TOKEN:
            return None
        with reading(self._db) as session:
            user = queries.signed_in_user(session, hashed(session_token), self._now())
            return _view(user) if user else None

    def sign_in(self, name: str, password: str) -> tuple[str, UserView]:
        """A new session token. Raises Refused (the same for a wrong name and a wrong password), TooMany after 10 failures in 15 minutes.

        The attempt is counted before the password is checked, so that many at once get no more tries than one after the other.
        """
        attempt = hashed(_folded(name))
        with writing(self._db) as session:
            user = self._count_attempt(session, attempt, name)
            stored = user.password_hash if user and user.disabled_at is None else ""
        if not self._passwords.matches(stored, password):
            raise Refused("The name or the password is wrong. Check both, or ask your admin for a sign-in link.")
        renewed = self._passwords.renewed(stored, password)
        with writing(self._db) as session:
            user = queries.user_by_name(session, _folded(name))
            if user is None or user.disabled_at is not None or user.password_hash != stored:
                raise Refused("This user was changed a moment ago. Sign in again.")
            user.password_hash = renewed
            queries.forget_failures(session, attempt)
            return self._begin(session, user, "password"), _view(user)

    def sign_out(self, session_token: str) -> None:
        """End the session; nothing happens where it has ended already."""
        with writing(self._db) as session:
            user_id = queries.end_session(session, hashed(session_token), self._now())
            if user_id is not None:
                queries.audit(session, self._now(), user_id, "signed out")

    def set_role(self, name: str, role: str, by: int | None) -> UserView:
        """Counts from the user's next request. Raises Refused for the last enabled admin."""
        check_role(role)
        with writing(self._db) as session:
            check_admin(session, by)
            user = _named(session, name)
            if role != "admin":
                _check_not_last_admin(session, user)
            queries.audit(session, self._now(), by, "role set", user=user.id, before=user.role, after=role)
            user.role = role
            return _view(user)

    def disable(self, name: str, by: int | None) -> UserView:
        """Ends the user's sessions and links at once; votes stay. Raises Refused for the last enabled admin."""
        with writing(self._db) as session:
            check_admin(session, by)
            user = _named(session, name)
            _check_not_last_admin(session, user)
            user.disabled_at = user.disabled_at or self._now()
            queries.end_all_sessions(session, _id(user), self._now())
            queries.audit(session, self._now(), by, "user disabled", user=user.id)
            return _view(user)

    def enable(self, name: str, by: int | None) -> UserView:
        with writing(self._db) as session:
            check_admin(session, by)
            user = _named(session, name)
            user.disabled_at = None
            queries.audit(session, self._now(), by, "user enabled", user=user.id)
            return _view(user)

    def set_password(self, name: str, password: str, by: int | None) -> None:
        """Ends the user's sessions, also the one it is asked from, and their lock-out. `by` may be the user. Raises BadInput if weak."""
        stored = self._passwords.hash(password, name)
        with writing(self._db) as session:
            user = _named(session, name)
            if by != user.id:
                check_admin(session, by)
            elif user.disabled_at is not None:
                raise Refused("This user is disabled. Ask your admin.")
            user.password_hash = stored
            queries.end_all_sessions(session, _id(user), self._now())
            queries.forget_failures(session, hashed(_folded(user.name)))
            queries.audit(session, self._now(), by, "password set", user=user.id)

    def _count_attempt(self, session: Session, attempt: str, name: str) -> User | None:
        now = self._now()
        if queries.failures_since(session, attempt, now - WINDOW_SECONDS) >= FAILURES:
            raise TooMany("Too many attempts to sign in with this name. Wait 15 minutes, or ask your admin for a sign-in link.")
        queries.tidy(session, failures_before=now - WINDOW_SECONDS, expired_before=now - SESSION_SECONDS)
        session.add(SignInFailure(name_hash=attempt, at=now))
        return queries.user_by_name(session, _folded(name))

    def _begin(self, session: Session, user: User, how: str) -> str:
        token = secrets.token_urlsafe(32)
        now = self._now()
        session.add(SignedIn(token_hash=hashed(token), user_id=_id(user), created_at=now, expires_at=now + SESSION_SECONDS))
        queries.audit(session, now, user.id, "signed in", how=how)
        return token


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _folded(name: str) -> str:
    """The form in which two spellings of a name are the same."""
    return " ".join(unicodedata.normalize("NFKC", name[: 10 * LONGEST_NAME]).split()).casefold()


def clean_name(name: str) -> str:
    clean = " ".join(unicodedata.normalize("NFKC", name).split())
    if not clean or len(clean) > LONGEST_NAME or not clean.isprintable():
        raise BadInput(f"That name cannot be used. Choose 1 to {LONGEST_NAME} printable characters.")
    return clean


def check_role(role: str) -> None:
    if role not in ROLES:
        raise BadInput(f"There is no role {role!r}. Choose one of {', '.join(ROLES)}.")


def check_admin(session: Session, by: int | None) -> None:
    if by is None:
        return
    acting = queries.user_by_id(session, by)
    if acting is None or acting.disabled_at is not None or acting.role != "admin":
        raise Refused("Only an admin may do that. Ask your admin.")


def _check_not_last_admin(session: Session, user: User) -> None:
    if user.role == "admin" and user.disabled_at is None and queries.enabled_admins(session) == 1:
        raise Refused(f"{user.name} is the only admin. Make somebody else an admin first.")


def _named(session: Session, name: str) -> User:
    user = queries.user_by_name(session, _folded(name))
    if user is None:
        raise NotFound(f"There is no user {name[:LONGEST_NAME]!r}. See the list of users for the names.")
    return user


def _id(user: User) -> int:
    if user.id is None:
        raise RuntimeError("A user without an id: flush before using it.")
    return user.id


def _view(user: User) -> UserView:
    return UserView(_id(user), user.name, user.role, user.disabled_at is not None)
