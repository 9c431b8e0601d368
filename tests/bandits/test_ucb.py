"""UCB1 and KL-UCB+, against SciPy's roots, closed forms and measured regrets."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import rel_entr

from bandits import Policy
from bandits.ucb import UCB1, KLUCBPlus, kl_ucb_plus_index, ucb1_index

ALL = np.ones(3, dtype=bool)


def rows(*plays_and_rewards: tuple[float, float]) -> np.ndarray:
    return np.array([(n, r, r) for n, r in plays_and_rewards], dtype=float)


def kl(mean: float, q: float) -> float:
    return float(rel_entr(mean, q) + rel_entr(1 - mean, 1 - q))


def by_scipy(n: float, s: float, t: float) -> float:
    mean, limit = s / n, math.log(t / n) / n
    if kl(mean, 1 - 1e-15) <= limit:
        return 1.0
    return float(brentq(lambda q: kl(mean, q) - limit, mean, 1 - 1e-15, xtol=1e-14, rtol=1e-14))


def test_the_index_of_ucb1_is_that_of_the_paper() -> None:
    assert ucb1_index(50.0, 20.0, 1000.0, 2.0) == pytest.approx(0.4 + math.sqrt(2 * math.log(1000) / 50), abs=1e-15)
    assert ucb1_index(50.0, 20.0, 1000.0, 0.5) == pytest.approx(0.4 + math.sqrt(math.log(1000) / 100), abs=1e-15)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.01, 1e5), st.floats(0, 1), st.floats(1.001, 1e6))
def test_the_index_of_kl_ucb_plus_agrees_with_scipy(n: float, mean: float, others: float) -> None:
    s, t = min(mean * n, n), n * others
    assert kl_ucb_plus_index(n, s, t) == pytest.approx(by_scipy(n, s, t), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.floats(-2, 15), st.one_of(st.floats(0, 1), st.floats(-300, 0).map(lambda x: 10**x)), st.floats(1e-12, 1e6))
def test_the_divergence_at_the_index_of_kl_ucb_plus_is_the_limit(log_n: float, mean: float, others: float) -> None:
    """Also after 10^15 plays, where the index all but touches the mean."""
    n = 10.0**log_n
    s, t = min(mean * n, n), n + n * others
    q = kl_ucb_plus_index(n, s, t)
    assert mean - 1e-15 <= q <= 1
    if mean > 1e-12 and q < 1 - 1e-9:
        above = q - s / n
        slope = above / (q * (1 - q))  # of kl at q
        divergence = -mean * math.log1p(above / mean) - (1 - mean) * math.log1p(-above / (1 - mean))
        assert abs(divergence - math.log1p((t - n) / n) / n) <= 1e-9 * slope


@pytest.mark.parametrize(("n", "t"), [(1.0, 2.0), (0.01, 0.5), (7.0, 1e6), (1e9, 3e9)])
def test_the_index_of_an_arm_that_never_succeeded_has_a_closed_form(n: float, t: float) -> None:
    assert kl_ucb_plus_index(n, 0.0, t) == pytest.approx(1 - (n / t) ** (1 / n), abs=1e-12)


def test_the_index_of_an_arm_that_never_failed_is_one() -> None:
    assert kl_ucb_plus_index(3.0, 3.0, 100.0) == 1
    assert kl_ucb_plus_index(0.01, 0.01, 100.0) == 1


def test_the_only_arm_that_was_played_is_worth_its_mean_to_kl_ucb_plus() -> None:
    assert kl_ucb_plus_index(8.0, 2.0, 8.0) == 0.25


def test_an_arm_without_a_play_is_worth_most() -> None:
    for t in (0.0, 1e9):
        assert kl_ucb_plus_index(0.0, 0.0, t) == math.inf
        assert ucb1_index(0.0, 0.0, t, 2.0) == math.inf


@pytest.mark.parametrize("n", [5e-324, 1e-300, 1e-9, 0.01])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("t", [0.02, 1.0, 1e9])
def test_what_forgetting_leaves_has_an_index(n: float, share: float, t: float) -> None:
    """Less than one play of the arm, less than one of all."""
    assert 0 <= kl_ucb_plus_index(n, share * n, t) <= 1
    assert ucb1_index(n, share * n, t, 2.0) >= 0  # infinite at the least n, never NaN


@pytest.mark.parametrize("policy", [UCB1(), KLUCBPlus()], ids=str)
def test_the_greatest_index_takes_all(policy: Policy) -> None:
    """The arm of few plays, which may yet be better than the one of the best mean."""
    assert policy.fit(rows((100, 50), (1000, 600), (4, 2)))(None, ALL).tolist() == [0, 0, 1]


@pytest.mark.parametrize("policy", [UCB1(), KLUCBPlus()], ids=str)
def test_equal_arms_share(policy: Policy) -> None:
    assert policy.fit(rows((10, 5), (10, 5), (10, 4)))(None, ALL).tolist() == [0.5, 0.5, 0]
    assert policy.fit(rows((0, 0), (10, 10), (0, 0)))(None, ALL).tolist() == [0.5, 0, 0.5]
    assert policy.fit(np.zeros((3, 3)))(None, ALL) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("policy", [UCB1(), KLUCBPlus()], ids=str)
def test_the_greatest_index_is_that_of_the_allowed_arms(policy: Policy) -> None:
    p = policy.fit(rows((10, 5), (0, 0), (10, 4)))(None, np.array([True, False, True]))
    assert p.tolist() == [1, 0, 0]


def test_without_exploration_the_best_mean_is_chosen() -> None:
    assert UCB1(exploration=0).fit(rows((100, 50), (1000, 600), (4, 2)))(None, ALL).tolist() == [0, 1, 0]


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf])
def test_an_exploration_that_is_no_size_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^exploration: "):
        UCB1(exploration=wrong)


@numba.njit
def plays(rates: np.ndarray, luck: np.ndarray, exploration: float) -> np.ndarray:
    """Of each arm, under UCB1, or under KL-UCB+ where exploration is 0."""
    n, s = np.zeros(len(rates)), np.zeros(len(rates))
    index = np.empty(len(rates))
    for t in range(len(luck)):
        for k in range(len(rates)):
            if exploration > 0:
                index[k] = ucb1_index(n[k], s[k], float(t), exploration)
            else:
                index[k] = kl_ucb_plus_index(n[k], s[k], float(t))
        arm = np.argmax(index)
        n[arm] += 1
        s[arm] += luck[t] < rates[arm]
    return n


@pytest.mark.parametrize(
    ("exploration", "expected", "error"), [(0.0, 11.31, 0.11), (0.5, 22.61, 0.14), (2.0, 46.14, 0.12)]
)
def test_mean_regret_is_that_of_the_reference(exploration: float, expected: float, error: float) -> None:
    """KL-UCB+, UCB1 with 1/2 and with 2: arms of .9, .8 and .7 over 1000 rounds, by 3000 runs of another program."""
    rates, rng = np.array([0.9, 0.8, 0.7]), np.random.default_rng(21)
    regrets = [plays(rates, rng.random(1000), exploration) @ (rates.max() - rates) for _ in range(2000)]
    error = math.hypot(error, np.std(regrets) / math.sqrt(len(regrets)))
    assert np.mean(regrets) == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("policy", [UCB1(), UCB1(exploration=0.5), KLUCBPlus()], ids=str)
def test_a_policy_follows_its_index(policy: Policy) -> None:
    rng = np.random.default_rng(8)
    for counts in rng.integers(1, 50, (100, 3)):
        arms = list(zip(counts, rng.integers(0, counts + 1), strict=True))
        t = counts.sum()
        if isinstance(policy, UCB1):
            index = [s / n + math.sqrt(policy.exploration * math.log(t) / n) for n, s in arms]
        else:
            index = [by_scipy(n, s, t) for n, s in arms]
        p = policy.fit(rows(*arms))(None, ALL)
        assert p[np.argmax(index)] == max(p)
