"""How good a model is on days it has not seen, and how sure one may be of it.

Rows are not independent: both indices share each day, and neighbouring days share their past. So every standard error
here is of sums by day, with Bartlett weights over LAGS neighbours (Newey and West 1987, doi:10.2307/1913610).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.finance.task import Samples

LAGS = 10
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Score:
    """One model on one set of rows. The losses are means; lower is better."""

    rows: int
    accuracy: float
    low: float
    """Lower end of the accuracy's 95 % interval."""
    high: float
    """Upper end of the accuracy's 95 % interval."""
    base_rate: float
    """Accuracy of the better of the two constant answers, chosen in hindsight."""
    brier: float
    log_loss: float


@dataclass(frozen=True)
class Report:
    """One model on all held-out days, and on the calm and the turbulent ones apart."""

    all: Score
    calm: Score
    turbulent: Score


@dataclass(frozen=True)
class Difference:
    """Model a minus model b on the same rows: a mean, its standard error, the two-sided p of there being none."""

    mean: float
    error: float
    p: float


def report(samples: Samples, probability: NDArray[np.float32]) -> Report:
    """Scores probabilities [n] of a high range, overall and by volatility state."""

    def of(mask: NDArray[np.bool_]) -> Score:
        return score(samples.label[mask], probability[mask], samples.day[mask])

    return Report(of(np.ones(len(samples), dtype=np.bool_)), of(~samples.turbulent), of(samples.turbulent))


def decisions(probability: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Is a high range expected? [n], from probabilities [n]: where it is likelier than not."""
    return np.asarray(probability > 0.5)  # noqa: PLR2004 - the even chance


def correct(label: NDArray[np.bool_], probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """1.0 where the decision was right, else 0.0: [n]."""
    return np.asarray(decisions(probability) == label, np.float64)


def brier(label: NDArray[np.bool_], probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared error of each probability, [n]."""
    return (probability.astype(np.float64) - label) ** 2


def score(label: NDArray[np.bool_], probability: NDArray[np.float32], day: NDArray[np.datetime64]) -> Score:
    """Scores probabilities [n] against labels [n]; rows of one `day` [n] count as one draw for the interval.

    Raises ValueError when there are no rows.
    """
    if not len(label):
        raise ValueError("there are no rows to score")
    right = correct(label, probability)
    accuracy, error = float(right.mean()), standard_error(right, day)
    # The count of independent rows that would give this standard error; never more than there are.
    effective = min(len(label), accuracy * (1 - accuracy) / error**2) if error > 0 else len(label)
    low, high = wilson(accuracy, effective)
    # A probability that float32 rounded to 0 or 1 must not cost an infinite loss.
    chance = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return Score(
        rows=len(label),
        accuracy=accuracy,
        low=low,
        high=high,
        base_rate=float(max(label.mean(), 1 - label.mean())),
        brier=float(brier(label, probability).mean()),
        log_loss=float(-np.mean(np.log(np.where(label, chance, 1 - chance)))),
    )


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share seen in `n` independent draws (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    center = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def paired(a: NDArray[np.float64], b: NDArray[np.float64], day: NDArray[np.datetime64]) -> Difference:
    """Compares two models row by row, given what each scored on it [n] (Diebold and Mariano 1995, doi:10.2307/1392185).

    A difference that never varies has p = 1 when it is zero and p = 0 otherwise.
    """
    difference = a - b
    mean, error = float(difference.mean()), standard_error(difference, day)
    if not error:
        return Difference(mean, error, float(mean == 0))
    return Difference(mean, error, math.erfc(abs(mean / error) / math.sqrt(2)))


def standard_error(values: NDArray[np.float64], day: NDArray[np.datetime64]) -> float:
    """Standard error of the mean of `values` [n], whose rows share days [n] and whose days follow on one another."""
    _, of_day = np.unique(day, return_inverse=True)
    sums = np.bincount(of_day, weights=values - values.mean())
    variance = float(sums @ sums)
    for lag in range(1, min(LAGS, len(sums) - 1) + 1):
        variance += 2 * (1 - lag / (LAGS + 1)) * float(sums[lag:] @ sums[:-lag])
    # Bartlett's weights keep the sum from being negative, rounding apart.
    return math.sqrt(max(variance, 0.0)) / len(values)
