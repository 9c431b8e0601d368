from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.anytime.quantiles import (
    SECONDS,
    Buckets,
    band_ranks,
    bucketed_quantile_evidence,
    quantile_band,
    quantile_evidence,
    quantile_interval,
    quantile_ranks,
)
from bandits.anytime.rates import log_evidence, rate_interval
from bandits.anytime.stitching import empirical_process_boundary

quick = settings(max_examples=50, deadline=None)

THOUSAND = np.arange(1, 1001.0)


# Published numbers


@pytest.mark.parametrize(("q", "offset", "p"), [(0.5, 70, 0.814704), (0.5, 85, 0.0838055), (0.5, 100, 0.0054947)])
def test_the_published_p_values_of_two_medians(q: float, offset: float, p: float) -> None:
    for first, second in ((THOUSAND, THOUSAND + offset), (THOUSAND + offset, THOUSAND)):
        assert math.exp(-quantile_evidence(first, second, q, tightest_at=100)) == pytest.approx(p, rel=5e-6)


def test_the_published_p_value_of_two_high_percentiles() -> None:
    evidence = quantile_evidence(THOUSAND, THOUSAND + 55, 0.9, tightest_at=100)
    assert math.exp(-evidence) == pytest.approx(0.0340463, rel=5e-6)


@pytest.mark.parametrize(
    ("q", "ranks"), [(0.5, (4838, 5163)), (0.9, (8901, 9096)), (0.95, (9428, 9569)), (0.99, (9866, 9931))]
)
def test_the_published_ranks_of_one_quantile(q: float, ranks: tuple[int, int]) -> None:
    """Of the data 1 to 10000, where a rank is its value."""
    assert quantile_ranks(10_000, q, alpha=0.05, tightest_at=1000) == ranks


@pytest.mark.parametrize(("n", "radius"), [(1e3, 0.0820477), (1e4, 0.026672), (1e5, 0.008581), (1e6, 0.002747)])
def test_the_published_radius_of_all_quantiles_at_once(n: float, radius: float) -> None:
    assert empirical_process_boundary(n, alpha=0.05, start=100) == pytest.approx(radius, abs=5e-7)
    low, high = band_ranks(int(n), 0.5)
    assert low == math.ceil(n * (0.5 - empirical_process_boundary(n, start=100)))
    assert high == math.floor(n * (0.5 + empirical_process_boundary(n, start=100))) + 1


# Buckets


def test_an_edge_belongs_to_the_bucket_below_it() -> None:
    buckets = Buckets(1.0, 8.0, per_octave=1)
    assert np.array_equal(buckets.edges, [1, 2, 4, 8])
    assert np.array_equal(buckets.count([0.0, 0.5, 1.0, 1.5, 2.0, 8.0, 8.1, 1e300]), [3, 2, 0, 1, 2])
    assert np.array_equal(buckets.count([]), np.zeros(5))
    assert len(SECONDS.edges) + 1 == 215
    assert SECONDS.edges[-1] >= 1e3


@quick
@given(lowest=st.floats(1e-6, 1), octaves=st.floats(0.1, 30), per_octave=st.integers(1, 32))
def test_buckets_are_as_wide_as_promised_and_reach_as_far(lowest: float, octaves: float, per_octave: int) -> None:
    buckets = Buckets(lowest, lowest * 2**octaves, per_octave)
    edges = buckets.edges
    assert edges[0] == lowest
    assert edges[-1] >= buckets.highest * (1 - 1e-9)
    assert edges[-1] <= buckets.highest * 2 ** (1 / per_octave) * (1 + 1e-9)
    assert edges[1:] / edges[:-1] == pytest.approx(2 ** (1 / per_octave))


