"""The pieces every screen is made of: who is let in, how errors are said, what is escaped, that colours can be read."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from ft.errors import BadInput, Refused
from ft.specs import LoraSpec, TrainSpec
from review.protocol.ballots import PRACTICE, Ballot, BlindPair, Rest
from review.protocol.training_pairs import TRAINING_PAIRS
from review.screens import drawing, parts, theme
from review.screens.lab import compare, data, promotion, retrain, retrain_form
from review.screens.review import sent as read
from review.screens.review.desk import KEYS, desk_html, pane
from review.screens.review.scene import pair_scene, practice_scene, rest_scene
from review.screens.scores import difference
from review.services.boards import Difference
from review.services.keeping import Group, WhatGotWorse
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
    def sent(left: str, right: str) -> str:
        return json.dumps(pair_scene(BlindPair("a1", "asked", left, right, 0, 9, 60)))

    there, back = sent("ONE", "TWO"), sent("TWO", "ONE")
    assert there == back.replace("TWO", "\0").replace("ONE", "TWO").replace("\0", "ONE")
    left, right = pane("left", "1 · Left answer", "L"), pane("right", "2 · Right answer", "R")
    assert left.replace("left", "right").replace("1 · Left", "2 · Right").replace('"L"', '"R"') == right
    assert left in desk_html()
    assert right in desk_html()


def test_a_pair_goes_to_the_page_as_it_is_and_nothing_is_added() -> None:
    pair = BlindPair("a1", HOSTILE, HOSTILE, HOSTILE, 0, 9, 60, criteria=("accuracy",), reasons=("too vague",))
    assert pair_scene(pair) == {"stage": "pair", **asdict(pair)}


def test_a_practice_pair_does_not_bring_its_solution() -> None:
    assert len(TRAINING_PAIRS) == PRACTICE
    for training in TRAINING_PAIRS:
        sent = json.dumps(practice_scene(training), ensure_ascii=False)
        assert training.explanation not in sent
        assert "best" not in practice_scene(training)


def test_a_rest_says_what_happens_next() -> None:
    assert rest_scene(Rest("Come back later.", 0, 0))["title"] == "Nothing to judge right now"
    assert "Thank you" in rest_scene(Rest("All done.", 4, 4))["title"]


def test_every_key_of_the_desk_is_said_on_a_button_too_and_in_the_overlay() -> None:
    shown = desk_html()
    for keys, words in KEYS:
        assert parts.escape(words) in shown
        said = [key for key in keys if f">{key}</kbd>" in shown or f'data-hint="{key}"' in shown or key == "Esc"]
        assert said, words


SENT = {
    "assignment": "a",
    "choice": "tie",
    "key": "k",
    "comment": "",
    "reasons": ["left: too vague"],
    "criteria": {"accuracy": "same"},
    "revises": 0,
}


def test_what_the_page_sends_is_read_as_a_ballot() -> None:
    assert read.ballot(SENT) == Ballot("a", "tie", "k", reasons=("left: too vague",), criteria={"accuracy": "same"})


@pytest.mark.parametrize("name", list(SENT))
@pytest.mark.parametrize("value", [None, 1.5, True, [[]], "x"])
def test_a_ballot_of_another_shape_is_refused_in_words(name: str, value: Any) -> None:
    if type(value) is type(SENT[name]):
        return
    for sent in ({**SENT, name: value}, {other: kept for other, kept in SENT.items() if other != name}, None, [], "x"):
        if name == "reasons" and isinstance(sent, dict) and isinstance(sent.get("reasons"), list):
            continue
        with pytest.raises(BadInput, match="Load the page again"):
            read.ballot(sent)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "seconds"), [(5, 5.0), (-1, 0.0), (1e30, 60.0)])
def test_a_span_the_page_measured_stays_within_reason(value: float, seconds: float) -> None:
    assert read.seconds({"seconds": value}, "seconds", 60) == seconds
    with pytest.raises(BadInput):
        read.seconds({"seconds": "5"}, "seconds", 60)


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
    assert drawn.count('class="tb-mark') == 2


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


def test_a_form_has_every_setting_with_help_and_gives_back_any_spec() -> None:
    usual = TrainSpec(
        name="x", objective="dpo", beta=0.3, start_from="y", epochs=1.5, max_steps=7, system_prompt="Be brief.", weight_decay=0.01,
        checkpoint_minutes=3.0, lora=LoraSpec(rank=4, alpha=4, dropout=0.1, targets=("q_proj",), rslora=True, dora=True),
    )  # fmt: skip
    with gr.Blocks():
        fields = retrain.form(TrainSpec())
    filled = retrain_form.values(usual)
    assert set(filled) == set(fields)
    assert all(field.label and field.info for field in fields.values())
    given = retrain.spec_of(filled, TrainSpec())
    assert given == usual
    assert TrainSpec.from_dict(json.loads(json.dumps(given.to_dict()))) == usual


def test_an_emptied_retrain_form_is_refused_by_the_spec_with_every_reason() -> None:
    usual = TrainSpec()
    with gr.Blocks():
        fields = retrain.form(usual)
    spec = retrain.spec_of(dict.fromkeys(fields), usual)
    assert len(spec.problems()) >= 6


def test_a_name_in_a_tables_head_is_escaped_once() -> None:
    run = SimpleNamespace(name=HOSTILE, status="finished", step=1, steps=1, validation=(), started_at=None, ended_at=None)
    beside = compare.compared_html([run, run], [("rank", [8, 16])], {})  # type: ignore[list-item]
    group = Group("tone", 2, 2, 1, 1)
    worse = promotion.worse_html(WhatGotWorse(HOSTILE, HOSTILE, 2, 2, (), 0, (group,)))
    for drawn in (beside, worse):
        assert parts.escape(HOSTILE) in drawn
        assert "&amp;lt;" not in drawn
        assert "&lt;b dir" not in drawn
        assert "<img" not in drawn


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
