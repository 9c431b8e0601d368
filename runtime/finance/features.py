"""What is known at the close of day t, scale-free, so that both indices and all years can share one model.

The spine is the heterogeneous autoregression of Corsi (2009, doi:10.1093/jjfinec/nbp001): tomorrow's volatility from
the averages over a day, a week, a month. Volatility is read from the day's range ln(high / low) (Parkinson 1980);
returns carry their sign because markets grow rougher after falls than after rises.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from runtime.finance.data import Series

YEAR = 252
MONTH = 22
WINDOW = 10
"""Days in one sample: two trading weeks."""

NAMES = (
    "range_1",
    "range_5",
    "range_10",
    "range_22",
    "range_66",
    "return_1",
    "return_5",
    "return_22",
    "below_high_22",
    "volume_1",
    "other_range_1",
    "other_return_1",
)
"""The columns of one day. A trailing number is how many days, up to and including t, the column looks at."""


def log_range(series: Series) -> NDArray[np.float64]:
    """ln(high / low) of each day, [days]."""
    return np.log(series.high / series.low)


def median_range(series: Series) -> NDArray[np.float64]:
    """Median of the range over the year up to and including each day, [days]; NaN until a year has passed."""
    return _rolling(np.median, log_range(series), YEAR)


def daily(own: Series, other: Series) -> NDArray[np.float64]:
    """The feature row of each day of `own`, [days, len(NAMES)]; NaN until a year of history has passed."""
    size, year = np.log(log_range(own)), median_range(own)
    change, other_change = _log_return(own), _log_return(other)
    columns = {f"range_{days}": _rolling(np.mean, size, days) - np.log(year) for days in (1, 5, 10, MONTH, 66)}
    # A sum of n daily returns grows like the root of n; dividing by it puts all horizons on one scale.
    columns |= {f"return_{n}": _rolling(np.sum, change, n) / (year * np.sqrt(n)) for n in (1, 5, MONTH)}
    columns["below_high_22"] = np.log(own.close / _rolling(np.max, own.high, MONTH)) / year
    columns["volume_1"] = np.log(own.volume / _rolling(np.mean, own.volume, MONTH))
    columns["other_range_1"] = np.log(log_range(other) / median_range(other))
    columns["other_return_1"] = other_change / median_range(other)
    return np.stack([columns[name] for name in NAMES], axis=-1)


def windows(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """For each day its last WINDOW rows, oldest first: [days, WINDOW, features]; NaN where history is too short."""
    padding = np.full((WINDOW - 1, rows.shape[1]), np.nan)
    view = sliding_window_view(np.concatenate([padding, rows]), WINDOW, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1), dtype=np.float32)


def turbulent(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The volatility state at the close of day t, from windows [n, WINDOW, features]: [n].

    A day is turbulent when the month's average range lies above the year's median, and calm otherwise.
    """
    return np.asarray(features[:, -1, NAMES.index(f"range_{MONTH}")] > 0)


def _log_return(series: Series) -> NDArray[np.float64]:
    return np.diff(np.log(series.close), prepend=np.nan)


def _rolling(
    statistic: Callable[..., NDArray[np.float64]], values: NDArray[np.float64], days: int
) -> NDArray[np.float64]:
    """`statistic` over the `days` values up to and including each day; each window by itself, so no later day leaks."""
    result = np.full(len(values), np.nan)
    if len(values) >= days:
        result[days - 1 :] = statistic(sliding_window_view(values, days), axis=-1)
    return result
