"""Means and their intervals from sums that merge by addition: n, Σx and Σx², as the store keeps them."""

from __future__ import annotations

import math

from bandits.anytime import rate_interval
from bandits.anytime.differences import asymptotic_interval
from protos.messages import Estimate
from router.call import Vector
from router.config.reward import Range


def estimate(value: float, low: float, high: float) -> Estimate:
    """An estimate; an end that is infinite is not known, and is left out."""
    return Estimate(value=value, low=low if math.isfinite(low) else None, high=high if math.isfinite(high) else None)


def less(known: Estimate, amount: float) -> Estimate:
    """The same, less an amount that is known for certain."""
    moved = Estimate()
    for field, value in known.ListFields():
        setattr(moved, field.name, value - amount)
    return moved


def mean_within(row: Vector, range: Range, *, alpha: float) -> Estimate:
    """The mean of numbers from a range, of which `row` is n, Σx and Σx²; nothing where n is 0.

    Two intervals are met, each with half of alpha: one that needs the range alone and is right at every n, and, from a
    hundred on, the asymptotic one, which is narrower for numbers that keep to a small part of the range. Both hold
    however often one looks, and whatever was dealt by what came before.
    """
    n, total, squares = row.tolist()
    if not n > 0.0:
        return Estimate()
    width = range.high - range.low
    shares = min(max((total - n * range.low) / width, 0.0), n)
    low, high = (range.low + width * end for end in rate_interval(shares, n, alpha=alpha / 2))
    near, far = _asymptotic(n, total, squares, alpha / 2)
    return estimate(total / n, max(low, near), min(high, far))


def mean_anywhere(row: Vector, *, alpha: float) -> Estimate:
    """The mean of numbers without a range: the asymptotic interval, so none before a hundred of them."""
    n, total, squares = row.tolist()
    return estimate(total / n, *_asymptotic(n, total, squares, alpha)) if n > 0.0 else Estimate()


def _asymptotic(n: float, total: float, squares: float, alpha: float) -> tuple[float, float]:
    return asymptotic_interval(n, total, max(squares, total * total / n), alpha=alpha)  # corrections round
