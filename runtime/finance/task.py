"""The question: will tomorrow's range exceed the median range of the past year? And which days may be learnt from.

The split is by time. Between two parts lies a gap longer than a sample's window, so that no validation or test window
holds a day whose outcome was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from runtime.finance.data import Market, Series
from runtime.finance.features import MONTH, daily, log_range, median_range, turbulent, windows

VALIDATION_FROM = np.datetime64("2009-01-01")
TEST_FROM = np.datetime64("2012-01-01")
GAP = MONTH
"""Trading days left out between two parts."""


@dataclass(frozen=True)
class Samples:
    """n samples, by day and then index. `day` is t, the day whose close they are known at; the outcome is t + 1's."""

    day: NDArray[np.datetime64]
    """[n] day t."""
    index: NDArray[np.str_]
    """[n] "sp500" or "nasdaq"."""
    features: NDArray[np.float32]
    """[n, WINDOW, features] raw, as clients send them; the models standardise."""
    turbulent: NDArray[np.bool_]
    """[n] the volatility state at the close of t."""
    label: NDArray[np.bool_]
    """[n] did t + 1's range exceed the median of the year up to t?"""
    next_return: NDArray[np.float64]
    """[n] close[t + 1] / close[t] - 1."""

    def __len__(self) -> int:
        return len(self.day)

    def where(self, mask: NDArray[np.bool_]) -> Samples:
        """Only the samples that `mask` [n] marks, in the same order."""
        return Samples(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


@dataclass(frozen=True)
class Split:
    """Three stretches of time, in order, each apart from the next by GAP trading days."""

    train: Samples
    validation: Samples
    test: Samples


def labels(series: Series) -> NDArray[np.float64]:
    """Whether day t + 1's range exceeds the median of the year up to t: 1.0, 0.0 or, where unknown, NaN; [days]."""
    size, median = log_range(series), median_range(series)
    result = np.full(len(series), np.nan)
    result[:-1] = np.where(np.isnan(median[:-1]), np.nan, size[1:] > median[:-1])
    return result


def samples(market: Market) -> Samples:
    """Every day of both indices that has a full window behind it and an outcome ahead of it."""
    both = [_of_one_index(own, other) for own, other in market.pairs]
    joined = {field.name: np.concatenate([getattr(part, field.name) for part in both]) for field in fields(Samples)}
    # Stable, so that on each day the S&P comes first.
    order = np.argsort(joined["day"], kind="stable")
    return Samples(**{name: column[order] for name, column in joined.items()})


def split(everything: Samples) -> Split:
    """Train, validation and test, by time; the last GAP days of the first two are given up."""
    days = np.unique(everything.day)

    def part(start: np.datetime64, stop: np.datetime64) -> Samples:
        inside = days[(days >= start) & (days < stop)]
        if stop <= days[-1]:
            inside = inside[:-GAP]
        return everything.where(np.isin(everything.day, inside))

    end = days[-1] + 1
    return Split(part(days[0], VALIDATION_FROM), part(VALIDATION_FROM, TEST_FROM), part(TEST_FROM, end))


def _of_one_index(own: Series, other: Series) -> Samples:
    features, outcome = windows(daily(own, other)), labels(own)
    known = np.isfinite(features).all(axis=(1, 2)) & np.isfinite(outcome)
    next_return = np.append(own.close[1:] / own.close[:-1] - 1.0, np.nan)
    return Samples(
        day=own.day[known],
        index=np.full(known.sum(), own.name),
        features=features[known],
        turbulent=turbulent(features[known]),
        label=outcome[known] > 0,
        next_return=next_return[known],
    )