def test_counts_of_replicas_add_up() -> None:
    values = np.random.default_rng(1).lognormal(-3, 1, 1000)
    assert np.array_equal(SECONDS.count(values), SECONDS.count(values[:300]) + SECONDS.count(values[300:]))


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(1, 3000), q=st.floats(0.01, 0.99), band=st.booleans())
def test_buckets_widen_the_interval_of_the_values_by_less_than_one_bucket_at_each_end(
    seed: int, n: int, q: float, band: bool
) -> None:
    values = np.sort(np.random.default_rng(seed).lognormal(-3, 1, n))
    low_rank, high_rank = band_ranks(n, q) if band else quantile_ranks(n, q)
    low, high = (quantile_band if band else quantile_interval)(SECONDS.count(values), q)
    width = 2 ** (1 / SECONDS.per_octave) * (1 + 1e-12)
    if low_rank == 0:
        assert low == 0
    else:
        assert low < values[low_rank - 1] <= low * width
    if high_rank == n + 1:
        assert high == math.inf
    else:
        assert high / width <= values[high_rank - 1] <= high


# Intervals


@quick
@given(n=st.integers(0, 5000), q=st.floats(0.001, 0.999), alpha=st.floats(1e-4, 0.5), t=st.floats(1, 1e4))
def test_the_ranks_are_where_the_rate_below_the_quantile_is_believed(n: int, q: float, alpha: float, t: float) -> None:
    low, high = quantile_ranks(n, q, alpha=alpha, tightest_at=t)
    assert 0 <= low <= n * q + 1
    assert n * q - 1 <= high <= n + 1

    def believed(k: int) -> bool:
        return log_evidence(q, k, n, alpha=alpha, tightest_at=t) < -math.log(alpha)

    if low > 0:
        assert not believed(low - 1)
    if high <= n:
        assert not believed(high)
    assert all(believed(k) for k in {low, high - 1} if low < high)


def test_ranks_and_rates_are_two_views_of_one_interval() -> None:
    """The median is below the k-th value exactly where a rate of one half is too low for k of n."""
    low, high = quantile_ranks(1000, 0.5, tightest_at=100)
    assert rate_interval(low - 1, 1000)[1] < 0.5 < rate_interval(low, 1000)[1]
    assert rate_interval(high - 1, 1000)[0] < 0.5 < rate_interval(high, 1000)[0]


def test_no_observations_bound_nothing() -> None:
    assert quantile_ranks(0, 0.9) == (0, 1)
    assert band_ranks(0, 0.9) == band_ranks(0, 0.1) == (0, 1)
    assert band_ranks(99, 0.5) == (0, 100)
    nothing = SECONDS.count([])
    assert quantile_interval(nothing, 0.5) == quantile_band(nothing, 0.5) == (0, math.inf)


def test_looking_after_every_observation_seldom_misses_a_quantile() -> None:
    rng = np.random.default_rng(2)
    sizes = np.unique(np.geomspace(10, 2000, 60).astype(int))
    one = {int(n): quantile_ranks(int(n), 0.9) for n in sizes}
    wrong = beyond = 0
    for _ in range(300):
        uniform = rng.random(2000)
        below = np.cumsum(uniform < 0.9)
        # the 0.9-quantile, 0.9, lies between the order statistics of ranks k and m
        wrong += any(not one[int(n)][0] <= below[n - 1] < one[int(n)][1] for n in sizes)
        for n in sizes[sizes >= 100]:
            values = np.sort(uniform[:n])
            radius = empirical_process_boundary(float(n), start=100)
            if np.max(np.abs(values - np.arange(1, n + 1) / n)) > radius:
                beyond += 1
                break
    assert wrong / 300 <= 0.05
    assert beyond / 300 <= 0.05


# Two arms


def by_hand(first: np.ndarray, second: np.ndarray, q: float) -> float:
    """Theorem 5 on a fine grid of common quantiles and of what ties leave open."""
    least = math.inf
    for x in np.unique(np.concatenate([first, second])):
        both = 0.0
        for arm in (first, second):
            below, upto = (arm < x).sum(), (arm <= x).sum()
            both += min(log_evidence(q, k, len(arm)) for k in np.linspace(below, upto, 200))
        least = min(least, both)
    return least


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), m=st.integers(1, 30), q=st.floats(0.05, 0.95))
def test_the_evidence_is_the_least_over_all_common_quantiles_also_with_ties(
    seed: int, n: int, m: int, q: float
) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 8, n).astype(float), rng.integers(2, 10, m).astype(float)
    evidence = quantile_evidence(first, second, q, tightest_at=100)
    expected = by_hand(first, second, q)
    assert expected - 0.01 <= evidence <= expected + 1e-9


