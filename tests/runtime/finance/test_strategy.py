from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.finance.strategy import exposures, performance, results_bps

RETURNS = st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=30).map(np.array)


def test_less_is_held_before_a_rough_day():
    high = np.array([False, True, False])
    assert exposures(high).tolist() == [1.0, 0.5, 1.0]
    assert exposures(high, reduced=0.2).tolist() == [1.0, 0.2, 1.0]


def test_a_result_is_what_the_held_share_earned_less_the_cost_of_changing_it():
    exposure, next_return = np.array([1.0, 0.5, 1.0]), np.array([0.01, -0.02, 0.03])
    assert results_bps(exposure, next_return, cost_bps=2.0) == pytest.approx([100 - 2, -100 - 1, 300 - 1])
    assert results_bps(exposure, next_return, cost_bps=2.0, before=1.0) == pytest.approx([100, -100 - 1, 300 - 1])


@settings(deadline=None, max_examples=50)
@given(RETURNS)
def test_expecting_only_calm_is_buy_and_hold(next_return):
    held = exposures(np.zeros(len(next_return), np.bool_))
    assert results_bps(held, next_return, before=1.0) == pytest.approx(1e4 * next_return)


@settings(deadline=None, max_examples=50)
@given(RETURNS, st.data())
def test_a_days_result_does_not_depend_on_later_days(next_return, data):
    high = np.array(data.draw(st.lists(st.booleans(), min_size=len(next_return), max_size=len(next_return))))
    t = data.draw(st.integers(1, len(next_return)))
    whole = results_bps(exposures(high), next_return)
    assert whole[:t].tobytes() == results_bps(exposures(high[:t]), next_return[:t]).tobytes()


@settings(deadline=None, max_examples=50)
@given(RETURNS, st.data())
def test_day_by_day_and_all_at_once_come_to_the_same(next_return, data):
    """As a replay does it: one day at a time, carrying what was held."""
    high = np.array(data.draw(st.lists(st.booleans(), min_size=len(next_return), max_size=len(next_return))))
    exposure, before, days = exposures(high), 0.0, []
    for held, earned in zip(exposure, next_return, strict=True):
        days.append(results_bps(np.array([held]), np.array([earned]), before=before)[0])
        before = held
    assert days == pytest.approx(results_bps(exposure, next_return))


def test_the_worst_fall_is_from_the_highest_point_so_far():
    assert performance(1e4 * np.array([0.10, -0.30, 0.10, -0.30])).drawdown == pytest.approx(1 - 0.7 * 1.1 * 0.7)
    assert performance(1e4 * np.array([-0.10, 0.50])).drawdown == pytest.approx(0.10)


def test_sharpe_is_a_years_mean_over_its_deviation():
    result = performance(np.array([10.0, 20.0, 30.0]))
    assert result.days == 3
    assert result.mean_bps == pytest.approx(20)
    assert result.sharpe == pytest.approx(2 * math.sqrt(252))
    assert result.sharpe_error == pytest.approx(math.sqrt(252 * 3 / 3))
    assert result.volatility == pytest.approx(0.001 * math.sqrt(252))


def test_a_result_that_never_varies_has_no_sharpe():
    assert math.isnan(performance(np.full(5, 0.0)).sharpe)


@pytest.mark.parametrize("days", [0, 1])
def test_too_few_days_are_refused(days):
    with pytest.raises(ValueError, match=f"two days or more, not {days}"):
        performance(np.zeros(days))
