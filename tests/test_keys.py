"""Keys for programs: shown once, kept as a hash, never worth more than whoever made them."""

from typing import Any

import pytest

from ft.errors import BadInput, Conflict, NotFound, Refused
from review.services.keys import Keys
from review.services.people import People
from storage.tables import ApiKey, Audit


@pytest.fixture
def keys(db: Any) -> Keys:
    return Keys(db)


@pytest.fixture
def people(db: Any) -> People:
    made = People(db)
    for name, role in (("Ada", "admin"), ("Ann", "admin"), ("Erik", "engineer")):
        made.add(name, role)
    return made


def test_a_key_says_whose_it_is_and_only_its_hash_is_kept(db: Any, keys: Keys) -> None:
    key, made = keys.add("Nightly  job", "engineer")
    assert made.name == "Nightly job"
    assert keys.who(key) == made
    with db.session() as session:
        row = session.get(ApiKey, made.id)
        assert key not in str(row.model_dump())
        assert len(row.key_hash) == 64


@pytest.mark.parametrize("key", ["", "tb-", "tb-" + "x" * 43, "x" * 5000, "tb-\ud800" + "x" * 30])
def test_anything_else_is_nobody(keys: Keys, key: str) -> None:
    keys.add("one", "engineer")
    assert keys.who(key) is None


def test_a_revoked_key_is_nobody_and_its_name_stays_taken(keys: Keys) -> None:
    key, _ = keys.add("one", "engineer")
    assert keys.revoke("one", by=None).revoked
    assert keys.revoke("one", by=None).revoked, "twice is once"
    assert keys.who(key) is None
    with pytest.raises(Conflict):
        keys.add("ONE", "engineer")
    (listed,) = keys.keys()
    assert listed.revoked
    with pytest.raises(NotFound):
        keys.revoke("two", by=None)


def test_only_an_admin_makes_and_revokes_keys(keys: Keys, people: People) -> None:
    erik, ada = people.user("Erik").id, people.user("Ada").id
    with pytest.raises(Refused):
        keys.add("mine", "engineer", by=erik)
    keys.add("hers", "engineer", by=ada)
    with pytest.raises(Refused):
        keys.revoke("hers", by=erik)
    for name, role in (("", "engineer"), ("x" * 81, "engineer"), ("x", "root")):
        with pytest.raises(BadInput):
            keys.add(name, role, by=ada)


def test_a_key_is_worth_no_more_than_its_maker_is_today(keys: Keys, people: People) -> None:
    ada = people.user("Ada").id
    asks, reads = keys.add("asks", "engineer", by=ada)[0], keys.add("reads", "viewer", by=ada)[0]
    people.set_role("Ada", "viewer", by=None)
    assert keys.who(asks) is None
    assert keys.who(reads)
    people.disable("Ada", by=None)
    assert keys.who(reads) is None
    people.enable("Ada", by=None)
    people.set_role("Ada", "admin", by=None)
    assert keys.who(asks)


def test_making_revoking_and_using_a_key_to_change_things_is_written_down(db: Any, keys: Keys, people: People) -> None:
    key, made = keys.add("one", "engineer", by=people.user("Ada").id)
    keys.note(made, "adapter loaded over HTTP", name="x")
    keys.revoke("one", by=people.user("Ada").id)
    with db.session() as session:
        rows = [(row.action, row.detail) for row in session.query(Audit).all() if "key" in row.detail]
    assert [action for action, _ in rows] == ["key made", "adapter loaded over HTTP", "key revoked"]
    assert key not in str(rows)


def test_the_screen_shows_a_key_once_and_names_only_afterwards(keys: Keys) -> None:
    from review.screens.admin_keys import key_html, keys_html

    key, made = keys.add("<b>job</b> & co", "viewer")
    keys.revoke(made.name, by=None)
    shown = keys_html(keys.keys())
    assert key not in shown
    assert "<b>" not in shown + key_html(made.name, key).replace("<b>Key of", "").replace("</b>. Copy", "")
    assert "revoked" in shown
    assert "read usage figures" in shown
    assert key in key_html(made.name, key)
    assert "No program has a key yet" in keys_html([])
