from __future__ import annotations

from itertools import product
from math import exp, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Vector
from bandits.anytime.means import (
    WIDTH,
    EmpiricalBernstein,
    advance,
    bets,
    betting_interval,
    hoeffding_sequence,
    log_capital,
    mean_interval,
    mean_sequence,
)

GOLDEN = np.modf(0.6180339887498949 * np.arange(1, 1001))[0]
STREAMS = {
    "four": np.tile([0.5, 0.6, 0.7, 0.8], 250),
    "coin": (GOLDEN < 0.3).astype(float),
    "narrow": 0.1 + 0.2 * GOLDEN,
}

values = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
samples = st.lists(values, min_size=1, max_size=60)
alphas = st.floats(1e-4, 0.9)


# What is published: the values of confseq's own Python, alpha = 0.05


@pytest.mark.parametrize(
    ("stream", "t", "expected"),
    [
        ("four", 100, (0.570181, 0.729819)),
        ("four", 1000, (0.637028, 0.662882)),
        ("coin", 100, (0.138584, 0.464256)),
        ("coin", 1000, (0.242706, 0.358072)),
        ("narrow", 1000, (0.191308, 0.208910)),
    ],
)
def test_published_empirical_bernstein_intervals(stream: str, t: int, expected: tuple[float, float]) -> None:
    low, high = mean_sequence(STREAMS[stream])
    assert (low[t - 1], high[t - 1]) == pytest.approx(expected, abs=6e-7)
    assert mean_interval(STREAMS[stream][:t]) == (low[t - 1], high[t - 1])


@pytest.mark.parametrize(
    ("stream", "t", "expected"),
    [
        ("four", 100, (0.496369, 0.799912)),
        ("four", 1000, (0.588080, 0.710352)),
        ("coin", 100, (0.145517, 0.449060)),
        ("coin", 1000, (0.237726, 0.359998)),
        ("narrow", 1000, (0.138885, 0.261158)),
    ],
)
def test_published_hoeffding_intervals(stream: str, t: int, expected: tuple[float, float]) -> None:
    low, high = hoeffding_sequence(STREAMS[stream])
    assert (low[t - 1], high[t - 1]) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(
    ("stream", "t", "expected"),
    [
        ("four", 100, (0.599, 0.686)),
        ("four", 1000, (0.638, 0.662)),
        ("coin", 100, (0.163, 0.445)),
        ("coin", 1000, (0.240, 0.357)),
        ("narrow", 1000, (0.194, 0.207)),
    ],
)
def test_published_betting_intervals(stream: str, t: int, expected: tuple[float, float]) -> None:
    """Those are of a grid of thousandths and one step wider on each side; ours are exact."""
    low, high = betting_interval(STREAMS[stream][:t])
    assert (np.floor(low * 1000) / 1000, np.ceil(high * 1000) / 1000) == pytest.approx(expected, abs=1e-12)


# What is promised


def capital(xs: Vector, mean: float, nats: float) -> tuple[float, float]:
    """What the two bets behind an empirical-Bernstein interval have made of 1, if `mean` is the mean."""
    state = np.zeros(WIDTH)
    for x in xs:
        advance(state, x, nats)
    _, _, _, bet, won, below, above = state
    return exp(won - bet * mean - below), exp(bet * mean - won - above)


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("alpha", [0.05, 0.8])
def test_nobody_can_expect_to_win_against_the_true_mean(mean: float, alpha: float) -> None:
    """Over all the paths of ten observations: Bernoulli's are the hardest, but any would do."""
    nats = log(2 / alpha)
    expected = np.zeros(4)
    for path in product((0.0, 1.0), repeat=10):
        xs = np.array(path)
        chance = np.prod(np.where(xs, mean, 1 - mean))
        up, down = capital(xs, mean, nats)
        hedged = [log_capital(z, bets(z, nats), m) for z, m in ((xs, mean), (1 - xs, 1 - mean))]
        expected += chance * np.array([up, down, *np.exp(hedged)])
    assert expected[0] <= 1
    assert expected[1] <= 1
    assert expected[2:] == pytest.approx(1, abs=1e-9), "betting is fair to the last digit"


@pytest.mark.parametrize("draw", ["coin", "uniform", "two values"])
def test_whoever_peeks_is_fooled_no_more_often_than_promised(draw: str) -> None:
    rng = np.random.default_rng(20260104)
    shape = (400, 2000)
    xs, mean = {
        "coin": ((rng.random(shape) < 0.1).astype(float), 0.1),
        "uniform": (rng.random(shape), 0.5),
        "two values": (rng.choice([0.2, 0.3], shape), 0.25),
    }[draw]
    missed = 0
    for run in xs:
        low, high = mean_sequence(run)
        missed += bool(((low > mean) | (high < mean)).any())
    assert missed / len(xs) <= 0.05


@settings(max_examples=100, deadline=None)
@given(samples, alphas)
def test_the_running_interval_is_the_batchs_bit_for_bit(xs: list[float], alpha: float) -> None:
    low, high = mean_sequence(xs, alpha=alpha)
    running = EmpiricalBernstein(alpha=alpha)
    assert running.interval() == (0.0, 1.0)
    for x, interval in zip(xs, zip(low, high, strict=True), strict=True):
        running.add(x)
        assert running.interval() == interval


