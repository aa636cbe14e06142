"""Plain pairs: one answer to the question, one to quite another; only where nobody who reads could doubt it."""

from dataclasses import replace

import pytest

from review.protocol.plain_pairs import LONGEST, Candidate, plain_pairs, plainly_better, topic_words, usual_words
from tests.topical import TOPICS

PRINTER = Candidate(1, 1, 1, *TOPICS["printer"], TOPICS["printer"][1])
PARCEL = Candidate(2, 2, 2, *TOPICS["parcel"], TOPICS["parcel"][1])


def test_an_answer_to_the_question_is_plainly_better_than_one_to_another() -> None:
    assert plainly_better(PRINTER, PARCEL)
    assert plainly_better(PARCEL, PRINTER)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (PRINTER, replace(PARCEL, arm=1)),  # an arm never meets itself
        (PRINTER, replace(PARCEL, prompt=1)),
        (PRINTER, replace(PARCEL, text="Yes, of course.")),  # too short to be plainly anything
        (PRINTER, replace(PARCEL, text=PARCEL.text + "x" * LONGEST)),
        (PRINTER, replace(PARCEL, text="Please write to us again, we are always glad to answer whatever you ask.")),  # would fit anywhere
        (PRINTER, replace(PARCEL, text="The neighbour who took the parcel has a printer too.")),  # touches the question
        (replace(PRINTER, text="Please restart everything and wait for two minutes."), PARCEL),  # says nothing of the question
        (replace(PRINTER, text=PARCEL.text), PARCEL),
        (PRINTER, replace(PARCEL, question=PRINTER.question, reference=PRINTER.reference)),  # the same question twice
        (replace(PRINTER, text=f"{PRINTER.question} {PRINTER.question}"), PARCEL),  # an echo
        (replace(PRINTER, reference=""), PARCEL),  # nobody said what is right
    ],
)
def test_a_pair_that_leaves_room_for_doubt_is_no_plain_pair(good: Candidate, bad: Candidate) -> None:
    assert not plainly_better(good, bad)


def test_endings_and_common_words_carry_no_topic() -> None:
    assert topic_words("The printers, with your help") == topic_words("printer: PRÍNTER!") != topic_words("parcel")


def test_each_question_is_used_once_and_no_more_than_asked_for() -> None:
    made = [Candidate(2 * i + arm, arm, i, *topic, topic[1]) for i, topic in enumerate(TOPICS.values()) for arm in (0, 1)]
    found = plain_pairs(made, made[::-1], most=4)
    assert len({good.prompt for good, _ in found}) == len({bad.answer for _, bad in found}) == len(found) == 4
    assert all(plainly_better(good, bad) for good, bad in found)
    assert plain_pairs(made, [], 4) == plain_pairs([], made, 4) == []


def test_words_of_the_product_itself_part_no_questions() -> None:
    said = [f"Open the portal of ConnectPro, then {answer}" for _, answer in TOPICS.values()]
    made = [
        Candidate(2 * i + arm, arm, i, f"ConnectPro portal: {topic[0]}", said[i], said[i])
        for i, topic in enumerate(TOPICS.values())
        for arm in (0, 1)
    ]
    assert {"portal", "connec"} <= usual_words(c.topic for c in made)
    assert not plainly_better(made[0], made[3])
    assert len(plain_pairs(made, made[::-1], 6)) >= 4
