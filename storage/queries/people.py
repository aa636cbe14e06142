"""Reads and writes about users, sign-in links, sessions and the audit. Each takes an open session first and never commits.

Tokens arrive hashed: this module never sees one. Must not know screens or rules.
"""

from typing import Any

from sqlalchemy import bindparam, delete, update
from sqlmodel import Session, col, func, select

from storage.tables import Audit, SignInFailure, SignInLink, User
from storage.tables import Session as SignedIn

# Every request asks for these: put together once, for building a statement costs several times as much as running it.
NAMED = select(User).where(User.name == bindparam("name"))
SIGNED_IN = (
    select(User)
    .join(SignedIn, col(SignedIn.user_id) == User.id)
    .where(SignedIn.token_hash == bindparam("token"), SignedIn.expires_at > bindparam("now"))
    .where(col(SignedIn.revoked_at).is_(None), col(User.disabled_at).is_(None))
)


def user_by_id(session: Session, user_id: int) -> User | None:
    return session.get(User, user_id)


def user_by_name(session: Session, name: str) -> User | None:
    """By name, whatever its case. In Python, since SQLite folds only ASCII; a team's users are few."""
    folded = name.casefold()
    return next((user for user in all_users(session) if user.name.casefold() == folded), None)


def user_spelled(session: Session, name: str) -> User | None:
    """By name exactly as stored."""
    return session.scalars(NAMED, {"name": name}).first()


def all_users(session: Session) -> list[User]:
    return list(session.exec(select(User).order_by(User.name)))


def enabled_admins(session: Session) -> int:
    query = select(func.count()).select_from(User).where(User.role == "admin", col(User.disabled_at).is_(None))
    return session.exec(query).one()


def usable_link(session: Session, token_hash: str, now: float) -> tuple[SignInLink, User] | None:
    """The link and its user, unless it is used, expired, unknown, or the user is disabled."""
    query = (
        select(SignInLink, User)
        .join(User, col(User.id) == SignInLink.user_id)
        .where(SignInLink.token_hash == token_hash, SignInLink.expires_at > now)
        .where(col(SignInLink.used_at).is_(None), col(User.disabled_at).is_(None))
    )
    return session.exec(query).first()


def signed_in_user(session: Session, token_hash: str, now: float) -> User | None:
    """The enabled user of a live session, as the database has them now."""
    return session.scalars(SIGNED_IN, {"token": token_hash, "now": now}).first()


def end_session(session: Session, token_hash: str, now: float) -> int | None:
    """Revoke one session; the user's id, or None where it was not live."""
    live = session.get(SignedIn, token_hash)
    if live is None or live.revoked_at is not None:
        return None
    live.revoked_at = now
    return live.user_id


def end_all_sessions(session: Session, user_id: int, now: float) -> None:
    """Revoke every session and void every unused link of a user."""
    live = update(SignedIn).where(col(SignedIn.user_id) == user_id, col(SignedIn.revoked_at).is_(None))
    session.exec(live.values(revoked_at=now))
    unused = update(SignInLink).where(col(SignInLink.user_id) == user_id, col(SignInLink.used_at).is_(None))
    session.exec(unused.values(used_at=now))


def failures_since(session: Session, name_hash: str, since: float) -> int:
    query = select(func.count()).select_from(SignInFailure).where(SignInFailure.name_hash == name_hash, SignInFailure.at > since)
    return session.exec(query).one()


def forget_failures(session: Session, name_hash: str) -> None:
    session.exec(delete(SignInFailure).where(col(SignInFailure.name_hash) == name_hash))


def tidy(session: Session, failures_before: float, expired_before: float) -> None:
    """Delete what no longer counts: old failures, long expired links and sessions."""
    session.exec(delete(SignInFailure).where(col(SignInFailure.at) <= failures_before))
    session.exec(delete(SignInLink).where(col(SignInLink.expires_at) <= expired_before))
    session.exec(delete(SignedIn).where(col(SignedIn.expires_at) <= expired_before))


def audit(session: Session, at: float, user_id: int | None, action: str, **detail: Any) -> None:
    session.add(Audit(at=at, user_id=user_id, action=action, detail=detail))
