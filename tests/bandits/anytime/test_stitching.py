from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import zeta

from bandits.anytime.stitching import (
    ZETA,
    S,
    double_stitched_boundary,
    empirical_process_boundary,
    empirical_process_constant,
    stitched_boundary,
)


@pytest.mark.parametrize(("c", "expected"), [(3.0, 64.48755), (-1.0, 28.99389)])
def test_published_stitched_boundaries(c: float, expected: float) -> None:
    assert stitched_boundary(100, start=10, c=c) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("p", "expected"), [(0.5, 68.62803), (0.9, 43.72119), (0.1, 59.96521)])
def test_published_doubly_stitched_boundaries(p: float, expected: float) -> None:
    assert double_stitched_boundary(p, 1000, start=100) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("t", "expected", "digit"),
    [(1e3, 0.0820477, 1e-7), (1e4, 0.026672, 1e-6), (1e5, 0.008581, 1e-6), (1e6, 0.002747, 1e-6)],
)
def test_published_bounds_of_the_empirical_process(t: float, expected: float, digit: float) -> None:
    assert empirical_process_boundary(t, start=100) == pytest.approx(expected, abs=digit)
    assert empirical_process_constant(0.05) == pytest.approx(8.12272, abs=1e-5)


def test_the_constants_are_what_they_are_called() -> None:
    assert pytest.approx(zeta(S), rel=1e-15) == ZETA


@pytest.mark.parametrize("alpha", [1e-9, 0.001, 0.3, 0.9])
def test_the_constant_of_the_empirical_process_is_the_least(alpha: float) -> None:
    def error(C: float, ratio: float) -> float:
        squared = 2 / ratio * (0.85 - np.sqrt(2 * (ratio - 1) / C)) ** 2
        return float(4 * np.exp(-squared * C) * (1 + 1 / ((squared - 1) * np.log(ratio))))

    C = empirical_process_constant(alpha)
    widest = brentq(lambda ratio: np.sqrt(ratio / 2) + np.sqrt(2 * (ratio - 1) / C) - 0.85, 1, 2 * 0.85**2)
    best = minimize_scalar(lambda ratio: error(C, ratio), bounds=(1 + 1e-9, widest - 1e-9), method="bounded")
    assert best.fun == pytest.approx(alpha, rel=1e-4)


def test_boundaries_begin_at_their_start_and_rise() -> None:
    assert stitched_boundary(3, start=10) == stitched_boundary(10, start=10)
    assert double_stitched_boundary(0.2, 0, start=100) == double_stitched_boundary(0.2, 100, start=100)
    assert empirical_process_boundary(99, start=100) == inf
    for boundary in (
        lambda t: stitched_boundary(t, start=10),
        lambda t: double_stitched_boundary(0.3, t, start=10),
        lambda t: t * empirical_process_boundary(t, start=10),
    ):
        curve = [boundary(t) for t in np.geomspace(10, 1e9, 50)]
        assert curve == sorted(curve)
        assert curve[-1] / 1e9 < 1e-3


def test_the_empirical_distribution_of_peeked_samples_stays_near() -> None:
    """Uniform variables, looked at at every size: one run in twenty may ever be too far; these are far fewer."""
    rng = np.random.default_rng(20260103)
    bounds = np.array([empirical_process_boundary(t, start=10) for t in range(10, 301)])
    missed = 0
    for _ in range(100):
        xs = rng.random(300)
        for t, bound in zip(range(10, 301), bounds, strict=True):
            ordered = np.sort(xs[:t])
            steps = np.arange(t + 1) / t
            if max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()) > bound:
                missed += 1
                break
    assert missed <= 5


@pytest.mark.parametrize("wrong", [-1, nan, inf])
def test_impossible_times_are_refused(wrong: float) -> None:
    for call in (
        lambda: stitched_boundary(wrong, start=1),
        lambda: double_stitched_boundary(0.5, wrong, start=1),
        lambda: empirical_process_boundary(wrong, start=1),
    ):
        with pytest.raises(ValueError, match=r"^[tv]: must be a finite number not below 0, got"):
            call()
    with pytest.raises(ValueError, match=r"^start: "):
        stitched_boundary(1, start=wrong)


def test_other_impossible_settings_are_refused() -> None:
    for alpha in 0, 1, nan:
        with pytest.raises(ValueError, match=r"^alpha: "):
            stitched_boundary(1, start=1, alpha=alpha)
    for p in 0, 1, nan:
        with pytest.raises(ValueError, match=r"^p: "):
            double_stitched_boundary(p, 1, start=1)
    for c in inf, nan:
        with pytest.raises(ValueError, match=r"^c: "):
            stitched_boundary(1, start=1, c=c)
