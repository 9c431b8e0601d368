from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import chisquare

from bandits.anytime.mismatch import TEMPERS, WIDTH, draw_evidence, draw_rows, mean_weights, split_evidence

quick = settings(max_examples=50, deadline=None)

ALARM = math.log(1000)


def contexts(rng: np.random.Generator, n: int, arms: int = 3, floor: float = 0.05) -> np.ndarray:
    """Propensities that change with every decision, as those of a contextual policy."""
    return floor / arms + (1 - floor) * rng.dirichlet(np.full(arms, 0.5), n)


def drawn(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    upto = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    chosen: np.ndarray = (upto[:, :-1] < rng.random((len(p), 1))).sum(axis=1)
    return chosen


# A fixed split


@pytest.mark.parametrize(
    ("counts", "flat", "sharp"),
    [
        ((821_588, 815_482), 4.459, 7.679),
        ((5200, 4800), 3.622, 6.076),
        ((5100, 4900), -2.380, 0.619),
        ((50_500, 49_500), -0.531, 2.643),
    ],
)
def test_the_published_evidence_against_an_even_split(counts: tuple[int, int], flat: float, sharp: float) -> None:
    """By the priors Dirichlet(1, 1) and Dirichlet(500, 500)."""
    assert split_evidence(counts, (1, 1), concentration=2) == pytest.approx(flat, abs=5e-4)
    assert split_evidence(counts, (0.5, 0.5)) == pytest.approx(sharp, abs=5e-4)


def test_the_test_at_a_fixed_n_of_the_same_counts() -> None:
    """What it is compared with: it may be asked once."""
    fixed = chisquare([821_588, 815_482])
    assert fixed.statistic == pytest.approx(22.774, abs=5e-4)
    assert fixed.pvalue == pytest.approx(1.82e-6, abs=5e-9)


@quick
@given(
    counts=st.lists(st.integers(0, 10**6), min_size=2, max_size=6),
    seed=st.integers(0, 10**6),
    concentration=st.floats(0.5, 1e5),
)
def test_the_evidence_is_the_ratio_of_the_likelihoods(counts: list[int], seed: int, concentration: float) -> None:
    pi = np.random.default_rng(seed).dirichlet(np.ones(len(counts)))
    n, a = np.array(counts), concentration * pi
    expected = gammaln(a.sum()) - gammaln((a + n).sum()) + (gammaln(a + n) - gammaln(a)).sum() - n @ np.log(pi)
    assert split_evidence(counts, pi, concentration=concentration) == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_units_in_an_arm_of_weight_zero_are_proof_and_such_an_arm_is_none_otherwise() -> None:
    assert split_evidence((10, 1), (1, 0)) == math.inf
    assert split_evidence((5200, 4800, 0), (1, 1, 0)) == split_evidence((5200, 4800), (1, 1))
    assert split_evidence((0, 0), (1, 1)) == 0
    assert split_evidence((7, 0), (1, 0)) == pytest.approx(0)  # could not be otherwise


def test_more_units_than_the_gamma_function_could_subtract_are_no_trouble() -> None:
    assert split_evidence((5 * 10**14, 5 * 10**14), (1, 1)) == pytest.approx(-0.5 * math.log(1e12), abs=1e-3)


def test_looking_after_every_unit_of_a_fixed_split_seldom_alarms() -> None:
    rng = np.random.default_rng(1)
    looks = np.unique(np.geomspace(1, 2000, 60).astype(int))
    alarms = fixed = 0
    for _ in range(200):
        counts = np.cumsum(rng.random(2000) < 0.3)[looks - 1]
        alarms += max(split_evidence((k, n - k), (0.3, 0.7)) for k, n in zip(counts, looks, strict=True)) >= math.log(
            20
        )
        z = (counts - 0.3 * looks) / np.sqrt(0.21 * looks)
        fixed += bool((np.abs(z[looks > 30]) > 1.96).any())
    assert alarms / 200 <= 0.05
    assert fixed / 200 > 0.3


# Draws by propensities that vary


def test_the_row_of_one_decision() -> None:
    rows = draw_rows([[0.2, 0.8, 0.0]], [0])
    odds = 0.25
    for k, p in ((0, 0.2), (1, 0.8)):
        assert rows[k, :5] == pytest.approx([1, 1 - k, p, 0.16, 5 * (1 - k)])
    for i, power in enumerate(TEMPERS):
        bet = odds**power / (1 + odds**power)
        assert rows[:2, 5 + i] == pytest.approx([math.log(bet / 0.2)] * 2)
    assert not rows[2].any()  # an arm that is not allowed


def test_a_certain_draw_says_nothing() -> None:
    rows = draw_rows(np.tile([1.0, 0.0], (1000, 1)), np.zeros(1000, int))
    assert rows[0, :5] == pytest.approx([1000, 1000, 1000, 0, 1000])
    assert not rows[0, 5:].any()
    assert draw_evidence(rows) == pytest.approx(0)
    assert np.array_equal(mean_weights(rows), [1, 1])


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(0, 60), cut=st.floats(0, 1))
def test_rows_of_replicas_add_up(seed: int, n: int, cut: float) -> None:
    rng = np.random.default_rng(seed)
    p = contexts(rng, n)
    arms, i = drawn(rng, p), int(cut * n)
    assert draw_rows(p[:i], arms[:i]) + draw_rows(p[i:], arms[i:]) == pytest.approx(draw_rows(p, arms), abs=1e-9)


