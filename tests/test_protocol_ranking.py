"""Win rates, Bradley-Terry and evidence against closed forms, outside tools and simulation."""

import csv
import json
import math
import time

import evalica
import numpy as np
import pytest
from scipy.stats import norm

from review.protocol.ranking import Duel, bradley_terry, first_decisive, for_arm, log_e_value, strengths, win_rate
from tests.conftest import shared

CITATIONS = {
    ("Biometrika", "Comm Statist"): (730, 33),
    ("Biometrika", "JASA"): (498, 320),
    ("Biometrika", "JRSS-B"): (221, 284),
    ("Comm Statist", "JASA"): (68, 813),
    ("Comm Statist", "JRSS-B"): (17, 276),
    ("JASA", "JRSS-B"): (142, 325),
}  # Stigler (1994), in Agresti (2002)
CITED = {"Biometrika": 0.0, "Comm Statist": -2.94907, "JASA": -0.47957, "JRSS-B": 0.26895}


def votes(*outcomes: str, prompts: int = 0, reviewers: int = 1) -> list[Duel]:
    """One vote a prompt by default."""
    return [Duel(i % prompts if prompts else i, i % reviewers, "a", "b", outcome) for i, outcome in enumerate(outcomes)]  # type: ignore[arg-type]


def test_ties_count_half_and_both_bad_is_counted_apart() -> None:
    rate = win_rate(votes("first", "first", "tie", "second", "both_bad"), "a")
    assert (rate.value, rate.votes, rate.wins, rate.losses, rate.ties, rate.both_bad) == (0.625, 5, 2, 1, 1, 1)
    assert rate.both_bad_share == 0.2


def test_the_two_arms_of_a_study_mirror_each_other() -> None:
    duels = votes("first", "tie", "second", "first", "both_bad", "first", prompts=4, reviewers=2)
    a, b = win_rate(duels, "a"), win_rate(duels, "b")
    assert a.value == pytest.approx(1 - b.value)
    assert (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low))


def test_no_vote_says_nothing() -> None:
    for duels in ([], votes("both_bad", "both_bad")):
        rate = win_rate(duels, "a")
        assert (rate.value, rate.low, rate.high) == (0.5, 0.0, 1.0)


def test_independent_votes_get_about_wilsons_interval() -> None:
    rate = win_rate(votes(*["first"] * 140, *["second"] * 60), "a")
    z, n, p = norm.ppf(0.975), 200, 0.7
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (rate.low, rate.high) == pytest.approx((middle - half, middle + half), abs=0.005)


@pytest.mark.parametrize("outcomes", [["first"] * 5, ["second"] * 5, ["tie"] * 5, ["first"], ["tie"]])
def test_a_handful_of_equal_votes_never_claims_certainty(outcomes: list[str]) -> None:
    rate = win_rate(votes(*outcomes), "a")
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.high - rate.low > 0.25


def test_repeating_every_vote_ten_times_on_the_same_prompts_adds_no_certainty() -> None:
    once = win_rate(votes(*["first", "first", "second"] * 10), "a")
    tenfold = [Duel(d.prompt, r, "a", "b", d.outcome) for d in votes(*["first", "first", "second"] * 10) for r in range(10)]
    assert win_rate(tenfold, "a").high - win_rate(tenfold, "a").low > 0.85 * (once.high - once.low)


@pytest.mark.parametrize(
    ("prompts", "reviewers", "each", "by_prompt", "by_reviewer"),
    [(60, 1, 1, 0.0, 0.0), (60, 3, 3, 1.0, 0.0), (60, 10, 3, 1.0, 0.5), (150, 12, 2, 0.5, 1.0)],
)
def test_intervals_hold_the_truth_nineteen_times_in_twenty(
    prompts: int, reviewers: int, each: int, by_prompt: float, by_reviewer: float
) -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(0.7, math.hypot(by_prompt, by_reviewer), 100_000) if by_prompt or by_reviewer else np.array([0.7])
    truth = float(np.mean(1 / (1 + np.exp(-draws)))) * 0.8 + 0.1
    hits = sum(covers(rng, prompts, reviewers, each, by_prompt, by_reviewer, truth) for _ in range(200))
    assert 180 <= hits <= 200


