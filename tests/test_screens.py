"""The pieces every screen is made of: who is let in, how errors are said, what is escaped, that colours can be read."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from ft.errors import Refused
from ft.specs import TrainSpec
from review.protocol.ballots import BlindPair
from review.screens import drawing, parts, theme
from review.screens.lab import data, retrain
from review.screens.review import lit, pair_html, progress_html
from review.screens.scores import difference
from review.services.boards import Difference
from review.services.people import People

SCREENS = Path(theme.__file__).parent
HOSTILE = "<img src=x onerror=alert(1)>\"' & ${1+1} {{constructor}}"


@pytest.fixture
def house(db: Any) -> Any:
    people = People(db)
    people.add("Rita", "reviewer")
    people.add("Erik", "engineer")
    return SimpleNamespace(people=people)


@pytest.fixture
def seen() -> Iterator[list[tuple[str, str]]]:
    log: list[tuple[str, str]] = []

    def observe(person: Any, name: str) -> None:
        log.append((person.name, name))

    parts.observers.append(observe)
    yield log
    parts.observers.remove(observe)


def asked_by(name: str | None) -> Any:
    return SimpleNamespace(username=name)


def test_a_handler_gets_the_person_first_and_then_its_values(house: Any, seen: list[tuple[str, str]]) -> None:
    @parts.acts(house, "reviewer")
    def greet(person: Any, word: str) -> str:
        return f"{word} {person.name}"

    assert greet(asked_by("Rita"), "Hello") == "Hello Rita"
    assert [name for name, _ in seen] == ["Rita"]


@pytest.mark.parametrize("name", ["Erik", None, "", "Nobody"])
def test_others_never_reach_a_handler(house: Any, seen: list[tuple[str, str]], name: str | None) -> None:
    ran = []

    @parts.acts(house, "reviewer")
    def secret(person: Any) -> None:
        ran.append(person)

    with pytest.raises(gr.Error):
        secret(asked_by(name))
    assert (ran, seen) == ([], [])


def test_a_role_taken_away_counts_from_the_next_call_on(house: Any) -> None:
    admin = house.people.add("Ada", "admin")

    @parts.acts(house, "reviewer")
    def rate(person: Any) -> str:
        return "in"

    assert rate(asked_by("Rita")) == "in"
    house.people.set_role("Rita", "viewer", admin.id)
    with pytest.raises(gr.Error):
        rate(asked_by("Rita"))


def test_a_disabled_person_reaches_nothing(house: Any) -> None:
    admin = house.people.add("Ada", "admin")
    house.people.disable("Rita", admin.id)

    @parts.acts(house, "reviewer")
    def rate(person: Any) -> str:
        return "in"

    with pytest.raises(gr.Error):
        rate(asked_by("Rita"))


def test_what_a_service_refuses_is_said_in_its_words_and_escaped(house: Any) -> None:
    @parts.acts(house, "reviewer")
    def refuse(person: Any) -> None:
        raise Refused(f"Not now {HOSTILE}")

    with pytest.raises(gr.Error) as caught:
        refuse(asked_by("Rita"))
    assert caught.value.message == f"Not now {parts.escape(HOSTILE)}"
    assert "<img" not in caught.value.message


@pytest.mark.parametrize("streams", [False, True])
def test_an_unforeseen_error_shows_an_id_and_the_log_has_the_rest(house: Any, caplog: pytest.LogCaptureFixture, streams: bool) -> None:
    def breaks(person: Any) -> None:
        raise ValueError("/canary/path")

    def breaks_midway(person: Any) -> Iterator[str]:
        yield "first"
        raise ValueError("/canary/path")

    handler = parts.acts(house, "reviewer")(breaks_midway if streams else breaks)
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        list(handler(asked_by("Rita"))) if streams else handler(asked_by("Rita"))
    assert "canary" not in caught.value.message
    number_said = re.search(r"id ([0-9a-f]{8})", caught.value.message)
    assert number_said
    assert number_said[1] in caplog.text
    assert "/canary/path" in caplog.text


def test_a_quiet_handler_fails_without_a_word_on_the_page(house: Any) -> None:
    @parts.acts(house, "reviewer", quiet=True)
    def tick(person: Any) -> None:
        raise Refused("No.")

    for name in ("Rita", "Erik", None):
        with pytest.raises(gr.Error) as caught:
            tick(asked_by(name))
        assert caught.value.visible is False


def test_both_sides_of_a_pair_are_treated_alike() -> None:
    def html(left: str, right: str) -> str:
        return pair_html(BlindPair("a1", "asked", left, right, 0, 9, 60))

    there, back = html("ONE", "TWO"), html("TWO", "ONE")
    assert there == back.replace("TWO", "\0").replace("ONE", "TWO").replace("\0", "ONE")
    one, two = re.findall(r"<section class=\"tb-pane.*?</section>", html("same", "same"))
    assert one.replace("left", "right").replace("1 · Left", "2 · Right") == two


def test_a_pair_shows_texts_as_texts() -> None:
    shown = pair_html(BlindPair("a1", HOSTILE, HOSTILE, HOSTILE, 0, 9, 60))
    assert shown.count(parts.escape(HOSTILE)) == 3
    assert "<img" not in shown


def test_only_the_chosen_vote_is_marked() -> None:
    assert ["tb-chosen" in button.elem_classes for button in lit("tie")] == [False, False, True, False]
    assert not any("tb-chosen" in button.elem_classes for button in lit(""))


def test_progress_says_how_much_is_left_until_it_is_done() -> None:
    assert "7 of 20 · about 3 minutes left" in progress_html(7, 20, 180)
    assert "left" not in progress_html(20, 20).replace("tb-", "")
    assert progress_html(0, 0) == ""


def test_a_header_shows_only_ones_own_parts(house: Any) -> None:
    for role, own in parts.PARTS_OF.items():
        person: Any = SimpleNamespace(name=HOSTILE, role=role)
        shown = parts.header_html(person, own[0])
        assert re.findall(r'<a href="/(\w+)"', shown) == list(own)
        assert shown.count("aria-current") == 1
        assert "<img" not in shown


def test_whoever_can_ask_an_arm_by_name_does_not_vote() -> None:
    for own in parts.PARTS_OF.values():
        assert not {"review", "lab"} <= set(own)


def test_a_curve_leaves_out_what_is_no_number_and_escapes_its_words() -> None:
    drawn = drawing.curve([(HOSTILE, [(0, 2.0), (1, float("nan")), (2, 1.0), (3, float("inf"))])], HOSTILE)
    assert "<img" not in drawn
    assert "nan" not in drawn.lower()
    assert len(re.findall(r"<polyline", drawn)) == 1
    assert drawn.count("<circle") == 2


@pytest.mark.parametrize("points", [[], [(5, 1.0)], [(0, 1.0), (10, 1.0)], [(0, 0.0), (1, 0.0)], [(0, 1e-9), (1, 1e9)]])
def test_any_curve_can_be_drawn(points: list[tuple[float, float]]) -> None:
    assert drawing.curve([("loss", points)], "Loss by step").count("<svg") == bool(points)


def test_an_interval_stays_inside_its_bar() -> None:
    drawn = drawing.interval_bar(1.5, -3, 9, "far out")
    places = [float(x) for x in re.findall(r' (?:x1|x2|cx)="([\d.]+)"', drawn)]
    assert places
    assert min(places) >= 0
    assert max(places) <= 160


def test_a_difference_is_said_in_words_before_numbers() -> None:
    said = [difference(Difference(value, low, high), 3) for value, low, high in ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.1, -0.1, 0.3))]
    assert [re.findall(r">([a-z ]+)<", one)[0] for one in said] == ["better", "worse", "no clear difference"]
    assert "+0.200 (+0.100 to +0.300)" in said[0]


def test_columns_are_read_as_written_and_nonsense_is_refused() -> None:
    assert data.columns("instruction = Question; output=Reply") == {"instruction": "Question", "output": "Reply"}
    assert data.columns("  ") is None
    with pytest.raises(Exception, match="Write them like"):
        data.columns("instruction")


def test_an_untouched_retrain_form_is_the_default_spec() -> None:
    usual = TrainSpec(name="x", accumulation=1)
    with gr.Blocks():
        fields = retrain.form(usual)
    values = {name: field.value for name, field in fields.items()} | {"name": "x"}
    assert retrain.spec_of(values, usual) == usual


def test_an_emptied_retrain_form_is_refused_by_the_spec_with_every_reason() -> None:
    usual = TrainSpec()
    with gr.Blocks():
        fields = retrain.form(usual)
    spec = retrain.spec_of(dict.fromkeys(fields), usual)
    assert len(spec.problems()) >= 6


def colours(selector: str) -> dict[str, str]:
    css = theme.style_sheet()
    body = css[css.index(selector) :].split("}", 1)[0]
    return dict(re.findall(r"--(tb-[\w-]+): (#[0-9a-f]{6})", body))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("selector", [":root {", ":root.dark"])
def test_every_text_colour_can_be_read_on_every_ground_it_stands_on(selector: str) -> None:
    found = colours(selector)
    grounds = ["tb-page", "tb-surface", "tb-field"]
    pairs = [(ink, ground) for ink in ("tb-ink", "tb-muted", "tb-accent", "tb-good", "tb-warn", "tb-bad") for ground in grounds]
    pairs += [("tb-ink", "tb-accent-soft"), *((f"tb-{tone}", f"tb-{tone}-soft") for tone in ("good", "warn", "bad"))]
    weak = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in pairs if contrast(found[pair[0]], found[pair[1]]) < 4.5}
    assert weak == {}
    assert contrast("#ffffff", found["tb-accent-fill"]) >= 4.5
    assert all(contrast(found["tb-field-line"], found[ground]) >= 3 for ground in grounds)


def test_the_contrast_check_sees_grey_on_grey() -> None:
    assert contrast("#999999", "#aaaaaa") < 1.5
    assert round(contrast("#000000", "#ffffff")) == 21


def test_the_look_loads_nothing_from_outside() -> None:
    files = [path.read_text(encoding="utf-8") for path in SCREENS.rglob("*") if path.suffix in (".css", ".js")]
    for text in [*files, theme.theme()._get_theme_css()]:
        plain = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\((?!['\"]?data:)", plain)
    assert theme.theme()._stylesheets == []
