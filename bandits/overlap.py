"""Whether a log can tell anything of a target: how far what was chosen and what would be chosen overlap.

The weights w = target's probability of the logged arm / its propensity average 1 if the propensities are true and the
log could choose whatever the target would. Where they do not, no estimator helps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.log import Log
from bandits.policy import Mask, Vector

FEWEST = 100
"""Effective rows: with fewer, the standard error of a rate can pass 0.05, and an estimate is no answer."""

FARTHEST = 0.05
"""How much of the target a log may miss: rewards are in [0, 1], so the value could be wrong by so much."""

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
    """Its standard error; where rows of a unit go together, by the sums of each unit's deviations."""
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
        average off 1 by more than both 0.05 and three standard errors, or when the effective rows are fewer than 100.
        """
        return not self.why


def overlap_of(log: Log, target: Vector, weights: Vector) -> Overlap:
    """Compare a log with `target` float[n, K], whose `weights` float[n] are finite."""
    plays = np.bincount(log.arms, minlength=log.K)
    share = target.mean(axis=0)
    total, square = float(weights.sum()), float((weights * weights).sum())
    effective = total * total / square if square > 0.0 else 0.0
    mean, error = total / len(log), _error_of_mean(weights, log.units)
    off = abs(mean - 1.0)
    unlike_chance = off > 3.0 * error + 1e-9  # weights that are all alike have no error but the rounding
    misfit = (
        f"The weights average {mean:.3g} instead of 1 (standard error {error:.2g}): propensities are wrong, rows are "
        "missing, or the log could not choose all that the target would."
    )

    why: list[str] = []
    warnings: list[str] = []
    never = plays == 0
    if share[never].sum() > FARTHEST:
        why.append(f"Of the target's choices, {share[never].sum():.1%} go to arms never played: {_arms(never, share)}.")
    if unlike_chance:
        (why if off > FARTHEST else warnings).append(misfit)
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


def _error_of_mean(weights: Vector, units: NDArray[np.intp] | None) -> float:
    if units is None:
        return float(weights.std(ddof=1)) / math.sqrt(len(weights))
    _, index = np.unique(units, return_inverse=True)
    sums = np.bincount(index, weights - weights.mean())
    n = len(sums)
    return math.sqrt(n / (n - 1) * float(sums @ sums)) / len(weights) if n > 1 else math.inf


def _arms(which: Mask, share: Vector) -> str:
    """Names by index those arms that the target wants, most wanted first."""
    wanted = [str(arm) for arm in np.argsort(-share, kind="stable") if which[arm] and share[arm] > 0.0]
    return ", ".join(wanted[:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
