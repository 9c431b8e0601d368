from __future__ import annotations

from functools import lru_cache
from math import inf, log, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln

from bandits.anytime.rates import MOST, log_evidence, log_evidence_above, rate_interval
from tests.bandits.anytime.coins import ever_outside

interval = lru_cache(None)(rate_interval)


@st.composite
def counts(draw: st.DrawFn, most: int = 10**6) -> tuple[float, float]:
    """Successes and n."""
    n = draw(st.integers(1, most))
    return float(draw(st.integers(0, n))), float(n)


alphas = st.floats(1e-6, 0.9)
moments = st.floats(0.1, 1e6)


def evidence(rate: float, successes: float, n: float, alpha: float, tightest_at: float) -> float:
    """Logarithm of the mixture against a rate, by another library's Beta function."""
    twice = 2 * log(1 / alpha)
    scale = max(tightest_at / (twice + log(1 + twice)) - 1, 1e-3)
    a, b = (1 - rate) * scale, rate * scale
    ratio = betaln(a + n - successes, b + successes) - betaln(a, b)
    return float(ratio - successes * log(rate) - (n - successes) * log(1 - rate))


@pytest.mark.parametrize(
    ("successes", "n", "tightest_at", "expected"),
    [
        (700, 1000, 100, (0.651629, 0.745949)),
        (15, 50, 50, (0.129556, 0.511896)),
        (5, 50, 50, (0.013021, 0.269264)),
        (1, 50, 50, (0.0, 0.13489)),
        (1, 2, 50, (0.0, 1.0)),
        (100, 200, 1, (0.328923, 0.671076)),
        (0, 1, 50, (0.0, 1.0)),
        (1, 1, 50, (0.0, 1.0)),
    ],
)
def test_published_intervals_are_reproduced(successes, n, tightest_at, expected):
    """The vectors of confseq 0.0.11, the authors' own library."""
    assert rate_interval(successes, n, tightest_at=tightest_at) == pytest.approx(expected, abs=1e-5)


def test_without_trials_anything_is_possible():
    assert rate_interval(0, 0) == (0.0, 1.0)


@given(counts(), alphas, moments)
def test_the_observed_rate_is_inside_and_the_interval_is_of_rates(count, alpha, tightest_at):
    successes, n = count
    low, high = rate_interval(successes, n, alpha=alpha, tightest_at=tightest_at)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


@given(counts(), alphas, moments)
def test_failures_mirror_successes(count, alpha, tightest_at):
    successes, n = count
    low, high = rate_interval(successes, n, alpha=alpha, tightest_at=tightest_at)
    mirrored = rate_interval(n - successes, n, alpha=alpha, tightest_at=tightest_at)
    # Where the evidence is flat, lgamma's rounding moves the edge by more than its own size.
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-6)


@settings(max_examples=50)
@given(counts(), alphas, moments, st.lists(st.floats(1e-6, 1 - 1e-6), min_size=10, max_size=30))
def test_a_rate_is_outside_exactly_when_the_evidence_against_it_is_enough(count, alpha, tightest_at, rates):
    successes, n = count
    low, high = rate_interval(successes, n, alpha=alpha, tightest_at=tightest_at)
    for rate in rates:
        margin = evidence(rate, successes, n, alpha, tightest_at) - log(1 / alpha)
        if abs(margin) > 1e-6:
            assert (low <= rate <= high) == (margin < 0)


@given(counts(), st.floats(1e-6, 0.4), moments)
def test_more_certainty_is_wider(count, alpha, tightest_at):
    successes, n = count
    low, high = rate_interval(successes, n, alpha=alpha, tightest_at=tightest_at)
    wider_low, wider_high = rate_interval(successes, n, alpha=alpha / 10, tightest_at=tightest_at)
    assert wider_low <= low + 1e-9
    assert wider_high >= high - 1e-9


@given(counts(10**5), moments)
def test_four_times_the_trials_narrow_it(count, tightest_at):
    successes, n = count
    low, high = rate_interval(successes, n, tightest_at=tightest_at)
    narrower_low, narrower_high = rate_interval(4 * successes, 4 * n, tightest_at=tightest_at)
    assert narrower_high - narrower_low < high - low


@pytest.mark.parametrize("n", [30.0, 300.0, 3000.0, 30_000.0])
def test_it_is_tightest_where_it_was_told_to_be(n):
    def width(tightest_at: float) -> float:
        low, high = rate_interval(0.3 * n, n, tightest_at=tightest_at)
        return high - low

    assert width(n) < min(width(n / 10), width(n * 10))


def test_parts_of_successes_count_in_between():
    """Rewards in [0, 1], and sums that were forgotten in part, are not whole."""
    lows, highs = zip(*(rate_interval(successes, 20.5) for successes in (5, 5.25, 5.5, 6)), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)


@pytest.mark.parametrize("n", [1e9, MOST])
def test_large_counts_keep_their_width(n):
    """Against the width of a normal mixture, which it nears."""
    low, high = rate_interval(0.3 * n, n)
    twice = 2 * log(20)
    rho = 0.21 * (100 / (twice + log(1 + twice)) - 1)
    variance = 0.21 * n
    width = 2 * sqrt((variance + rho) * log((variance + rho) / (rho * 0.05**2))) / n
    assert high - low == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize(
    ("successes", "n"),
    [(-1, 10), (11, 10), (1, 0), (nan, 10), (1, nan), (1, inf), (inf, inf), (0, -1), (0, 2 * MOST)],
)
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match=r"successes and n: expected 0 <= successes <= n <= 9.0072e\+15, got"):
        rate_interval(successes, n)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, nan])
def test_impossible_error_rates_are_refused(alpha):
    with pytest.raises(ValueError, match=r"^alpha: "):
        rate_interval(1, 2, alpha=alpha)


