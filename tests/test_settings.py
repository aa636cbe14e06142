"""Settings are read once, refuse what they do not know, and report every problem together."""

import os
import stat
from pathlib import Path

import pytest

from ft.errors import BadInput, Unavailable
from review.settings import VARIABLES, Settings


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        Settings.from_env({"TIEBREAK_PORT": "http", "TIEBREAK_DEVICE": "tpu", "TIEBREAK_PROT": "1", "TIEBREAK_DEMO": "yes"})
    for name in ("TIEBREAK_PORT", "TIEBREAK_DEVICE", "TIEBREAK_PROT is not a setting", "TIEBREAK_DEMO"):
        assert name in str(caught.value)


def test_no_variable_is_needed_and_the_database_lives_in_the_home(home: Path) -> None:
    settings = Settings.from_env()
    assert settings.home == home
    assert settings.database_url == f"sqlite:///{home}/tiebreak.db"
    assert (settings.host, settings.port, settings.engine, settings.base) == ("127.0.0.1", 7860, "local", "embedded")


def test_other_peoples_variables_are_left_alone() -> None:
    assert Settings.from_env({"PATH": "/bin", "TIEBREAK_FULL": "1"}).demo


@pytest.mark.parametrize("port", ["0", "65536", "-1", "7860 ", "٣", "1e3", ""])
def test_a_port_is_a_whole_number_in_range(port: str) -> None:
    with pytest.raises(BadInput, match="TIEBREAK_PORT"):
        Settings.from_env({"TIEBREAK_PORT": port})


@pytest.mark.parametrize("url", ["tiebreak.example.com", "ftp://x", "https://x/path", "https://u:p@x", "javascript:alert(1)"])
def test_a_public_address_is_scheme_host_and_port_only(url: str) -> None:
    with pytest.raises(BadInput, match="TIEBREAK_PUBLIC_URL"):
        Settings.from_env({"TIEBREAK_PUBLIC_URL": url})


def test_the_address_is_one_a_browser_can_open(home: Path) -> None:
    assert Settings(home, host="0.0.0.0", port=80).address == "http://127.0.0.1:80"
    assert Settings(home, host="::1").address == "http://[::1]:7860"
    assert Settings(home, public_url="https://t.example.com").address == "https://t.example.com"


def test_the_home_is_private_and_made_on_demand(tmp_path: Path) -> None:
    folder = Settings(tmp_path / "a" / "b").folder("exports")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_open_home_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Settings(tmp_path).folder()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="Set TIEBREAK_HOME"):
        Settings(tmp_path / "file" / "home").folder()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Unavailable, match="Set TIEBREAK_HOME"):
        Settings(tmp_path).folder()


def test_shown_settings_hide_the_database_password(home: Path) -> None:
    shown = Settings(home, database_url="postgresql://rita:secret@db/tiebreak").shown()
    assert "secret" not in str(shown)
    assert set(shown) == set(VARIABLES)
