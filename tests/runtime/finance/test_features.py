from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.finance.features import NAMES, WINDOW, YEAR, daily, turbulent, windows
from tests.runtime.finance.markets import disturbed_after, made_up

DAYS = 330
MARKET = made_up(DAYS)
BEFORE = daily(MARKET.sp500, MARKET.nasdaq)
KNOWN_DAYS = st.integers(YEAR - 1, DAYS - 2)


@settings(deadline=None, max_examples=50)
@given(t=KNOWN_DAYS, seed=st.integers(1, 9))
def test_nothing_after_day_t_moves_a_bit_of_the_features_up_to_t(t, seed):
    own, other = (disturbed_after(series, t, seed) for series in MARKET.pairs[0])
    after = daily(own, other)
    assert after[: t + 1].tobytes() == BEFORE[: t + 1].tobytes()
    assert windows(after)[: t + 1].tobytes() == windows(BEFORE)[: t + 1].tobytes()
    assert not np.array_equal(after[t + 1], BEFORE[t + 1])


@settings(deadline=None, max_examples=50)
@given(t=KNOWN_DAYS)
def test_a_series_that_ends_at_t_gives_the_same_features_up_to_t(t):
    """The strongest form: what comes later does not even exist."""
    known = daily(MARKET.sp500.until(t + 1), MARKET.nasdaq.until(t + 1))
    assert known.tobytes() == BEFORE[: t + 1].tobytes()


def test_every_feature_is_known_after_a_year_and_none_of_the_long_ones_before():
    assert np.isfinite(BEFORE[YEAR - 1 :]).all()
    assert np.isnan(BEFORE[: YEAR - 1, NAMES.index("range_1")]).all()


def test_features_are_what_their_names_say():
    own, other, t = MARKET.sp500, MARKET.nasdaq, 300
    size = np.log(own.high / own.low)
    year = np.median(size[t - 251 : t + 1])
    rival = np.log(other.high / other.low)
    rival_year = np.median(rival[t - 251 : t + 1])
    expected = {f"range_{n}": np.log(size[t - n + 1 : t + 1]).mean() - np.log(year) for n in (1, 5, 10, 22, 66)}
    expected |= {f"return_{n}": np.log(own.close[t] / own.close[t - n]) / year / n**0.5 for n in (1, 5, 22)}
    expected["below_high_22"] = np.log(own.close[t] / own.high[t - 21 : t + 1].max()) / year
    expected["volume_1"] = np.log(own.volume[t] / own.volume[t - 21 : t + 1].mean())
    expected["other_range_1"] = np.log(rival[t] / rival_year)
    expected["other_return_1"] = np.log(other.close[t] / other.close[t - 1]) / rival_year
    assert sorted(expected) == sorted(NAMES)
    assert BEFORE[t] == pytest.approx([expected[name] for name in NAMES])


@settings(deadline=None, max_examples=50)
@given(scale=st.floats(0.01, 100))
def test_the_unit_of_prices_and_volume_does_not_matter(scale):
    own = MARKET.sp500
    columns = {field: scale * getattr(own, field) for field in ("high", "low", "close", "volume")}
    np.testing.assert_allclose(daily(replace(own, **columns), MARKET.nasdaq), BEFORE, atol=1e-9)


def test_a_window_holds_its_day_last_and_the_days_before_in_order():
    view = windows(BEFORE)
    assert view.shape == (DAYS, WINDOW, len(NAMES))
    assert view.dtype == np.float32
    np.testing.assert_array_equal(view[300], BEFORE[300 - WINDOW + 1 : 301].astype(np.float32))
    assert np.isnan(view[WINDOW - 2]).any()


def test_a_day_is_turbulent_when_its_month_is_rougher_than_its_year():
    view = windows(BEFORE)[YEAR + WINDOW :]
    month = BEFORE[YEAR + WINDOW :, NAMES.index("range_22")]
    np.testing.assert_array_equal(turbulent(view), month > 0)
    assert 0 < turbulent(view).mean() < 1


def test_a_history_shorter_than_a_year_gives_no_features():
    short = made_up(50)
    assert np.isnan(daily(short.sp500, short.nasdaq)).any(axis=1).all()