@pytest.mark.parametrize("tightest_at", [0, -1, nan, inf])
def test_impossible_moments_are_refused(tightest_at):
    with pytest.raises(ValueError, match=r"^tightest_at: "):
        rate_interval(1, 2, tightest_at=tightest_at)


@settings(max_examples=50)
@given(counts(), alphas, moments, st.floats(0.01, 0.99))
def test_the_interval_is_where_there_is_not_enough_evidence(count, alpha, tightest_at, rate):
    successes, n = count
    low, high = rate_interval(successes, n, alpha=alpha, tightest_at=tightest_at)
    found = log_evidence(rate, successes, n, alpha=alpha, tightest_at=tightest_at)
    assert found == pytest.approx(evidence(rate, successes, n, alpha, tightest_at), abs=1e-6, rel=1e-6)
    if abs(found + log(alpha)) > 1e-9:
        assert (low <= rate <= high) == (found < -log(alpha))


@given(counts(), st.floats(1e-6, 0.4), moments, st.floats(0.01, 0.9))
def test_evidence_above_a_limit_rises_with_successes_and_falls_with_the_limit(count, alpha, tightest_at, limit):
    successes, n = count
    chosen = {"alpha": alpha, "tightest_at": tightest_at}
    here = log_evidence_above(limit, successes, n, **chosen)
    assert log_evidence_above(limit, min(successes + 1, n), n, **chosen) >= here - 1e-9
    if successes >= limit * n:  # far below, the prior's shape, which moves with the limit, has its say
        assert log_evidence_above(1.1 * limit, successes, n, **chosen) <= here + 1e-9


def test_evidence_above_a_limit_knows_the_side():
    assert log_evidence_above(0.05, 120, 1000) > log(1e6)
    assert log_evidence_above(0.05, 50, 1000) < 0
    assert log_evidence_above(0.05, 0, 1000) < 0
    assert log_evidence_above(1 - 0.5, 1000 - 400, 1000) > log(1e6), "below a half"
    assert log_evidence_above(0.05, 0, 0) == pytest.approx(0, abs=1e-12)
    assert log_evidence(0.05, 0, 0) == pytest.approx(0, abs=1e-12)


def test_one_side_needs_less_than_two():
    assert log_evidence_above(0.1, 140, 1000, alpha=0.05) > log_evidence(0.1, 140, 1000, alpha=0.1)


def textbook(successes: float, n: float) -> tuple[float, float]:
    """The 95 % interval that is meant for one look, at an n chosen before."""
    rate = successes / n
    radius = 1.96 * sqrt(rate * (1 - rate) / n)
    return rate - radius, rate + radius


def covers(interval: tuple[float, float], rate: float) -> bool:
    return interval[0] <= rate <= interval[1]


def accepted(rate: float, n: float, fine) -> tuple[float, float]:
    """The least and the greatest number of successes in n trials that are `fine`, around the expected one."""
    low = high = round(rate * n)
    while low > 0 and fine(low - 1.0, n):
        low -= 1
    while high < n and fine(high + 1.0, n):
        high += 1
    return low, high


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.7])
def test_whoever_peeks_is_fooled_no_more_often_than_promised(rate):
    """Looking after each of 1000 trials, or for the textbook from the 100th; exactly, without chance."""
    n = np.arange(1001.0)
    low, high = np.array([accepted(rate, k, lambda s, k: log_evidence(rate, s, k) < log(20)) for k in n]).T
    assert ever_outside(rate, low, high) <= 0.05
    if rate >= 0.1:
        low, high = np.array([accepted(rate, k, lambda s, k: k < 100 or covers(textbook(s, k), rate)) for k in n]).T
        assert ever_outside(rate, low, high) > 0.25


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_an_alarm_is_false_no_more_often_than_promised(limit):
    n = np.arange(1001.0)
    quiet = [accepted(limit, k, lambda s, k: log_evidence_above(limit, s, k) < log(100))[1] for k in n]
    assert 0.001 < ever_outside(limit, 0 * n, np.array(quiet)) <= 0.01
    assert ever_outside(0.7 * limit, 0 * n, np.array(quiet)) <= 0.001
    assert ever_outside(min(1.5 * limit + 0.1, 0.9), 0 * n, np.array(quiet)) > 0.99, "it does raise alarms"


def test_a_policy_that_chooses_by_what_it_saw_fools_nobody_either():
    """Two equal arms, the better-looking of which is played; both intervals are looked at all the time."""
    rng = np.random.default_rng(20260102)
    rate, missed, runs = 0.3, 0, 200
    for _ in range(runs):
        n, successes = [1, 1], [int(rng.random() < rate), int(rng.random() < rate)]
        bad = False
        for step in range(400):
            arm = int(rng.integers(2)) if rng.random() < 0.1 else int(successes[1] * n[0] > successes[0] * n[1])
            n[arm] += 1
            successes[arm] += int(rng.random() < rate)
            if step % 10 == 0:
                for s, k in zip(successes, n, strict=True):
                    low, high = interval(s, k)
                    bad |= not low <= rate <= high
        missed += bad
    assert missed / runs <= 2 * 0.05


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 1.5, nan])
def test_impossible_rates_and_limits_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^rate: "):
        log_evidence(wrong, 1, 2)
    with pytest.raises(ValueError, match=r"^limit: "):
        log_evidence_above(wrong, 1, 2)
    with pytest.raises(ValueError, match=r"^successes and n: "):
        log_evidence_above(0.5, 3, 2)
    with pytest.raises(ValueError, match=r"^alpha: must lie between 0 and 0.5"):
        log_evidence_above(0.5, 1, 2, alpha=0.5)
