from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Thompson
from bandits.anytime.boundaries import GammaExponentialMixture
from bandits.anytime.differences import (
    FEWEST,
    FEWEST_PLAYS,
    Difference,
    asymptotic_interval,
    asymptotic_radius,
    bounded_difference,
    difference,
    difference_sequence,
)
from bandits.anytime.scores import TERMS, aipw_terms

quick = settings(max_examples=50, deadline=None)


def coin_flips(digits: str) -> np.ndarray:
    return np.array([int(bit) for bit in f"{int(digits, 16):01000b}"])


# A thousand units treated by the toss of a coin, and their outcomes: demo/ate_data.csv of confseq 0.0.11.
# Copyright (c) 2021 confseq developers, MIT licence.
TREATED = coin_flips(
    "84e4b64579e9cb3e5e050e491f4cf0cb6d95df2ac6a13e7cf48a768091b4fa55a9ffa2c5249cb94081c9aa31f19c7d4ea8b0"
    "2e3bb1803db5b8041335f5ceaa153b6a97546a2a4fca9c246189bf4f364cfb0409c0cb7f0a8b722f44f66226910bae25fc67"
    "c134797b3c0532a32f10edb2fd8d86d97ed87b0ef49ca8d181"
)
OUTCOMES = coin_flips(
    "94428fa16409002040d00441a9350080a43022200c01004c066ab005cab2a882a8f62200060880880180b125609980700100"
    "32b60a060178aa082204c5342204226a5350008f0005940041c80622b0a0738ca4104013cb885337800803168041e4ae1459"
    "00240408030d320a0c84e10104c0409c4c08430ab095c041a1"
).astype(float)


def random_row(seed: int, n: int, p: float = 0.5, means: tuple[float, float] = (0.3, 0.4)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < p).astype(int)
    rewards = (rng.random(n) < np.array(means)[arms]).astype(float)
    row: np.ndarray = aipw_terms(arms, rewards, np.where(arms == 1, p, 1 - p), 1, 0).sum(axis=0)
    return row


def thompson_log(rng: np.random.Generator, means: tuple[float, float], n: int, batch: int = 50, floor: float = 0.01):
    """A Thompson-sampling bandit that learns in batches, with a floor under its propensities."""
    sums = np.zeros((2, 3))
    arms, rewards, propensities = np.empty(n, int), np.empty(n), np.empty(n)
    for start in range(0, n, batch):
        p = floor + (1 - 2 * floor) * Thompson().fit(sums)(None, np.ones(2, dtype=bool))
        chosen = (rng.random(batch) >= p[0]).astype(int)
        earned = (rng.random(batch) < np.array(means)[chosen]).astype(float)
        now = slice(start, start + batch)
        arms[now], rewards[now], propensities[now] = chosen, earned, p[chosen]
        for k in range(2):
            sums[k] += [(chosen == k).sum(), earned[chosen == k].sum(), earned[chosen == k].sum()]
    return arms, rewards, propensities


# Published numbers


def test_the_published_radius() -> None:
    radius = asymptotic_radius([1000, 10_000], 1.0, alpha=0.05, tightest_at=1000)
    assert radius == pytest.approx([0.095982, 0.032417], abs=5e-7)
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 1000
    assert rho2 == pytest.approx(0.00793615, abs=5e-9)
    n = np.array([100.0, 1e3, 1e6])
    formula = 2.5 * np.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * np.log(np.sqrt(n * rho2 + 1) / 0.05))
    assert asymptotic_radius(n, 2.5) == pytest.approx(formula)


@pytest.mark.parametrize(
    ("t", "estimate", "low", "high", "p"),
    [
        (1, 1, -1, 1, 0.983920078788205),
        (2, 1, -1, 1, 0.803732245074608),
        (10, 0.653333333333333, -1, 1, 0.888548290145229),
        (100, 0.106826716602117, -0.355019952853719, 0.568673386057953, 1),
        (500, 0.126626407227084, -0.0478456727926822, 0.30109848724685, 0.307998819954753),
        (999, 0.173347911148409, 0.0545381950239781, 0.29215762727284, 8.49852661734937e-05),
        (1000, 0.174591114336686, 0.0557940255263216, 0.29338820314705, 7.33500456673828e-05),
    ],
)
def test_the_treatment_effect_of_a_thousand_units(t: int, estimate: float, low: float, high: float, p: float) -> None:
    """As computed by confseq, in the file of the data. Its predictions are its own, and its p-value is one-sided."""
    predictions = np.full((1000, 2), 0.5)
    for k in range(2):
        own = k == TREATED
        predictions[1:, k] = (np.cumsum(OUTCOMES * own) / np.maximum(1, np.cumsum(own)))[:-1]
    terms = aipw_terms(TREATED, OUTCOMES, np.full(1000, 0.5), 1, 0, predictions=predictions)
    row = terms[:t].sum(axis=0)
    tightest_at = 50 * 0.16 * (1 / 0.5 + 1 / 0.5)
    known = bounded_difference(row, least_propensity=0.5, tightest_at=tightest_at)
    assert known.n == t
    assert known.effect == pytest.approx(estimate, abs=1e-12)
    assert (known.low, known.high) == pytest.approx((low, high), abs=1e-10)
    mixture = GammaExponentialMixture(tightest_at, 4.0, 0.025)
    one_sided = mixture.log_evidence(row[1], row[3])
    assert math.exp(-max(0.0, one_sided)) == pytest.approx(p, rel=1e-9)
    if t == 1000:  # two-sided, the stake is halved
        assert known.p_value == pytest.approx(2 * p, rel=1e-6)


