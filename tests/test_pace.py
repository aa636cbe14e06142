"""Background work finds the size that pays, and lets people go first."""

from collections.abc import Callable

import pytest

from ft.pace import FIRST, LONGEST, MOST_PATIENCE, PATIENCE, STEPS, Crew, Pace


def settle(most: int, seconds: Callable[[int], float]) -> int:
    pace = Pace(most)
    for _ in range(20 * STEPS):
        pace.work_took(seconds(pace.rows), pace.rows)
    return pace.rows


@pytest.mark.parametrize(
    ("what", "seconds", "expected"),
    [
        ("rows cost nothing more", lambda rows: 0.01, 64),
        ("each row costs the same", lambda rows: 0.001 * rows, FIRST),
        ("twice the rows pay until 32", lambda rows: 0.01 if rows <= 32 else 0.02, 32),
        ("a step would hold people up", lambda rows: LONGEST * rows / 20, FIRST),
        ("even the first size holds people up", lambda rows: LONGEST * rows / 6, FIRST // 2),
        ("fewer rows would hold people up as long", lambda rows: 2 * LONGEST, FIRST),
        ("two rows are as slow as one", lambda rows: LONGEST * (2 + rows / 8), FIRST),
    ],
)
def test_the_size_grows_as_long_as_it_pays(what: str, seconds: Callable[[int], float], expected: int) -> None:
    assert settle(64, seconds) == expected, what


def test_a_busy_machine_makes_steps_smaller_and_a_calm_one_large_again() -> None:
    pace = Pace(64)
    sizes = []
    for busy in (1, 8, 1):
        for _ in range(20 * STEPS):
            pace.work_took(busy * LONGEST * (8 + pace.rows) / 180, pace.rows)
        sizes.append(pace.rows)
    calm, busy, again = sizes
    assert busy < calm
    assert again == calm


def test_what_did_not_fit_the_memory_is_not_tried_again() -> None:
    pace = Pace(64)
    for _ in range(20 * STEPS):
        pace.work_took(0.01, pace.rows)
    pace.too_much()
    for _ in range(20 * STEPS):
        pace.work_took(0.01, pace.rows)
    assert pace.rows == 32


def test_a_batch_that_is_not_full_and_a_turn_of_reading_measure_nothing() -> None:
    pace = Pace(64)
    for _ in range(10 * STEPS):
        pace.work_took(0.01, FIRST - 1)
        pace.work_took(0.01, 0)
    assert pace.rows == FIRST


def test_background_work_takes_no_more_time_than_people() -> None:
    pace, people, work = Pace(64), 0.0, 0.0
    for _ in range(1000):
        pace.people_took(0.02)
        people += 0.02
        if pace.work_may(True):
            pace.work_took(0.13, 64)
            work += 0.13
    assert 0.8 * people <= work <= people + 0.13
    assert pace.work_may(False)


def test_time_saved_up_is_one_turn_at_most() -> None:
    pace = Pace(64)
    pace.work_took(0.1, 64)
    for _ in range(1000):
        pace.people_took(0.02)
    turns = 0
    while pace.work_may(True) and turns < 10:
        pace.work_took(0.1, 64)
        turns += 1
    assert turns == 1


def test_steps_far_too_long_are_noticed_after_three() -> None:
    pace = Pace(64)
    for _ in range(20 * STEPS):
        pace.work_took(0.002 * (8 + pace.rows), pace.rows)
    before = pace.rows
    for _ in range(3):
        pace.work_took(4 * LONGEST, before)
    assert pace.rows == before // 2


def test_rows_still_under_way_from_a_larger_size_measure_nothing() -> None:
    pace = Pace(64)
    for _ in range(20 * STEPS):
        pace.work_took(LONGEST * pace.rows / 180, pace.rows)
    large = pace.rows
    for _ in range(3):
        pace.work_took(4 * LONGEST, large)
    for _ in range(10 * STEPS):
        pace.work_took(4 * LONGEST, large)
    assert pace.rows == large // 2


def works(crew: Crew, seconds: float, waited: float) -> int:
    for _ in range(int(seconds / 0.05)):
        crew.worked(0.05, 0.05 / waited)
    return crew.threads


def test_on_a_busy_machine_fewer_threads_compute_and_on_a_calm_one_all() -> None:
    crew = Crew(4)
    assert works(crew, 10, waited=1.05) == 4
    assert works(crew, 1, waited=6) == 1
    assert works(crew, 30, waited=3) == 1
    assert works(crew, 60, waited=1.05) == 4


def test_a_calm_that_does_not_last_is_trusted_less_each_time() -> None:
    crew, tries = Crew(2), 0
    for _ in range(20):
        works(crew, 0.3, waited=6)
        tries += works(crew, 2 * PATIENCE + 1, waited=1.0) == 2
    assert 1 <= tries <= 3
    assert works(crew, 2 * MOST_PATIENCE, waited=1.0) == 2


def test_a_short_wait_changes_nothing() -> None:
    crew = Crew(2)
    assert not crew.worked(0.1, 0.01)
    assert works(crew, 1, waited=1.0) == 2