@settings(max_examples=100, deadline=None)
@given(samples, alphas)
def test_intervals_are_mirrored_with_the_observations(xs: list[float], alpha: float) -> None:
    for of in mean_interval, betting_interval:
        low, high = of(xs, alpha=alpha)
        mirrored_low, mirrored_high = of(1 - np.array(xs), alpha=alpha)
        assert (1 - high, 1 - low) == pytest.approx((mirrored_low, mirrored_high), abs=1e-9)
        assert 0 <= low <= high <= 1


@settings(max_examples=50, deadline=None)
@given(samples, st.floats(0.01, 0.99))
def test_a_mean_is_outside_exactly_when_one_of_the_gamblers_has_won(xs: list[float], mean: float) -> None:
    low, high = betting_interval(xs, alpha=0.5)
    z = np.array(xs)
    won = max(log_capital(a, bets(a, log(4)), m) for a, m in ((z, mean), (1 - z, 1 - mean))) - log(4)
    if abs(won) > 1e-9 and (low, high) != (0, 1):
        assert (low <= mean <= high) == (won < 0)


def test_betting_against_a_grid() -> None:
    """Written out plainly, as its authors do, over a grid of means."""
    xs, alpha = np.random.default_rng(5).beta(2, 6, 300), 0.05
    t = np.arange(1, 301)
    mu = (0.5 + np.cumsum(xs)) / (t + 1)
    variance = np.append(0.25, (0.25 + np.cumsum((xs - mu) ** 2)) / (t + 1))[:-1]
    wish = np.sqrt(2 * np.log(2 / alpha) / (variance * t * np.log(1 + t)))
    kept = []
    for m in np.linspace(0.0005, 0.9995, 1000):
        up = np.prod(1 + np.minimum(wish, 0.5 / m) * (xs - m))
        down = np.prod(1 - np.minimum(wish, 0.5 / (1 - m)) * (xs - m))
        if max(up, down) / 2 < 1 / alpha:
            kept.append(m)
    assert betting_interval(xs) == pytest.approx((kept[0], kept[-1]), abs=1e-3)


def test_little_variance_is_rewarded() -> None:
    rng = np.random.default_rng(6)
    calm, coin = rng.uniform(0.45, 0.55, 2000), (rng.random(2000) < 0.5).astype(float)

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(mean_interval(calm)) < 0.25 * width(mean_interval(coin))
    assert width(betting_interval(calm)) < width(mean_interval(calm))
    hoeffding = hoeffding_sequence(calm)
    assert width(mean_interval(calm)) < 0.25 * (hoeffding[1][-1] - hoeffding[0][-1])


def test_more_certainty_is_wider() -> None:
    for of in mean_interval, betting_interval:
        low, high = of(STREAMS["coin"], alpha=0.05)
        wider_low, wider_high = of(STREAMS["coin"], alpha=0.005)
        assert wider_low < low < high < wider_high


def test_where_no_mean_is_left_any_is_possible() -> None:
    """Both gamblers have won against every mean: that of these observations was not always the same."""
    assert betting_interval([0.5] * 9 + [1.0] * 29, alpha=0.9) == (0.0, 1.0)


def test_nothing_observed_nothing_known() -> None:
    assert mean_interval([]) == betting_interval([]) == (0.0, 1.0)
    assert [len(ends) for ends in (*mean_sequence([]), *hoeffding_sequence([]))] == [0, 0, 0, 0]


@pytest.mark.parametrize("of", [mean_interval, mean_sequence, hoeffding_sequence, betting_interval])
def test_observations_outside_their_range_are_refused(of) -> None:
    for wrong in (-0.01, 1.01, nan, float("inf")):
        with pytest.raises(ValueError, match=r"^xs: observation 2 must be a number from 0 to 1$"):
            of([0.5, 0.5, wrong, 0.5])
    with pytest.raises(ValueError, match=r"^xs: must be one sequence of numbers, not of shape \[2, 2\]"):
        of(np.zeros((2, 2)))
    for wrong in (0, 1, nan):
        with pytest.raises(ValueError, match=r"^alpha: "):
            of([0.5], alpha=wrong)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, nan, float("inf")])
def test_a_refused_observation_changes_nothing(wrong: float) -> None:
    running = EmpiricalBernstein()
    running.add(0.5)
    before = running.interval()
    with pytest.raises(ValueError, match=r"^x: must be a number from 0 to 1$"):
        running.add(wrong)
    assert running.interval() == before


def test_any_sequence_of_numbers_is_read() -> None:
    expected = mean_interval([0.0, 1.0, 1.0, 0.0])
    assert mean_interval((0, 1, 1, 0)) == expected
    assert mean_interval(np.array([False, True, True, False])) == expected
    assert mean_interval(np.array([0, 9, 1, 9, 1, 9, 0, 9], dtype=np.float32)[::2]) == expected