@quick
@given(seed=st.integers(0, 10**6), q=st.floats(0.05, 0.95), shift=st.floats(0.5, 2))
def test_buckets_never_add_evidence(seed: int, q: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.lognormal(-3, 1, 400), shift * rng.lognormal(-3, 1, 300)
    exact = quantile_evidence(first, second, q)
    for per_octave in (1, 8, 64):
        buckets = Buckets(per_octave=per_octave)
        assert bucketed_quantile_evidence(buckets.count(first), buckets.count(second), q) <= exact + 1e-9
    fine = Buckets(per_octave=2000)
    bucketed = bucketed_quantile_evidence(fine.count(first), fine.count(second), q)
    assert bucketed == pytest.approx(exact, abs=0.1 * abs(exact) + 0.3)


def test_a_slower_arm_is_found_from_buckets_too() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.lognormal(-3, 0.5, 5000), 1.3 * rng.lognormal(-3, 0.5, 5000)
    assert bucketed_quantile_evidence(SECONDS.count(first), SECONDS.count(second), 0.9) > math.log(1000)


def test_equal_quantiles_seldom_look_different_however_often_one_looks() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(100):
        first, second = rng.normal(0, 1, 600), rng.normal(0, 3, 600)  # one median, and not one distribution
        looks = (quantile_evidence(first[:n], second[: n // 2], 0.5) for n in range(20, 601, 40))
        wrong += max(looks) >= math.log(20)
    assert wrong / 100 <= 0.05


def test_an_arm_without_observations_is_no_evidence() -> None:
    assert quantile_evidence([], [], 0.5) == 0
    assert quantile_evidence([], [1.0, 2.0, 3.0], 0.5) <= 0
    assert bucketed_quantile_evidence(SECONDS.count([]), SECONDS.count([1.0]), 0.5) <= 0


# What is refused


@pytest.mark.parametrize(
    ("lowest", "highest", "per_octave", "name"),
    [
        (0, 1, 8, "lowest and highest"),
        (2, 1, 8, "lowest and highest"),
        (1, math.inf, 8, "lowest and highest"),
        (math.nan, 1, 8, "lowest and highest"),
        (1, 2, 0, "per_octave"),
    ],
)
def test_buckets_that_cannot_be_are_refused(lowest: float, highest: float, per_octave: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        Buckets(lowest, highest, per_octave)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_values_that_are_no_latencies_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        SECONDS.count([0.1, wrong])
    if wrong != -1.0:
        with pytest.raises(ValueError, match=r"^first and second: "):
            quantile_evidence([1.0, wrong], [1.0], 0.5)


@pytest.mark.parametrize("counts", [np.zeros(3), np.full(215, -1.0), np.full(215, 0.5), np.full(215, math.nan)])
def test_counts_that_cannot_be_are_refused(counts: np.ndarray) -> None:
    for interval in (quantile_interval, quantile_band):
        with pytest.raises(ValueError, match=r"^counts: "):
            interval(counts, 0.5)


def test_counts_of_other_buckets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^first and second: "):
        bucketed_quantile_evidence(np.ones(4), np.ones(5), 0.5)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.5, math.nan])
def test_a_quantile_outside_its_range_is_refused(q: float) -> None:
    counts = SECONDS.count([1.0])
    for ask in (
        lambda: quantile_interval(counts, q),
        lambda: quantile_band(counts, q),
        lambda: quantile_evidence([1.0], [2.0], q),
        lambda: bucketed_quantile_evidence(counts, counts, q),
    ):
        with pytest.raises(ValueError, match=r"^q: "):
            ask()


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    counts = SECONDS.count([1.0])
    for ask in (
        lambda: quantile_interval(counts, 0.5, alpha=alpha),
        lambda: quantile_band(counts, 0.5, alpha=alpha),
        lambda: quantile_evidence([1.0], [2.0], 0.5, alpha=alpha),
    ):
        with pytest.raises(ValueError, match=r"^alpha: "):
            ask()
