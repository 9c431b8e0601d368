"""Quantiles of a latency, also from counts in logarithmic buckets, which merge by addition.

The share of answers that are not slower than the q-quantile is a rate, q itself; so where an order statistic is certain
to lie on one side of it, the quantile is bounded, at all times at once. Buckets tell between which of their edges an
order statistic lies, and the bound is read at the farther one: they cost resolution, never validity.
S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", Bernoulli 28 (2022).

A guardrail on a quantile is better kept on a rate: "p99 below 200 ms" says that at most 1 % of the answers are slower
than 200 ms, which `rates` decides sooner, from two counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from bandits.anytime.rates import log_evidence
from bandits.anytime.stitching import empirical_process_boundary
from bandits.policy import Vector

ROUNDING = 1e-9
"""Ranks this near to a whole number are taken for it, or for the next, whichever is safe."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Edges at lowest · 2^(k / per_octave) up to `highest`, of whatever unit; an edge belongs to the bucket below it.

    One bucket more, at either end, takes what lies beyond. Counts add up where the buckets are equal. Those of the
    default, for seconds, are 9 % wide from 10 µs to 1000 s: 215 in all. Raises ValueError for settings out of range.
    """

    lowest: float = 1e-5
    highest: float = 1e3
    per_octave: int = 8

    def __post_init__(self) -> None:
        if not 0.0 < self.lowest < self.highest < math.inf:
            raise ValueError(f"lowest and highest: must be 0 < lowest < highest, got {self.lowest} and {self.highest}")
        if self.per_octave < 1:
            raise ValueError(f"per_octave: must be at least 1, got {self.per_octave}")

    @property
    def edges(self) -> Vector:
        """Upper edges of all buckets but the last, which has none."""
        octaves = math.log2(self.highest / self.lowest)
        k = np.arange(math.ceil(octaves * self.per_octave - ROUNDING) + 1)
        edges: Vector = self.lowest * np.exp2(k / self.per_octave)
        return edges

    def count(self, values: ArrayLike) -> Vector:
        """Return how many of the values fall into each bucket. Raises ValueError for one below 0 or not finite."""
        observed = np.asarray(values, dtype=np.float64).ravel()
        if not ((observed >= 0.0) & (observed < math.inf)).all():
            raise ValueError("values: must be finite and not below 0")
        edges = self.edges
        return np.bincount(np.searchsorted(edges, observed), minlength=len(edges) + 1).astype(np.float64)

    def between(self, counts: ArrayLike, ranks: tuple[int, int]) -> tuple[float, float]:
        """Return the edge below the one order statistic, and the edge above the other: 0 and inf beyond them all."""
        edges = self.edges
        upto = np.cumsum(_counts(counts, len(edges) + 1))
        first, last = np.searchsorted(upto, ranks)
        low = edges[first - 1] if ranks[0] > 0 and first > 0 else 0.0
        high = edges[last] if last < len(edges) else math.inf
        return float(low), float(high)


SECONDS = Buckets()


def quantile_interval(
    counts: ArrayLike, q: float, *, buckets: Buckets = SECONDS, alpha: float = 0.05, tightest_at: float = 1000.0
) -> tuple[float, float]:
    """Low and high of the confidence sequence of one q-quantile, chosen beforehand, from counts of the buckets.

    Tightest near n = `tightest_at`. Raises ValueError unless 0 < q < 1, and for counts and settings that cannot be.
    """
    n = _counts(counts, len(buckets.edges) + 1).sum()
    return buckets.between(counts, quantile_ranks(int(n), q, alpha=alpha, tightest_at=tightest_at))


def quantile_band(
    counts: ArrayLike, q: float, *, buckets: Buckets = SECONDS, alpha: float = 0.05, start: float = 100.0
) -> tuple[float, float]:
    """Low and high for any q-quantile, however many are looked at: all are right together, with 1 - alpha.

    (0, inf) before n = `start`. Raises ValueError unless 0 < q < 1, and for counts and settings that cannot be.
    """
    n = _counts(counts, len(buckets.edges) + 1).sum()
    return buckets.between(counts, band_ranks(int(n), q, alpha=alpha, start=start))


def quantile_ranks(n: int, q: float, *, alpha: float = 0.05, tightest_at: float = 1000.0) -> tuple[int, int]:
    """Return the ranks among n observations, from 1, of the two between which their q-quantile lies, at all times.

    0 and n + 1 mean that there is no bound. Raises ValueError unless 0 < q < 1, and for settings that cannot be.
    """
    evidence = _evidence(q, alpha, tightest_at)
    nats = -math.log(alpha)

    def excluded(k: int) -> bool:
        return evidence(k, n) >= nats

    middle = math.floor(n * q) + 1
    low = bisect_left(range(middle), True, key=lambda k: not excluded(k))
    return low, middle + bisect_left(range(middle, n + 1), True, key=excluded)


def band_ranks(n: int, q: float, *, alpha: float = 0.05, start: float = 100.0) -> tuple[int, int]:
    """Return the ranks as `quantile_ranks` does, for all q at once. Theorem 2, for the distribution function."""
    _check_quantile(q)
    radius = empirical_process_boundary(n, alpha=alpha, start=start)
    if radius == math.inf:
        return 0, n + 1
    low, high = math.ceil(n * (q - radius) - ROUNDING), math.floor(n * (q + radius) + ROUNDING) + 1
    return max(low, 0), min(high, n + 1)


def quantile_evidence(
    first: ArrayLike, second: ArrayLike, q: float, *, alpha: float = 0.05, tightest_at: float = 1000.0
) -> float:
    """Natural logarithm of the evidence that the q-quantiles of two arms differ, from all that was observed of each.

    While they are the same, it ever reaches ln 1/a with probability a at most; so e^-evidence is a p-value. Sharpest
    near `tightest_at` observations of either. Theorem 5: the evidence against that common quantile which explains both
    best. Raises ValueError unless 0 < q < 1, and for what is not finite.
    """
    one, other = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    values = np.unique(np.concatenate([one, other]))
    if not np.isfinite(values).all():
        raise ValueError("first and second: hold a value that is not finite")
    counts = [np.bincount(np.searchsorted(values, arm), minlength=len(values)) for arm in (one, other)]
    return bucketed_quantile_evidence(counts[0], counts[1], q, alpha=alpha, tightest_at=tightest_at)


def bucketed_quantile_evidence(
    first: ArrayLike, second: ArrayLike, q: float, *, alpha: float = 0.05, tightest_at: float = 1000.0
) -> float:
    """Return a lower bound of `quantile_evidence`, from counts in the same buckets: so it promises the same.

    Within a bucket, each arm's values lie wherever they explain a common quantile best: arms whose quantiles are in one
    bucket never look different. Raises ValueError as it does, and for counts that cannot be.
    """
    arms = [_counts(first), _counts(second)]
    if arms[0].shape != arms[1].shape:
        raise ValueError(f"first and second: must count the same buckets, not {len(arms[0])} and {len(arms[1])}")
    evidence = _evidence(q, alpha, tightest_at)
    best, here = zip(*(_explained(counts, evidence) for counts in arms), strict=True)
    one, other = (float(counts.sum()) for counts in arms)
    between = range(min(here), min(max(here) + 1, len(arms[0])))  # beyond, the evidence of both grows
    return min((evidence(best[0][i], one) + evidence(best[1][i], other) for i in between), default=0.0)


def _explained(counts: Vector, evidence: Callable[[float, float], float]) -> tuple[list[float], int]:
    """How many values below a quantile in each bucket explain it best; and the bucket that it is most likely in.

    Evidence is convex in them, so it is the number nearest to the best of all that the bucket leaves open.
    """
    upto, n = np.cumsum(counts), float(counts.sum())
    least = _lowest(lambda k: evidence(k, n), 0.0, n)
    return np.clip(least, upto - counts, upto).tolist(), int(np.searchsorted(upto, least))


def _evidence(q: float, alpha: float, tightest_at: float) -> Callable[[float, float], float]:
    """Evidence that the share below a value is not q, from the k of n that are."""
    _check_quantile(q)
    evidence = partial(log_evidence, q, alpha=alpha, tightest_at=tightest_at)
    evidence(0.0, 0.0)  # refuses settings that cannot be
    return evidence


def _check_quantile(q: float) -> None:
    if not 0.0 < q < 1.0:
        raise ValueError(f"q: must lie between 0 and 1, got {q}")


def _lowest(f: Callable[[float], float], start: float, end: float) -> float:
    """Where the convex f is least, by golden section."""
    share = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = end - share * (end - start), start + share * (end - start)
    f_left, f_right = f(left), f(right)
    for _ in range(50):
        if f_left < f_right:
            end, right, f_right = right, left, f_left
            left = end - share * (end - start)
            f_left = f(left)
        else:
            start, left, f_left = left, right, f_right
            right = start + share * (end - start)
            f_right = f(right)
    return (start + end) / 2.0


def _counts(counts: ArrayLike, buckets: int | None = None) -> Vector:
    whole = np.asarray(counts, dtype=np.float64)
    if whole.ndim != 1 or (buckets is not None and len(whole) != buckets):
        raise ValueError(f"counts: must be of shape [{'buckets' if buckets is None else buckets}]")
    if not ((whole >= 0.0) & (whole < math.inf)).all() or (whole % 1.0).any():
        raise ValueError("counts: must be whole numbers, not below 0")
    return whole
