"""Keys for programs that ask over HTTP: made by an admin, shown once, kept as a hash, each with a role of its own.

When a key was last used is not kept: that would be a write for each request. Must not know HTTP or screens.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ft.errors import Conflict, NotFound, Refused
from review.services.faults import reading, writing
from review.services.people import check_admin, check_role, clean_name, hashed
from storage.database import Database
from storage.queries import keys as queries
from storage.queries.people import audit
from storage.tables import ApiKey, User

PREFIX = "tb-"
LONGEST_KEY = 200
COVERED = {"admin": ("admin", "engineer", "viewer", "reviewer"), "engineer": ("engineer", "viewer"), "viewer": ("viewer",)}


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as shown: never the key itself. `made_by` is "" for one made on the command line."""

    id: int
    name: str
    role: str
    made_by: str
    created_at: float
    revoked: bool
    maker_id: int | None = None


class Keys:
    """`now` is the clock, in seconds since 1970."""

    def __init__(self, db: Database, now: Callable[[], float] = time.time) -> None:
        self._db, self._now = db, now

    def add(self, name: str, role: str, by: int | None = None) -> tuple[str, KeyView]:
        """A new key, which can be seen only now. Raises BadInput, Conflict for a name used before, Refused unless `by` is an admin."""
        name = clean_name(name)
        check_role(role)
        key = PREFIX + secrets.token_urlsafe(32)
        with writing(self._db) as session:
            check_admin(session, by)
            if any(each.name.casefold() == name.casefold() for each, _ in queries.all_keys(session)):
                raise Conflict(f"There is, or was, a key named {name}. Choose another name.")
            row = ApiKey(name=name, role=role, key_hash=hashed(key), created_by=by, created_at=self._now())
            session.add(row)
            session.flush()
            audit(session, self._now(), by, "key made", key=name, role=role)
            return key, _view(row, session.get(User, by) if by else None)

    def keys(self) -> list[KeyView]:
        """The newest first, the revoked too."""
        with reading(self._db) as session:
            return [_view(key, maker) for key, maker in queries.all_keys(session)]

    def revoke(self, name: str, by: int | None) -> KeyView:
        """From the next request on the key opens nothing. Raises NotFound; a revoked key stays revoked."""
        with writing(self._db) as session:
            check_admin(session, by)
            row = queries.key_named(session, name)
            if row is None:
                raise NotFound(f"There is no key {name[:80]!r}. See the list of keys for the names.")
            if row.revoked_at is None:
                row.revoked_at = self._now()
                session.add(row)
                audit(session, self._now(), by, "key revoked", key=row.name)
            return _view(row, None)

    def who(self, key: str) -> KeyView | None:
        """Whose key this is. None for an unknown or revoked one, and where its maker has gone or may no longer do what it may."""
        if not key.startswith(PREFIX) or len(key) > LONGEST_KEY:
            return None
        with reading(self._db) as session:
            found = queries.key_of_hash(session, hashed(key))
        if found is None:
            return None
        row, maker = found
        if row.created_by is not None and not _covers(maker, row.role):
            return None
        return _view(row, maker)

    def note(self, key: KeyView, action: str, **detail: object) -> None:
        """Write down what a key has changed."""
        with writing(self._db) as session:
            audit(session, self._now(), key.maker_id, action, key=key.name, **detail)


def needs(key: KeyView, *roles: str) -> None:
    """Raises Refused unless the key has one of the roles."""
    if key.role not in roles:
        raise Refused(f"A key with the role {key.role} may not do that. Ask an admin for one with the role {' or '.join(roles)}.")


def _covers(maker: User | None, role: str) -> bool:
    return maker is not None and maker.disabled_at is None and role in COVERED.get(maker.role, ())


def _view(key: ApiKey, maker: User | None) -> KeyView:
    return KeyView(
        key.id or 0, key.name, key.role, maker.name if maker else "", key.created_at, key.revoked_at is not None, key.created_by
    )  # fmt: skip