def test_the_asymptotic_interval_of_the_same_units_is_narrower() -> None:
    row = aipw_terms(TREATED, OUTCOMES, np.full(1000, 0.5), 1, 0).sum(axis=0)
    known, sure = difference(row), bounded_difference(row, least_propensity=0.5)
    assert sure.low < known.low < known.effect < known.high < sure.high
    assert known.low > 0


# What holds for every row


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(100, 3000), alpha=st.floats(1e-4, 0.5), t=st.floats(10, 1e5))
def test_the_evidence_is_enough_where_the_interval_leaves_out_no_difference(
    seed: int, n: int, alpha: float, t: float
) -> None:
    row = random_row(seed, n)
    known = difference(row, alpha=alpha, tightest_at=t)
    outside = not known.low <= 0 <= known.high
    assert outside == (known.log_evidence >= -math.log(alpha))
    assert outside == (known.p_value <= alpha)
    sure = bounded_difference(row, least_propensity=0.5, alpha=alpha, tightest_at=t)
    if not sure.low <= 0 <= sure.high:
        assert sure.log_evidence >= -math.log(alpha)


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(100, 1000), p=st.floats(0.1, 0.9))
def test_exchanging_the_arms_turns_the_interval_round(seed: int, n: int, p: float) -> None:
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < p).astype(int)
    rewards, propensities = rng.random(n), np.where(arms == 1, p, 1 - p)
    for judge in (difference, lambda row: bounded_difference(row, least_propensity=0.1)):
        one = judge(aipw_terms(arms, rewards, propensities, 1, 0).sum(axis=0))
        other = judge(aipw_terms(arms, rewards, propensities, 0, 1).sum(axis=0))
        assert (other.effect, other.low, other.high) == pytest.approx((-one.effect, -one.high, -one.low))
        assert other.log_evidence == pytest.approx(one.log_evidence)


def test_the_sequence_is_the_interval_of_every_row() -> None:
    rng = np.random.default_rng(1)
    arms = rng.integers(0, 2, 400)
    rows = aipw_terms(arms, rng.random(400), np.full(400, 0.5), 1, 0).cumsum(axis=0)
    low, high = difference_sequence(rows)
    for t in (0, 98, 99, 200, 399):
        known = difference(rows[t])
        assert (known.low, known.high) == (low[t], high[t])
    assert np.isinf(low[: FEWEST - 1]).all()
    assert np.isfinite(low[FEWEST - 1 :]).all()


def test_replicas_merge_by_addition() -> None:
    rows = [random_row(seed, 500) for seed in range(3)]
    one, two = difference(rows[0] + (rows[1] + rows[2])), difference(rows[2] + rows[1] + rows[0])
    assert one.n == 1500
    assert (one.effect, one.low, one.high) == pytest.approx((two.effect, two.low, two.high), abs=1e-12)
    assert one.high - one.low < difference(rows[0]).high - difference(rows[0]).low


def test_a_plain_tally_gives_the_interval_of_its_mean() -> None:
    low, high = asymptotic_interval(1000, 200.0, 1000.0)
    assert (low + high) / 2 == pytest.approx(0.2)
    assert (high - low) / 2 == pytest.approx(0.095982 * math.sqrt(1 - 0.04), abs=5e-7)


def test_nothing_is_said_too_early() -> None:
    nothing = Difference(0, 0, -math.inf, math.inf, 0)
    assert difference(np.zeros(TERMS)) == nothing
    assert nothing.p_value == 1
    assert bounded_difference(np.zeros(TERMS), least_propensity=0.1) == Difference(0, 0, -1, 1, 0)
    early = difference(random_row(1, FEWEST - 1))
    assert (early.low, early.high, early.log_evidence) == (-math.inf, math.inf, 0)
    assert early.effect != 0
    rare = random_row(1, 1000, p=0.01)
    assert rare[5] < FEWEST_PLAYS
    assert difference(rare).high == math.inf
    assert asymptotic_interval(99, 50, 50) == (-math.inf, math.inf)
    assert asymptotic_interval(1000, 100, 10) == (-math.inf, math.inf)  # all alike: no variance to go by


