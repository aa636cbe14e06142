"""People: links, sessions, passwords, the lock-out, roles, and what the audit keeps."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlmodel import select

from ft.errors import BadInput, Conflict, NotFound, TooMany, UserError
from review.services.people import DAY, FAILURES, WINDOW_SECONDS, People, UserView
from storage.database import Database
from storage.tables import Audit, SignInFailure, SignInLink, User
from storage.tables import Session as SignedIn

PHRASE = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(db: Database, clock: Clock) -> People:
    return People(db, clock)


@pytest.fixture
def admin(people: People) -> UserView:
    return people.add("Ada", "admin")


def everything(db: Database, table: type[Any]) -> list[Any]:
    with db.session() as session:
        return list(session.exec(select(table)))


def outcome(act: Callable[[], Any]) -> str:
    try:
        act()
    except UserError as error:
        return type(error).__name__
    return "ok"


def test_a_link_signs_in_once(people: People) -> None:
    people.add("Rita", "reviewer")
    token = people.link("Rita")
    assert people.peek(token).name == "Rita"
    assert people.peek(token).name == "Rita", "looking does not use it up"
    session_token, user = people.redeem(token)
    assert people.who(session_token) == user == UserView(user.id, "Rita", "reviewer", False)
    for use in (people.peek, people.redeem):
        with pytest.raises(NotFound, match="used already"):
            use(token)


def test_a_link_redeemed_by_many_at_once_signs_in_one(people: People) -> None:
    people.add("Rita", "reviewer")
    token = people.link("Rita")
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda _: outcome(lambda: people.redeem(token)), range(24)))
    assert sorted(results) == ["NotFound"] * 23 + ["ok"]


def test_used_expired_unknown_and_strange_tokens_get_the_same_answer(people: People, clock: Clock) -> None:
    people.add("Rita", "reviewer")
    expired, used = people.link("Rita", hours=1), people.link("Rita", hours=48)
    people.redeem(used)
    clock.time += 3600
    messages = set()
    for token in (expired, used, "nothing", "", "\ud800", "x" * 100_000, "' OR 1=1 --", "\0"):
        with pytest.raises(NotFound) as caught:
            people.redeem(token)
        messages.add(str(caught.value))
        assert people.who(token) is None
    assert len(messages) == 1


def test_a_session_ends_after_30_days_and_at_sign_out(people: People, clock: Clock) -> None:
    people.add("Rita", "reviewer")
    first, _ = people.redeem(people.link("Rita"))
    second, _ = people.redeem(people.link("Rita"))
    assert first != second
    people.sign_out(first)
    people.sign_out(first)
    people.sign_out("never was")
    assert people.who(first) is None
    clock.time += 30 * DAY - 1
    assert people.who(second) is not None
    clock.time += 1
    assert people.who(second) is None


def test_no_token_and_no_password_is_kept_in_the_database(people: People, db: Database, admin: UserView) -> None:
    people.add("Rita", "reviewer", by=admin.id)
    people.set_password("Rita", PHRASE, by=admin.id)
    link = people.link("Rita")
    session_tokens = [people.redeem(link)[0], people.sign_in("Rita", PHRASE)[0]]
    assert outcome(lambda: people.sign_in("hunter2 typed as a name", PHRASE)) == "Refused"
    people.sign_out(session_tokens[0])
    db.close()
    assert db.path is not None
    stored = b"".join(path.read_bytes() for path in db.path.parent.iterdir() if path.is_file())
    assert b"Rita" in stored, "control: what is kept in plain is found this way"
    for secret in (PHRASE, link, *session_tokens, "hunter2"):
        assert secret.encode() not in stored
    assert everything(db, User)[1].password_hash.startswith("$argon2id$")


def test_role_change_and_disabling_count_from_the_next_request(people: People, admin: UserView) -> None:
    people.add("Eva", "engineer")
    token, _ = people.redeem(people.link("Eva"))
    unused = people.link("Eva")
    people.set_role("Eva", "viewer", by=admin.id)
    assert people.who(token) == people.user("Eva")
    assert people.user("Eva").role == "viewer"
    people.disable("Eva", by=admin.id)
    assert people.who(token) is None
    assert people.user("Eva").disabled
    assert outcome(lambda: people.redeem(unused)) == "NotFound"
    assert outcome(lambda: people.link("Eva")) == "Refused"
    people.enable("Eva", by=admin.id)
    assert people.who(token) is None, "a session that was ended stays ended"
    assert outcome(lambda: people.redeem(unused)) == "NotFound"


def test_a_disabled_user_cannot_sign_in_by_password(people: People, admin: UserView) -> None:
    people.add("Eva", "engineer")
    people.set_password("Eva", PHRASE, by=None)
    people.disable("Eva", by=admin.id)
    assert outcome(lambda: people.sign_in("Eva", PHRASE)) == "Refused"
    people.enable("Eva", by=admin.id)
    assert people.who(people.sign_in("Eva", PHRASE)[0]) is not None


def test_only_an_enabled_admin_acts_on_others(people: People, admin: UserView) -> None:
    other = people.add("Otto", "admin")
    eva = people.add("Eva", "engineer")
    people.disable("Otto", by=admin.id)
    for by in (eva.id, other.id, 9_999):
        acts = [
            lambda by=by: people.add("New", "viewer", by=by),
            lambda by=by: people.link("Ada", by=by),
            lambda by=by: people.set_role("Ada", "viewer", by=by),
            lambda by=by: people.disable("Ada", by=by),
            lambda by=by: people.enable("Otto", by=by),
            lambda by=by: people.set_password("Ada", PHRASE, by=by),
        ]
        assert [outcome(act) for act in acts] == ["Refused"] * len(acts)
    assert [user.name for user in people.users()] == ["Ada", "Eva", "Otto"]
    assert people.user("Ada") == admin


def test_the_last_admin_stays(people: People, admin: UserView) -> None:
    for act in (lambda: people.disable("Ada", by=admin.id), lambda: people.set_role("Ada", "viewer", by=None)):
        assert outcome(act) == "Refused"
    people.add("Otto", "admin")
    people.disable("Ada", by=admin.id)
    assert outcome(lambda: people.disable("Otto", by=None)) == "Refused"


def test_passwords_sign_in_whatever_the_case_of_the_name(people: People) -> None:
    user = people.add("Örs Ädler", "viewer")
    people.set_password("örs ädler", PHRASE, by=user.id)
    token, found = people.sign_in("  ÖRS   ädler ", PHRASE)
    assert found == user == people.who(token)


def test_a_new_password_ends_old_sessions(people: People) -> None:
    user = people.add("Rita", "reviewer")
    people.set_password("Rita", PHRASE, by=user.id)
    token, _ = people.sign_in("Rita", PHRASE)
    people.set_password("Rita", PHRASE + " staple", by=user.id)
    assert people.who(token) is None
    assert outcome(lambda: people.sign_in("Rita", PHRASE)) == "Refused"
    assert outcome(lambda: people.sign_in("Rita", PHRASE + " staple")) == "ok"


@pytest.mark.parametrize("bad", ["short", "x" * 1025, "a" * 20, "RITA THE FIRST", "tab\tin the middle", "\ud800 lone surrogate"])
def test_bad_passwords_are_refused(people: People, bad: str) -> None:
    user = people.add("Rita the first", "reviewer")
    assert outcome(lambda: people.set_password("Rita the first", bad, by=user.id)) == "BadInput"
    assert outcome(lambda: people.sign_in("Rita the first", bad)) == "Refused"


def test_nobody_signs_in_without_a_password_having_been_set(people: People) -> None:
    people.add("Rita", "reviewer")
    for password in ("", "nobody", "Rita", "admin"):
        assert outcome(partial(people.sign_in, "Rita", password)) == "Refused"


@pytest.mark.hostile
def test_the_11th_attempt_is_refused_for_known_and_unknown_names_alike(people: People, clock: Clock) -> None:
    people.add("Rita", "reviewer")
    people.set_password("Rita", PHRASE, by=None)

    def attempts(name: str) -> list[tuple[str, str, int]]:
        seen = []
        for number in range(FAILURES + 2):
            with pytest.raises(UserError) as caught:
                people.sign_in(name if number % 2 else name.upper(), "wrong" * 4)
            seen.append((type(caught.value).__name__, str(caught.value), caught.value.status))
        return seen

    known = attempts("Rita")
    assert known == attempts("Nobody at all"), "an answer that differs would tell which names exist"
    assert [status for _, _, status in known] == [403] * 10 + [429] * 2
    with pytest.raises(TooMany):
        people.sign_in("Rita", PHRASE)
    assert outcome(lambda: people.redeem(people.link("Rita"))) == "ok", "a link still helps"
    clock.time += WINDOW_SECONDS
    assert outcome(lambda: people.sign_in("Rita", PHRASE)) == "ok"


@pytest.mark.hostile
def test_attempts_in_parallel_get_no_more_than_ten_tries(people: People, db: Database) -> None:
    people.add("Rita", "reviewer")
    people.set_password("Rita", PHRASE, by=None)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: outcome(lambda: people.sign_in("Rita", "wrong" * 4)), range(30)))
    assert sorted(results) == ["Refused"] * 10 + ["TooMany"] * 20
    assert len(everything(db, SignInFailure)) == 10


def test_a_right_password_clears_the_failures(people: People, db: Database) -> None:
    people.add("Rita", "reviewer")
    people.set_password("Rita", PHRASE, by=None)
    for _ in range(3):
        for _ in range(FAILURES - 1):
            assert outcome(lambda: people.sign_in("Rita", "wrong" * 4)) == "Refused"
        assert outcome(lambda: people.sign_in("Rita", PHRASE)) == "ok"
    assert everything(db, SignInFailure) == []


@pytest.mark.hostile
def test_unknown_names_take_the_same_work(people: People) -> None:
    people.add("Rita", "reviewer")
    people.set_password("Rita", PHRASE, by=None)
    work: dict[str, list[float]] = {"Rita": [], "Nobody": []}
    for _ in range(FAILURES):
        for name, times in work.items():
            start = time.process_time()
            assert outcome(partial(people.sign_in, name, "wrong" * 4)) == "Refused"
            times.append(time.process_time() - start)
    known, unknown = (statistics.median(times) for times in work.values())
    assert 0.5 < known / unknown < 2
    assert known > 0.01, "control: there is work to be seen"


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\0b", "a\u202eb", "\ud800"])
def test_names_that_cannot_be_read_are_refused(people: People, name: str) -> None:
    assert outcome(lambda: people.add(name, "viewer")) == "BadInput"
    assert people.users() == []


def test_a_name_is_taken_whatever_its_case(people: People) -> None:
    people.add("Örs", "viewer")
    for same in ("örs", "ÖRS", " Örs ", "O\u0308rs"):
        with pytest.raises(Conflict, match="already"):
            people.add(same, "viewer")


def test_unknown_roles_users_and_link_times_are_refused(people: People) -> None:
    people.add("Rita", "reviewer")
    assert outcome(lambda: people.add("X", "root")) == "BadInput"
    assert outcome(lambda: people.set_role("Rita", "root", by=None)) == "BadInput"
    for act in (people.user, people.link):
        assert outcome(partial(act, "Nobody")) == "NotFound"
    for hours in (0, -1, float("nan"), float("inf"), 10_000):
        with pytest.raises(BadInput):
            people.link("Rita", hours=hours)


def test_the_audit_says_who_did_what(people: People, db: Database, admin: UserView) -> None:
    rita = people.add("Rita", "reviewer", by=admin.id)
    people.redeem(people.link("Rita", by=admin.id))
    people.set_role("Rita", "viewer", by=admin.id)
    people.set_password("Rita", PHRASE, by=admin.id)
    people.sign_out(people.sign_in("Rita", PHRASE)[0])
    people.disable("Rita", by=admin.id)
    rows = [(row.user_id, row.action) for row in everything(db, Audit)]
    assert rows == [
        (None, "user added"), (admin.id, "user added"), (admin.id, "link made"), (rita.id, "signed in"), (admin.id, "role set"),
        (admin.id, "password set"), (rita.id, "signed in"), (rita.id, "signed out"), (admin.id, "user disabled"),
    ]  # fmt: skip
    assert everything(db, Audit)[4].detail == {"user": rita.id, "before": "reviewer", "after": "viewer"}


def test_expired_links_sessions_and_failures_are_tidied_away(people: People, db: Database, clock: Clock) -> None:
    people.add("Rita", "reviewer")
    people.redeem(people.link("Rita"))
    outcome(lambda: people.sign_in("x", PHRASE))
    clock.time += 61 * DAY
    outcome(lambda: people.sign_in("y", PHRASE))
    assert everything(db, SignedIn) == everything(db, SignInLink) == []
    assert len(everything(db, SignInFailure)) == 1


def test_views_cannot_be_changed(admin: UserView) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        admin.role = "viewer"  # type: ignore[misc]
