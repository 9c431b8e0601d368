"""What a decision is worth: hold the index in full before a calm day, and less of it before a rough one.

The position is taken at the close of day t, where the features are known, and earns until the close of t + 1. Cash
earns nothing. Every function maps arrays to arrays, so a replay may feed it decisions of any mixture of models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRADING_DAYS = 252
REDUCED = 0.5
COST_BPS = 1.0


@dataclass(frozen=True)
class Performance:
    """A stretch of daily results."""

    days: int
    mean_bps: float
    """Mean daily result, basis points."""
    volatility: float
    """Standard deviation of a year's result, as a share of capital."""
    sharpe: float
    """Annualised, over a cash rate of zero; NaN where the result never varies."""
    sharpe_error: float
    """Its standard error for independent days (Lo 2002, doi:10.2469/faj.v58.n4.2453)."""
    drawdown: float
    """Largest fall of the compounded capital from an earlier peak, as a share of that peak."""


def exposures(high: NDArray[np.bool_], *, reduced: float = REDUCED) -> NDArray[np.float64]:
    """Share of capital held in the index each day, [days]: 1, or `reduced` where `high` [days] expects a rough day."""
    return np.where(high, reduced, 1.0)


def results_bps(
    exposure: NDArray[np.float64],
    next_return: NDArray[np.float64],
    *,
    cost_bps: float = COST_BPS,
    before: float = 0.0,
) -> NDArray[np.float64]:
    """Each day's result in basis points of capital, [days].

    `exposure` [days] earns `next_return` [days], and a change of exposure by 1 costs `cost_bps`; `before` is what was
    held on the eve of the first day.
    """
    turnover = np.abs(np.diff(exposure, prepend=before))
    return np.asarray(1e4 * exposure * next_return - cost_bps * turnover)


def performance(result_bps: NDArray[np.float64]) -> Performance:
    """Sums up daily results [days] in basis points. Raises ValueError for fewer than two days."""
    if len(result_bps) < 2:  # noqa: PLR2004 - one day has no deviation
        raise ValueError(f"performance needs two days or more, not {len(result_bps)}")
    daily = result_bps / 1e4
    mean, deviation = float(daily.mean()), float(daily.std(ddof=1))
    ratio = mean / deviation if deviation else math.nan
    capital = np.cumprod(np.concatenate([[1.0], 1.0 + daily]))
    return Performance(
        days=len(daily),
        mean_bps=1e4 * mean,
        volatility=deviation * math.sqrt(TRADING_DAYS),
        sharpe=ratio * math.sqrt(TRADING_DAYS),
        sharpe_error=math.sqrt(TRADING_DAYS * (1 + ratio**2 / 2) / len(daily)),
        drawdown=float(np.max(1.0 - capital / np.maximum.accumulate(capital))),
    )
