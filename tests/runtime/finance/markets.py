"""A made-up market: two random walks with volatility that comes and goes, small enough for many examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.finance.data import Market, Series, check


def made_up(days: int = 400, seed: int = 0) -> Market:
    rng = np.random.default_rng(seed)
    day = np.datetime64("2001-01-01") + np.arange(days)
    return Market(_series("sp500", day, rng), _series("nasdaq", day, rng))


def disturbed_after(series: Series, t: int, seed: int = 1) -> Series:
    """The same series up to and including day t, and another one from there."""
    other = _series(series.name, series.day, np.random.default_rng(seed))
    columns = {}
    for field in ("high", "low", "close", "volume"):
        column = getattr(series, field).copy()
        column[t + 1 :] = 7.0 * getattr(other, field)[t + 1 :]
        columns[field] = column
    return replace(series, **columns)


def _series(name: str, day: np.ndarray, rng: np.random.Generator) -> Series:
    volatility = 0.01 * np.exp(np.sin(np.arange(len(day)) / 40) + 0.2 * rng.standard_normal(len(day)))
    close = 1000 * np.exp(np.cumsum(volatility * rng.standard_normal(len(day))))
    high = close * np.exp(volatility * rng.uniform(0.1, 1.0, len(day)))
    low = close * np.exp(-volatility * rng.uniform(0.1, 1.0, len(day)))
    volume = 1e9 * np.exp(0.3 * rng.standard_normal(len(day)))
    return check(Series(name=name, day=day, high=high, low=low, close=close, volume=volume))