def test_every_bet_is_fair() -> None:
    """Its wealth is expected to be what it was, whatever p."""
    for p in ([0.5, 0.5], [0.999, 0.001], [0.2, 0.3, 0.5], [1 - 2e-9, 1e-9, 1e-9]):
        wealth = sum(share * np.exp(draw_rows([p], [k])[:, 5:]) for k, share in enumerate(p))
        assert wealth == pytest.approx(np.ones((len(p), len(TEMPERS))))


@pytest.mark.parametrize("arms", [2, 5])
def test_looking_often_at_draws_that_are_right_seldom_alarms(arms: int) -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(100):
        p = contexts(rng, 2000, arms)
        chosen = drawn(rng, p)
        rows = np.zeros((arms, WIDTH))
        worst = -math.inf
        for start in range(0, 2000, 40):
            rows += draw_rows(p[start : start + 40], chosen[start : start + 40])
            worst = max(worst, draw_evidence(rows))
        alarms += worst >= math.log(20)
    assert alarms / 100 <= 0.05


@pytest.mark.parametrize(
    "really",
    [
        pytest.param(lambda p: p * [1.3, 1, 1], id="one arm is drawn more than logged"),
        pytest.param(lambda p: 0.8 * p + 0.2 / 3, id="a floor is not in the log"),
        pytest.param(lambda p: p**1.5, id="sharpened after logging"),
        pytest.param(lambda p: np.roll(p, 1, axis=1), id="arms mixed up"),
        pytest.param(lambda p: np.full_like(p, 1 / 3), id="p ignored"),
    ],
)
def test_wrong_propensities_are_found(really: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(3)
    p = contexts(rng, 10_000)
    assert draw_evidence(draw_rows(p, drawn(rng, p))) < ALARM
    rows = draw_rows(p, drawn(rng, really(p)))
    assert draw_evidence(rows) >= ALARM
    assert abs(mean_weights(rows) - 1).max() > 0.05


def test_the_lost_log_of_one_arm_is_found() -> None:
    rng = np.random.default_rng(4)
    p = contexts(rng, 2000)
    chosen = drawn(rng, p)
    kept = (chosen != 1) | (rng.random(2000) < 0.5)
    assert draw_evidence(draw_rows(p, chosen)) < ALARM
    assert draw_evidence(draw_rows(p[kept], chosen[kept])) >= ALARM


def test_rewards_that_come_more_often_for_one_arm_are_found_among_the_rewarded() -> None:
    rng = np.random.default_rng(5)
    p = contexts(rng, 10_000)
    chosen = drawn(rng, p)
    alike = rng.random(10_000) < 0.4
    sooner = rng.random(10_000) < np.array([0.4, 0.4, 0.55])[chosen]
    assert draw_evidence(draw_rows(p[alike], chosen[alike])) < ALARM
    assert draw_evidence(draw_rows(p[sooner], chosen[sooner])) >= ALARM


def test_mean_weights_are_near_one_and_one_before_anything_was_seen() -> None:
    rng = np.random.default_rng(6)
    p = contexts(rng, 50_000)
    assert mean_weights(draw_rows(p, drawn(rng, p))) == pytest.approx(np.ones(3), abs=0.1)
    assert np.array_equal(mean_weights(np.zeros((3, WIDTH))), np.ones(3))
    assert draw_evidence(np.zeros((3, WIDTH))) == pytest.approx(0)
    assert np.array_equal(draw_rows(np.zeros((0, 2)), []), np.zeros((2, WIDTH)))


def test_propensities_next_to_zero_leave_all_finite() -> None:
    rows = draw_rows([[1.0, 1e-200], [1e-200, 1.0]], [0, 0])
    assert np.isfinite(rows).all()
    assert draw_evidence(rows) > 100  # what happened could not


# What is refused


@pytest.mark.parametrize(
    ("p", "arms", "message"),
    [
        ([[0.5, 0.6]], [0], "p: each row"),
        ([[1.5, -0.5]], [0], "p: each row"),
        ([[math.nan, 0.5]], [0], "p: each row"),
        ([[1.0, 0.0]], [1], "p: row 0 gives the arm that was drawn, 1, the probability 0"),
        ([[0.5, 0.5]], [2], "arms: each must be an index from 0 to 1"),
        ([[0.5, 0.5]], [-1], "arms: "),
        ([[0.5, 0.5]], [0, 1], "p and arms: "),
        ([0.5, 0.5], [0, 1], "p and arms: "),
        ([[0.5, 0.5]], [0.0], "p and arms: "),
    ],
)
def test_a_log_that_cannot_be_is_refused(p: list, arms: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        draw_rows(p, arms)


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.zeros((0, WIDTH)), np.full((2, WIDTH), math.nan)])
def test_rows_that_cannot_be_are_refused(rows: np.ndarray) -> None:
    for judge in (draw_evidence, mean_weights):
        with pytest.raises(ValueError, match=r"^rows: "):
            judge(rows)
    with pytest.raises(ValueError, match=r"^rows: .* below 0"):
        draw_evidence(np.full((2, WIDTH), -1.0))


@pytest.mark.parametrize(
    ("counts", "weights", "concentration", "name"),
    [
        ((1, -1), (1, 1), 1000, "counts"),
        ((1, math.nan), (1, 1), 1000, "counts"),
        ((1, 1), (1, math.inf), 1000, "weights"),
        ((1, 1), (0, 0), 1000, "weights"),
        ((1, 1), (1, 1, 1), 1000, "weights"),
        ((1, 1), (1, 1), 0, "concentration"),
    ],
)
def test_a_split_that_cannot_be_is_refused(counts: tuple, weights: tuple, concentration: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        split_evidence(counts, weights, concentration=concentration)
