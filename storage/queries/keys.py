"""Reads and writes about keys of the HTTP interface. Each takes an open session first and never commits.

Keys arrive hashed: this module never sees one. Must not know HTTP, screens or rules.
"""

from sqlmodel import Session, col, select

from storage.tables import ApiKey, User


def all_keys(session: Session) -> list[tuple[ApiKey, User | None]]:
    """Every key with its maker, the newest first, the revoked too."""
    query = select(ApiKey, User).outerjoin(User, col(User.id) == col(ApiKey.created_by)).order_by(col(ApiKey.id).desc())
    return [(key, maker) for key, maker in session.exec(query)]


def key_of_hash(session: Session, key_hash: str) -> tuple[ApiKey, User | None] | None:
    """A key that is not revoked, and its maker."""
    query = select(ApiKey, User).outerjoin(User, col(User.id) == col(ApiKey.created_by))
    found = session.exec(query.where(ApiKey.key_hash == key_hash, col(ApiKey.revoked_at).is_(None))).first()
    return (found[0], found[1]) if found else None


def key_named(session: Session, name: str) -> ApiKey | None:
    return session.exec(select(ApiKey).where(ApiKey.name == name)).first()
