"""What a sticky route's log says when units are taken to be independent, and not decisions.

A unit keeps its arm, and its rewards go together: a good customer is a good one again tomorrow. So a hundred decisions
of one unit do not tell what a hundred of as many units do, and an interval that takes them for that is too narrow. Here
units are the observations, and a mean reward is a ratio of two sums over units, of rewards and of decisions. Its
variance is that of the sum of what each unit adds to the deviation (the delta method); how many times the variance of
independent decisions that is, is the design effect.

A. Deng, U. Knoblich, J. Lu, "Applying the delta method in metric analytics: a practical guide with novel ideas",
KDD 2018; L. Kish, "Survey sampling", 1965, for the design effect.

The intervals hold at all times while new units come, in the limit of many units: so there are none before a hundred.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bandits import Mask
from bandits.anytime import difference
from bandits.anytime.differences import FEWEST, asymptotic_interval
from protos.messages import Estimate, RouteReport
from router.answers.estimates import estimate
from router.answers.study import Study
from router.call import Vector
from router.config.reward import Range
from router.learning.lift import LEAST
from router.safety.comparisons import difference_row

OFTEN = 1.1
"""Decisions of a unit, on average: from here on, units are told apart from decisions."""

TOO_SURE = (
    "Units came back, and their rewards may go together: intervals and e-values that count decisions are then too "
    "sure. Go by those that count units."
)


def came_back(study: Study) -> RouteReport.Units | None:
    """How often the units of a sticky route came; None where each drew about once."""
    decisions = np.bincount(study.units)
    decisions = decisions[decisions > 0]
    if not len(study) > OFTEN * len(decisions):
        return None
    return RouteReport.Units(units=len(decisions), decisions=len(study), most=int(decisions.max()))


def spread(units: NDArray[np.intp], deviations: Vector) -> tuple[int, float]:
    """How many units there are, and the variance of the sum of deviations [n] around 0 of their decisions.

    It is infinite for a single unit, of which nobody knows how it differs from others.
    """
    _, index = np.unique(units, return_inverse=True)
    sums = np.bincount(index, deviations)
    n = len(sums)
    return n, n / (n - 1) * float(sums @ sums) if n > 1 else math.inf


def mean_by_unit(units: NDArray[np.intp], values: Vector, *, alpha: float) -> tuple[Estimate, float | None]:
    """The mean of values [n], and its design effect, which is None where nothing varies. Nothing of no values.

    The interval is never narrower than that of independent decisions: that units are more alike than chance makes them
    is no knowledge to rely on.
    """
    n = len(values)
    if n < 2:  # noqa: PLR2004  # one has no deviation
        return (Estimate(value=float(values[0])) if n else Estimate()), None
    mean = float(values.mean())
    alone = n / (n - 1) * float(((values - mean) ** 2).sum())
    m, together = spread(units, values - mean)
    if not alone > 0.0 or m < FEWEST:
        return Estimate(value=mean), together / alone if alone > 0.0 and math.isfinite(together) else None
    # As many scores as there are units, whose mean has the variance that was found.
    low, high = asymptotic_interval(m, 0.0, m * m * max(together, alone) / n**2, alpha=alpha)
    return estimate(mean, mean + low, mean + high), together / alone


def by_unit(study: Study, k: int, champion: int, reward: Range, *, alpha: float, K: int) -> RouteReport.ByUnit:
    """What units say of arm k: of its mean and, unless it is the champion, of its lift. K arms share alpha."""
    mine = study.rewarded & (study.chosen == k)
    told = RouteReport.ByUnit(units=len(np.unique(study.units[mine])), decisions=int(mine.sum()))
    mean, effect = mean_by_unit(study.units[mine], study.rewards[mine], alpha=alpha / K)
    told.mean.CopyFrom(_within(mean, reward))
    if effect is not None:
        told.design_effect = effect
    if k != champion:
        _tell_lift(told, study, k, champion, reward, alpha=alpha / (K - 1))
    return told


def _tell_lift(told: RouteReport.ByUnit, study: Study, k: int, champion: int, reward: Range, *, alpha: float) -> None:
    both = (study.probabilities[:, [k, champion]] >= LEAST).all(axis=1)
    rows = study.rewarded & study.answered & ~study.stood_in & both
    width = reward.high - reward.low
    shares, w = np.clip((study.rewards[rows] - reward.low) / width, 0.0, 1.0), 1.0 / study.propensities[rows]
    drawn, units, n = study.chosen[rows], study.units[rows], int(rows.sum())
    ours, theirs = drawn == k, drawn == champion
    if not (ours.any() and theirs.any()):
        return
    row = difference_row(_weighed(shares, w, ours), _weighed(shares, w, theirs), n)
    effect = row[1] / n
    deviations = np.zeros(n)
    for side, sign in (ours, 1.0), (theirs, -1.0):
        total = w[side].sum()
        deviations[side] = sign * w[side] * (shares[side] - w[side] @ shares[side] / total) / total
    m, together = spread(units, deviations)
    if not math.isfinite(together):
        return
    alone = max(row[3], row[4]) / n**2
    plays = [float(len(np.unique(units[side]))) for side in (ours, theirs)]
    scores = np.array([m, m * effect, m * effect**2 + m * m * together, m * m * together, m * m * alone, *plays])
    judged = difference(scores, alpha=alpha)
    if math.isfinite(judged.low):
        told.lift.CopyFrom(estimate(width * judged.effect, width * judged.low, width * judged.high))
        told.log_e_value = judged.log_evidence


def _weighed(shares: Vector, w: Vector, side: Mask) -> Vector:
    """The sum of `weighed_row`s."""
    x, w = shares[side], w[side]
    one = np.ones(len(x))
    terms = (one, x, x * x, w, x * w, w * w, x * w * w, x * x * w * w)
    return np.array([float(term.sum()) for term in terms])


def _within(known: Estimate, range: Range) -> Estimate:
    if known.HasField("low"):
        known.low, known.high = max(known.low, range.low), min(known.high, range.high)
    return known
