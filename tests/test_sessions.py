"""The end of a session: what it settled and how far it agrees, without a word on who was who."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from ft.errors import Refused
from review.protocol.ballots import Reward
from review.protocol.settled import ENOUGH, STEP, Judged, agreement, is_settled, told
from review.services.sessions import Sessions
from storage.database import Database
from tests.judging import House, cast, prefer
from tests.topical import topical

TUNED = "Certainly!"


def votes(count: int, points: tuple[float, float] = (1.0, 0.0), mine: bool = True, subject: str = "refunds") -> list[Judged]:
    return [Judged((subject,), (1, 2), points, mine) for _ in range(count)]


def reward(house: House, reviewer: int, since: float) -> Reward:
    return Sessions(house.db, now=house.clock).reward(house.reviewers[reviewer], since)


def test_a_subject_is_settled_by_enough_votes_of_one_mind() -> None:
    assert not is_settled([])
    assert not is_settled([(ENOUGH - 1, 0)])
    assert is_settled([(ENOUGH, 0)])
    assert not is_settled([(6, 5)])
    assert is_settled([(10, 0), (3, 2)]), "arms that met too seldom say nothing yet"
    assert not is_settled([(10, 0), (6, 6)])


def test_what_a_session_settled_is_told_the_same_whichever_arm_is_ahead() -> None:
    assert told(votes(12)) == told(votes(12, (0.0, 1.0))) == ("“refunds” moved from unclear to settled.",)
    assert told(votes(12, mine=False) + votes(5)) == (), "it was settled before"
    assert told(votes(5, (0.5, 0.5)) + votes(4, mine=False)) == ("“refunds” is still unclear: every vote on it helps.",)
    assert told([]) == ()


def test_no_single_vote_moves_a_line() -> None:
    """T18: a session's votes count in steps of five."""
    others = votes(8, mine=False)
    lines = [told(others + votes(mine)) for mine in range(4 * STEP)]
    changes = [mine for mine in range(1, len(lines)) if lines[mine] != lines[mine - 1]]
    assert changes
    assert all(mine % STEP == 0 for mine in changes)


def test_agreement_is_told_to_a_tenth_and_only_over_five_shared_pairs() -> None:
    mine = {str(pair): "left" for pair in range(6)}
    assert agreement(mine, [(str(pair), "left") for pair in range(4)]) is None
    assert agreement(mine, [("0", "left")] * 9) is None
    assert agreement(mine, [(str(pair), "left" if pair else "tie") for pair in range(6)]) == 0.8
    assert agreement(mine, [*((str(pair), "left") for pair in range(5)), ("0", "tie")]) == 0.9
    assert agreement({}, [("0", "left")]) is None


def test_the_reward_tells_votes_minutes_subjects_and_agreement_and_no_arm(db: Database) -> None:
    house = topical(db, prompts=132, reviewers=2, votes_per_pair=2, tags=("parcel",))
    since = house.clock.time

    def better(found: Any) -> str:
        return str(prefer(found, TUNED))

    for _ in range(18):
        cast(house, 0, better, seconds=30)
    told = reward(house, 0, since)
    assert (told.votes, told.minutes, told.agreement) == (18, 9, None)
    assert told.lines == ("“parcel” moved from unclear to settled.",)
    for _ in range(18):
        cast(house, 1, better, seconds=30)
    told = reward(house, 1, since)
    assert told.agreement == 1.0
    assert not any("settled" in line for line in told.lines), "others had settled it"
    said = json.dumps(asdict(told))
    assert not [word for word in ("base", "tuned", "left", "right", "better", "ahead") if word in said]


def test_a_session_without_votes_has_no_reward_and_only_a_reviewer_may_ask(db: Database) -> None:
    house = topical(db, prompts=6)
    assert reward(house, 0, 0.0) == Reward((), 0, 0, None)
    cast(house, 0)
    assert reward(house, 0, house.clock.time + 1) == Reward((), 0, 0, None)
    assert reward(house, 0, 0.0).votes == 1
    with pytest.raises(Refused):
        Sessions(db).reward(house.engineer, 0.0)
