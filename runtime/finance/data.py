"""Two daily price series, S&P 500 and NASDAQ Composite, 1999-2018, as the `arch` package ships them.

Nothing is downloaded. What comes out of here has been checked, so that everything behind it may take a logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Series:
    """One index, one row a trading day, oldest first. Prices in index points; every array is [days]."""

    name: str
    day: NDArray[np.datetime64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    # The file's Open is left out on purpose: until 2006 the S&P's is just the previous day's close.

    def __len__(self) -> int:
        return len(self.day)

    def until(self, days: int) -> Series:
        """The series as it was known at the close of its day number `days - 1`."""
        columns = {field.name: getattr(self, field.name)[:days] for field in fields(self) if field.name != "name"}
        return Series(name=self.name, **columns)


@dataclass(frozen=True)
class Market:
    """Both indices on one trading calendar."""

    sp500: Series
    nasdaq: Series

    @property
    def pairs(self) -> tuple[tuple[Series, Series], ...]:
        """Each index beside the other one: (own, other)."""
        return (self.sp500, self.nasdaq), (self.nasdaq, self.sp500)


def load() -> Market:
    """Both series from the installed `arch` package, checked.

    Raises ModuleNotFoundError where `arch` is not installed, and ValueError where a series could not have come from a
    real market, naming the series and the day.
    """
    sp500, nasdaq = _series("sp500"), _series("nasdaq")
    if not np.array_equal(sp500.day, nasdaq.day):
        raise ValueError("sp500 and nasdaq must share one trading calendar, and their dates differ")
    return Market(sp500, nasdaq)


def check(series: Series) -> Series:
    """The series itself, or ValueError with the first day that cannot be right."""
    faults = {
        "the date must be later than the one before it": np.append(False, series.day[1:] <= series.day[:-1]),
        "prices and volume must be finite and above 0": ~_positive(series),
        "the high must be above the low": series.high <= series.low,
        "the close must lie between low and high": (series.close > series.high) | (series.close < series.low),
    }
    for rule, broken in faults.items():
        if broken.any():
            raise ValueError(f"{series.name}, {series.day[broken.argmax()]}: {rule}")
    return series


def _series(name: str) -> Series:
    try:
        frame: Any = import_module(f"arch.data.{name}").load()  # a pandas frame, and pandas ships no types
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the market data come with the package `arch`, and {missing.name} is not installed: "
            "pip install 'croupier[demo]'",
            name=missing.name,
        ) from missing
    columns = {field: frame[field.capitalize()].to_numpy(np.float64) for field in ("high", "low", "close", "volume")}
    columns["volume"] = _carried_forward(columns["volume"])
    return check(Series(name=name, day=frame.index.to_numpy().astype("datetime64[D]"), **columns))


def _carried_forward(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    # Two NASDAQ days carry a volume of 0 beside a normal price range: not reported, so the last known one stands.
    reported = np.where(volume > 0, np.arange(len(volume)), 0)
    return volume[np.maximum.accumulate(reported)]


def _positive(series: Series) -> NDArray[np.bool_]:
    columns = np.stack([series.high, series.low, series.close, series.volume])
    return np.asarray((np.isfinite(columns) & (columns > 0)).all(axis=0))