def covers(rng: np.random.Generator, prompts: int, reviewers: int, each: int, by_prompt: float, by_reviewer: float, truth: float) -> bool:
    liked, taste = rng.normal(0, by_prompt, prompts), rng.normal(0, by_reviewer, reviewers)
    duels = []
    for prompt in range(prompts):
        for reviewer in rng.choice(reviewers, each, replace=False):
            wins = rng.random() < 1 / (1 + math.exp(-0.7 - liked[prompt] - taste[reviewer]))
            outcome = "tie" if rng.random() < 0.2 else "first" if wins else "second"
            duels.append(Duel(prompt, int(reviewer), "a", "b", outcome))  # type: ignore[arg-type]
    rate = win_rate(duels, "a")
    return rate.low <= truth <= rate.high


def test_ignoring_prompts_and_reviewers_would_miss_the_truth_too_often() -> None:
    """The check above has power: intervals that take votes as independent fail it."""
    rng = np.random.default_rng(4)
    truth = float(np.mean(1 / (1 + np.exp(-rng.normal(0.7, math.hypot(2, 0.5), 100_000))))) * 0.8 + 0.1
    hits = 0
    for _ in range(200):
        liked, taste = rng.normal(0, 2, 60), rng.normal(0, 0.5, 10)
        chance = 1 / (1 + np.exp(-0.7 - np.add.outer(liked, taste)))
        points = np.where(rng.random(chance.shape) < 0.2, 0.5, rng.random(chance.shape) < chance).ravel()
        hits += abs(points.mean() - truth) <= 1.96 * points.std() / math.sqrt(points.size)
    assert hits < 180


def test_bradley_terry_of_two_arms_is_the_log_odds() -> None:
    theta, information = strengths(np.array([[0, 30.0], [10.0, 0]]))
    assert theta[0] - theta[1] == pytest.approx(math.log(3), abs=1e-9)
    assert information[0, 0] == pytest.approx(40 * 0.75 * 0.25)


def test_bradley_terry_gives_the_published_citation_abilities() -> None:
    arms = list(CITED)
    counts = np.zeros((4, 4))
    for (i, j), (wins, losses) in CITATIONS.items():
        counts[arms.index(i), arms.index(j)], counts[arms.index(j), arms.index(i)] = wins, losses
    theta, _ = strengths(counts)
    assert theta - theta[0] == pytest.approx(list(CITED.values()), abs=1e-5)


