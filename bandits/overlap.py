"""Whether a log can tell anything of a target: how far what was chosen and what would be chosen overlap.

The weights w = target's probability of the logged arm / its propensity average 1 if the propensities are true and the
log could choose whatever the target would. Where they do not, no estimator helps.

By how much chance alone moves their average can be seen in the weights, but not where heavy ones are rare: most logs
then hold none of them, average less than 1, and seem sure of it. Where a log has the propensities p of all arms, the
variance of a weight is known without looking at it: Σ_a π(a)²/p(a) - 1. The greater of the two counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.log import Log
from bandits.policy import Mask, Vector

SELDOM = 0.01
"""Draws: an arm of which less is to be expected in the whole log is out of its reach."""

FEWEST = 100
"""Effective rows: with fewer, the standard error of a rate can pass 0.05, and an estimate is no answer."""

FARTHEST = 0.05
"""How much of the target a log may miss: rewards are in [0, 1], so the value could be wrong by so much."""

ROUNDING = 1e-9
"""Weights that are all alike have no error but this."""

HARDLY = 10
"""Plays: an arm with fewer is hardly known."""

MENTIONED = 0.001
"""Share of the target's choices that go to such arms: with less, nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the weights of n rows say."""

    effective_rows: float
    """(Σw)² / Σw²: about so many rows of the target's own would tell as much."""
    mean_weight: float
    mean_weight_error: float
    """Its standard error, as seen or as was to be expected; rows of a unit go together."""
    largest_weight: float
    coverage: float
    """The share of the target's choices that go to arms with at least 10 plays in the log."""
    why: str
    """Why this log cannot answer, in sentences; empty where it can."""
    warnings: tuple[str, ...]
    """What makes the answer less sure, a sentence each."""

    @property
    def answerable(self) -> bool:
        """Whether an estimate means anything.

        It does not when more than 0.05 of the target's choices go to arms that the log never played, when the weights
        average off 1 by more than both 0.05 and three standard errors as seen in them, or when the effective rows are
        fewer than 100.
        """
        return not self.why


def overlap_of(log: Log, target: Vector, weights: Vector) -> Overlap:
    """Compare a log with `target` float[n, K], whose `weights` float[n] are finite."""
    plays = np.bincount(log.arms, minlength=log.K)
    share = target.mean(axis=0)
    total, square = float(weights.sum()), float((weights * weights).sum())
    effective = total * total / square if square > 0.0 else 0.0
    mean, seen = total / len(log), _error_seen(weights, log.units)
    error = max(seen, _error_expected(log, target))
    off = abs(mean - 1.0)
    misfit = f"The weights average {mean:.3g} instead of 1 (standard error {error:.2g}): "

    why: list[str] = []
    warnings: list[str] = []
    never = plays == 0
    if share[never].sum() > FARTHEST:
        why.append(f"Of the target's choices, {share[never].sum():.1%} go to arms never played: {_arms(never, share)}.")
    if off > 3.0 * error + ROUNDING:
        (why if off > FARTHEST else warnings).append(
            f"{misfit}propensities are wrong, rows are missing, or the log could not choose all that the target would."
        )
    elif off > max(FARTHEST, 3.0 * seen + ROUNDING):
        why.append(f"{misfit}of what the target would choose, too much was too improbable for a log of this length.")
    if effective < FEWEST:
        why.append(f"The log tells as much as {effective:.0f} rows of the target's own; an answer takes {FEWEST}.")

    hardly = plays < HARDLY
    if share[hardly].sum() > MENTIONED:
        warnings.append(
            f"Of the target's choices, {share[hardly].sum():.1%} go to arms with fewer than {HARDLY} plays: "
            f"{_arms(hardly, share)}."
        )
    heaviest = int(weights.argmax())
    if weights[heaviest] > 0.1 * total:
        warnings.append(f"Row {heaviest} alone has {weights[heaviest] / total:.0%} of all the weight.")
    return Overlap(
        effective_rows=effective,
        mean_weight=mean,
        mean_weight_error=error,
        largest_weight=float(weights[heaviest]),
        coverage=min(float(share[~hardly].sum()), 1.0),
        why=" ".join(why),
        warnings=tuple(warnings),
    )


def _error_seen(weights: Vector, units: NDArray[np.intp] | None) -> float:
    if units is None:
        return float(weights.std(ddof=1)) / math.sqrt(len(weights))
    _, index = np.unique(units, return_inverse=True)
    sums = np.bincount(index, weights - weights.mean())
    n = len(sums)
    return math.sqrt(n / (n - 1) * float(sums @ sums)) / len(weights) if n > 1 else math.inf


def _error_expected(log: Log, target: Vector) -> float:
    """By the propensities of all arms, where the log has them, but for arms that it could not be expected to draw.

    Without units, √Σ_i (Σ_a π²/p - (Σ_a π)²) / n. Rows of a unit may be one draw: their deviations add up.
    """
    if log.drawn_from is None:
        return 0.0
    within_reach = log.drawn_from * len(log) > SELDOM
    pi = np.where(within_reach, target, 0.0)
    squares = (pi * pi / np.where(within_reach, log.drawn_from, 1.0)).sum(axis=1)
    variances = np.maximum(squares - pi.sum(axis=1) ** 2, 0.0)
    if log.units is None:
        return math.sqrt(float(variances.sum())) / len(log)
    _, index = np.unique(log.units, return_inverse=True)
    deviations = np.bincount(index, np.sqrt(variances))
    return math.sqrt(float(deviations @ deviations)) / len(log)


def _arms(which: Mask, share: Vector) -> str:
    """Names by index those arms that the target wants, most wanted first."""
    wanted = [str(arm) for arm in np.argsort(-share, kind="stable") if which[arm] and share[arm] > 0.0]
    return ", ".join(wanted[:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