def test_one_arm_alone_is_shown_once_it_was_played_enough() -> None:
    rng = np.random.default_rng(2)
    arms = rng.integers(0, 4, 2000)
    rewards = (rng.random(2000) < 0.3).astype(float)
    known = difference(aipw_terms(arms, rewards, np.full(2000, 0.25), 2).sum(axis=0))
    assert known.low < 0.3 < known.high
    assert known.high - known.low < 0.2


# What the interval promises


def ever_wrong(rows: np.ndarray, truth: float) -> bool:
    low, high = difference_sequence(rows)
    return bool(((low > truth) | (high < truth)).any())


@pytest.mark.parametrize(("p", "rate"), [(0.5, 0.1), (0.1, 0.1), (0.9, 0.02), (0.03, 0.5)])
def test_looking_after_every_decision_finds_no_difference_where_there_is_none(p: float, rate: float) -> None:
    rng = np.random.default_rng(11)
    wrong = naive = 0
    for _ in range(400):
        arms = (rng.random(4000) < p).astype(int)
        rewards = (rng.random(4000) < rate).astype(float)
        rows = aipw_terms(arms, rewards, np.where(arms == 1, p, 1 - p), 1, 0).cumsum(axis=0)
        wrong += ever_wrong(rows, 0.0)
        n, total, squares = rows[FEWEST:, :3].T
        naive += bool((np.abs(total) > 1.96 * np.sqrt(np.maximum(squares - total**2 / n, 1e-9))).any())
    assert wrong / 400 <= 0.05
    assert naive / 400 > 0.3


@pytest.mark.parametrize("means", [(0.1, 0.1), (0.05, 0.1)])
def test_the_interval_holds_under_a_bandit_and_would_not_by_the_scores_alone(means: tuple[float, float]) -> None:
    rng = np.random.default_rng(12)
    wrong = by_scores = 0
    for _ in range(150):
        arms, rewards, propensities = thompson_log(rng, means, 3000)
        rows = aipw_terms(arms, rewards, propensities, 0, 1).cumsum(axis=0)
        truth = means[0] - means[1]
        wrong += ever_wrong(rows, truth)
        rows[:, 4] = 0.0  # nothing foreseen
        by_scores += ever_wrong(rows, truth)
    assert wrong / 150 <= 0.05
    assert by_scores / 150 > 0.15


def test_the_bounded_interval_holds_under_a_bandit_from_the_first_decision() -> None:
    rng = np.random.default_rng(13)
    wrong = 0
    for _ in range(100):
        arms, rewards, propensities = thompson_log(rng, (0.3, 0.3), 1000, floor=0.1)
        rows = aipw_terms(arms, rewards, propensities, 0, 1).cumsum(axis=0)
        known = [bounded_difference(row, least_propensity=0.1) for row in rows[::10]]
        wrong += any(not each.low <= 0 <= each.high for each in known)
    assert wrong / 100 <= 0.05


def test_a_difference_is_found() -> None:
    known = difference(random_row(4, 5000, means=(0.3, 0.4)))
    assert 0 < known.low < 0.1 < known.high < 0.2
    assert known.log_evidence > math.log(1e4)


# What is refused


@pytest.mark.parametrize(
    "row",
    [
        np.zeros(3),
        np.zeros((2, TERMS)),
        np.array([100, 1, math.nan, 0, 0, 50, 50]),
        np.array([math.inf, 1, 1, 0, 0, 50, 50]),
        np.array([100, 50, 1, 0, 0, 50, 50]),  # the square of the mean above the mean square
        np.array([-100, 1, 1, 0, 0, 50, 50]),
        np.array([100, 1, 1, 0, -1, 50, 50]),
        np.array([100, 1, 1, 0, 0, -1, 50]),
    ],
)
def test_a_row_that_no_terms_sum_to_is_refused(row: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^row: "):
        difference(row)
    with pytest.raises(ValueError, match=r"^row: "):
        bounded_difference(row, least_propensity=0.5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    row = random_row(1, 200)
    for judge in (
        lambda: difference(row, alpha=alpha),
        lambda: difference(np.zeros(TERMS), alpha=alpha),
        lambda: bounded_difference(row, least_propensity=0.5, alpha=alpha),
        lambda: asymptotic_interval(10, 1.0, 1.0, alpha=alpha),
        lambda: asymptotic_radius(10, 1.0, alpha=alpha),
    ):
        with pytest.raises(ValueError, match=r"^alpha: "):
            judge()


@pytest.mark.parametrize("floor", [0.0, 1.5, math.nan])
def test_a_least_propensity_outside_its_range_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match=r"^least_propensity: "):
        bounded_difference(random_row(1, 200), least_propensity=floor)


@pytest.mark.parametrize("tally", [(-1, 0, 0), (10, 5, 1), (10, math.nan, 1), (10, 1, math.inf), (math.inf, 1, 1)])
def test_a_tally_that_no_scores_sum_to_is_refused(tally: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"^n, total and squares: "):
        asymptotic_interval(*tally)