@pytest.mark.parametrize("name", ["simple", "food"])
def test_bradley_terry_agrees_with_evalica_on_real_votes(name: str) -> None:
    with shared("llmfao", f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = json.loads(shared("expected.json").read_text())[f"llmfao_{name}"]["bt_p"]
    outcome = {"left": "first", "right": "second", "tie": "tie"}
    duels = [Duel(i, 0, r["left"], r["right"], outcome[r["winner"]]) for i, r in enumerate(rows)]  # type: ignore[arg-type]
    found = {s.arm: math.exp(s.value) for s in bradley_terry(duels, sorted(expected))}
    shares = {arm: value / sum(found.values()) for arm, value in found.items()}
    assert shares == pytest.approx(expected, abs=1e-4)


def test_bradley_terry_agrees_with_evalica_on_simulated_votes() -> None:
    rng = np.random.default_rng(5)
    arms, truth = list("abcdef"), rng.normal(0, 1, 6)
    duels = []
    for n in range(3000):
        i, j = rng.choice(6, 2, replace=False)
        outcome = "tie" if rng.random() < 0.1 else "first" if rng.random() < 1 / (1 + math.exp(truth[j] - truth[i])) else "second"
        duels.append(Duel(n, n % 7, arms[i], arms[j], outcome))  # type: ignore[arg-type]
    winners = {"first": evalica.Winner.X, "second": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    oracle = evalica.bradley_terry(
        [d.first for d in duels], [d.second for d in duels], [winners[d.outcome] for d in duels], tolerance=1e-12, limit=10_000
    )
    logs = np.log(oracle.scores)
    assert {s.arm: s.value for s in bradley_terry(duels, arms)} == pytest.approx(dict(logs - logs.mean()), abs=1e-5)
    assert all(s.low < s.value < s.high for s in bradley_terry(duels, arms))


@pytest.mark.parametrize("name", ["testcase-pairwise-1.json", "testcase-pairwise-2.json"])
def test_bradley_terry_gives_choix_maximum_likelihood(name: str) -> None:
    case = json.loads(shared("agreement_bt", name).read_text())
    counts = np.zeros((case["n_items"], case["n_items"]))
    for winner, loser in case["data"]:
        counts[winner, loser] += 1
    assert strengths(counts)[0] == pytest.approx(case["ml_est"], abs=1e-4)


def test_an_arm_that_never_lost_gets_a_finite_strength() -> None:
    found = bradley_terry([*votes("first", "first", "first"), Duel(9, 0, "b", "c", "first")], ["a", "b", "c"])
    assert [s.arm for s in found] == ["a", "b", "c"]
    assert all(math.isfinite(x) for s in found for x in (s.value, s.low, s.high))


def test_arms_never_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="never compared"):
        bradley_terry(votes("first", "second"), ["a", "b", "c"])


def test_the_order_of_votes_changes_no_ranking() -> None:
    duels = [*votes("first", "second", "tie", "first"), Duel(7, 1, "b", "c", "first"), Duel(8, 1, "c", "a", "second")]
    there, back = bradley_terry(duels, "abc"), bradley_terry(duels[::-1], "abc")
    assert [s.value for s in there] == pytest.approx([s.value for s in back])
    assert [s.arm for s in there] == [s.arm for s in back]


def test_a_million_votes_are_ranked_from_counts_at_once() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(0, 0.5, 50)
    games = rng.multinomial(1_000_000, np.full(1225, 1 / 1225))
    counts = np.zeros((50, 50))
    for n, i, j in zip(games, *np.tril_indices(50, -1), strict=True):
        counts[i, j] = rng.binomial(n, 1 / (1 + math.exp(truth[j] - truth[i])))
        counts[j, i] = n - counts[i, j]
    start = time.perf_counter()
    theta, _ = strengths(counts)
    assert time.perf_counter() - start < 1
    assert np.corrcoef(theta, truth)[0, 1] > 0.99


def test_the_e_value_is_the_mixture_bet_and_symmetric() -> None:
    grid = (np.arange(200_000) + 0.5) / 200_000
    density = grid**4 * (1 - grid) ** 4
    bets = (density / density.sum()) @ ((2 * grid) ** 14 * (2 * (1 - grid)) ** 6)
    assert math.exp(log_e_value(14, 20)) == pytest.approx(bets, rel=1e-6)
    assert log_e_value(14, 20) == log_e_value(6, 20)
    assert log_e_value(0, 0) == 0
    assert log_e_value(50, 60) > math.log(20) > log_e_value(33, 60)


def test_looking_after_every_vote_calls_at_most_one_in_twenty_equal_arms_unequal() -> None:
    rng = np.random.default_rng(7)
    n = np.arange(1, 1001)
    wins = (rng.random((400, 1000)) < 0.5).cumsum(axis=1)
    evidence = np.array([[log_e_value(k, int(m)) for k, m in zip(row[::10], n[::10], strict=True)] for row in wins])
    assert (evidence.max(axis=1) >= math.log(20)).mean() <= 0.05
    naive = np.abs(wins - n / 2) / np.sqrt(n / 4) > 1.96
    assert naive[:, 20:].any(axis=1).mean() > 0.3, "a fixed-sample test read after every vote must fail this check"


def test_evidence_takes_one_bet_a_prompt() -> None:
    assert first_decisive(votes("tie", "first", "second", "first", "second", "first", prompts=3), "a") == (2, 3)
    assert first_decisive(votes("first", "second", "second", prompts=1), "a") == (1, 1)
    assert first_decisive(votes("tie", "both_bad", "first", prompts=1), "b") == (0, 1)


def test_turning_duels_keeps_who_won() -> None:
    assert for_arm([Duel(1, 1, "a", "b", "first"), Duel(1, 1, "b", "c", "tie")], "b") == [
        Duel(1, 1, "b", "a", "second"),
        Duel(1, 1, "b", "c", "tie"),
    ]
