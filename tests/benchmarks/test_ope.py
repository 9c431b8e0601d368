"""The benchmark's experiments are those that were published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta as beta_distribution

from bandits.log import Log
from bandits.offline import Estimate
from benchmarks.ope import PUBLISHED, digits_once
from benchmarks.openbandit import boosted_predictions, exact_ranks, simulated_ranks, slope


def test_the_digits_are_reproduced_to_the_last_digit():
    """The published figures rest on which class is predicted for each digit, which no rounding changes."""
    found = digits_once()
    assert found == {name: PUBLISHED[name] for name in found}
    assert len(found) == 2


def test_ranks_are_exact():
    """Against the integral of f_k times the chance that so many of the others are above."""
    alpha, beta = np.array([3.0, 5.0, 8.0, 2.0, 1.0]), np.array([7.0, 5.0, 2.0, 2.0, 1.0])
    x, w = np.polynomial.legendre.leggauss(400)
    x, w = (1 + x) / 2, w / 2
    for k in range(5):
        above = np.zeros((5, len(x)))
        above[0] = 1.0
        for j in set(range(5)) - {k}:
            S = beta_distribution.sf(x, alpha[j], beta[j])
            above[1:] = above[1:] * (1 - S) + above[:-1] * S
            above[0] *= 1 - S
        expected = (w * beta_distribution.pdf(x, alpha[k], beta[k]) * above[:3]).sum(axis=1)
        assert exact_ranks(alpha, beta)[k] == pytest.approx(expected, abs=1e-6)
    assert simulated_ranks(alpha, beta, 20_000) == pytest.approx(exact_ranks(alpha, beta), abs=0.02)


def test_slope_stops_before_the_limit_that_disagrees():
    far, near = Estimate(0.9, 0.01), Estimate(0.52, 0.02)
    assert slope({math.inf: Estimate(0.5, 0.05), 100.0: near, 10.0: far}) == near.value
    assert slope({math.inf: Estimate(0.5, 0.05), 10.0: near, 1.0: Estimate(0.53, 0.0)}) == 0.53


def test_the_reward_model_does_not_know_the_row_that_it_predicts():
    rng = np.random.default_rng(0)
    log = Log(
        np.tile([0, 1], 30),
        rng.integers(2, size=60).astype(np.float64),
        np.full(60, 0.5),
        K=2,
        contexts=rng.random((60, 3)),
    )
    turned = log.rewards.copy()
    turned[5] = 1 - turned[5]
    other = Log(log.arms, turned, log.propensities, K=2, contexts=log.contexts)
    assert np.array_equal(boosted_predictions(log)[5], boosted_predictions(other)[5])
