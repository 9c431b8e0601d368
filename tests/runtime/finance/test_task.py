from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.finance.features import WINDOW, YEAR
from runtime.finance.task import GAP, TEST_FROM, VALIDATION_FROM, labels, samples
from tests.runtime.finance.markets import disturbed_after, made_up

DAYS = 330
MARKET = made_up(DAYS)
LABELS = labels(MARKET.sp500)


def test_a_label_is_tomorrows_range_against_the_median_of_the_year_up_to_today():
    size = np.log(MARKET.sp500.high / MARKET.sp500.low)
    expected = [size[t + 1] > np.median(size[t - YEAR + 1 : t + 1]) for t in range(YEAR - 1, DAYS - 1)]
    np.testing.assert_array_equal(LABELS[YEAR - 1 : -1], expected)


def test_a_label_is_unknown_without_a_year_behind_it_or_a_day_ahead():
    assert np.isnan(LABELS[: YEAR - 1]).all()
    assert np.isnan(LABELS[-1])


@settings(deadline=None, max_examples=50)
@given(t=st.integers(YEAR - 1, DAYS - 3))
def test_a_label_reads_tomorrow_and_nothing_later(t):
    later = labels(disturbed_after(MARKET.sp500, t + 1))
    assert later[: t + 1].tobytes() == LABELS[: t + 1].tobytes()


@settings(deadline=None, max_examples=50)
@given(t=st.integers(YEAR - 1, DAYS - 2))
def test_tomorrow_is_measured_against_a_median_without_it(t):
    """A hair beside the median, where a median with tomorrow in it, or without today, would give another label."""
    size = np.log(MARKET.sp500.high / MARKET.sp500.low)
    median = np.median(size[t - YEAR + 1 : t + 1])
    for factor, outcome in ((1 - 1e-9, 0.0), (1 + 1e-9, 1.0)):
        high = MARKET.sp500.high.copy()
        high[t + 1] = MARKET.sp500.low[t + 1] * np.exp(factor * median)
        assert labels(replace(MARKET.sp500, high=high))[t] == outcome


def test_samples_go_by_day_with_the_sp500_first():
    everything = samples(MARKET)
    assert (np.diff(everything.day[::2]).astype(int) == 1).all()
    np.testing.assert_array_equal(everything.day[::2], everything.day[1::2])
    assert set(everything.index[::2]) == {"sp500"}
    assert set(everything.index[1::2]) == {"nasdaq"}


def test_the_next_return_is_from_this_close_to_the_next():
    everything, close = samples(MARKET), MARKET.sp500.close
    own = everything.where(everything.index == "sp500")
    t = np.flatnonzero(MARKET.sp500.day == own.day[5])[0]
    assert own.next_return[5] == pytest.approx(close[t + 1] / close[t] - 1)


def test_real_samples_are_complete_and_in_their_years(parts):
    assert str(parts.train.day[0]) < "2000-02"
    assert parts.train.day[-1] < VALIDATION_FROM <= parts.validation.day[0]
    assert parts.validation.day[-1] < TEST_FROM <= parts.test.day[0]
    assert str(parts.test.day[-1]) == "2018-12-28"
    assert len(parts.test) == 2 * 1759
    for part in (parts.train, parts.validation, parts.test):
        assert part.features.dtype == np.float32
        assert np.isfinite(part.features).all()
        assert np.isfinite(part.next_return).all()


def test_between_two_parts_lies_the_gap_so_no_window_holds_an_outcome_that_was_learnt(parts, market):
    calendar = market.sp500.day
    assert GAP > WINDOW
    for earlier, later in ((parts.train, parts.validation), (parts.validation, parts.test)):
        last, first = np.searchsorted(calendar, [earlier.day[-1], later.day[0]])
        assert first - last - 1 == GAP
        first_day_in_a_window, last_outcome = first - WINDOW + 1, last + 1
        assert first_day_in_a_window > last_outcome
