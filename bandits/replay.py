"""Replay: what a policy that learns would have earned, had it met the traffic of a log from its first row on.

Row by row the policy draws an arm. Where it is the arm that was logged, the row happened as it would have with the
policy in charge: it counts, and the policy learns from it. All other rows are passed over, as if they had never been.
That is for arms that were logged uniformly. Where they were not, a likely arm would match too often; so a row that
matches is kept only with probability least propensity / its propensity (rejection sampling). Then every row counts with
the probability of the least propensity, whatever its context: the replay is exact.

L. Li, W. Chu, J. Langford, X. Wang, "Unbiased offline evaluation of contextual-bandit-based news article
recommendation algorithms", WSDM 2011; M. Dudík, D. Erhan, J. Langford, L. Li, "Sample-efficient nonstationary policy
evaluation for contextual bandits", UAI 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.anytime.off_policy import value_interval
from bandits.draw import sampler
from bandits.log import Log
from bandits.overlap import FARTHEST, FEWEST
from bandits.policy import Policy, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What the policy lived through, m of the log's rows."""

    rows: NDArray[np.intp]
    """[m], the rows that counted."""
    rewards: Vector
    """[m], what it earned in them."""
    sums: Vector
    """[K, width], what it had learnt in the end."""
    expected: float
    """The m to be expected if the propensities are true and the log could choose whatever the policy would."""
    low: float
    high: float
    """Interval of the policy's value, averaged over the m rows while it learnt; it holds at all times at once."""
    why: str
    """Why this log cannot answer, in sentences; empty where it can."""

    @property
    def answerable(self) -> bool:
        """Whether the mean means anything: not with m below 100, nor with m that is not as it should be.

        That is, m differs from what is expected by more than 0.05 of it and by more than three standard deviations.
        """
        return not self.why

    @property
    def value(self) -> float:
        """Mean reward; 0 where no row counted."""
        return float(self.rewards.mean()) if len(self.rewards) else 0.0

    @property
    def curve(self) -> Vector:
        """[m], the mean reward so far after each row that counted: how the policy learnt."""
        mean: Vector = np.cumsum(self.rewards) / np.arange(1, len(self.rewards) + 1)
        return mean


def replay(
    policy: Policy, log: Log, *, batch: int = 1, sums: Vector | None = None, salt: str = "replay", alpha: float = 0.05
) -> Replay:
    """Let `policy` meet the rows of `log` in their order, and refit it after every `batch` rows that counted.

    It begins with `sums` of shape [K, width], by default with nothing learnt. Chance comes from `salt` and the number
    of the row alone: the same salt gives the same replay, another one an independent one. The salt must not be that of
    the route, whose draws the log already holds. The interval misses with probability at most `alpha`.
    Raises ValueError for a batch below 1, for sums of another number of arms, and for what the policy refuses.
    """
    if batch < 1:
        raise ValueError(f"batch: must be 1 row or more, got {batch}")
    learnt = np.zeros((log.K, policy.width)) if sums is None else np.array(sums, dtype=np.float64)
    if len(learnt) != log.K:
        raise ValueError(f"sums: {len(learnt)} arms, but the log has {log.K}")
    draw = sampler(salt, [str(arm) for arm in range(log.K)])
    reject = sampler(f"{salt}/reject", ["keep", "pass over"])
    least = float(log.propensities.min())

    fitted = policy.fit(learnt)
    counted: list[int] = []
    for row, (arm, reward, propensity) in enumerate(zip(log.arms, log.rewards, log.propensities, strict=True)):
        p = log.probabilities(fitted, row)
        keep = least / propensity
        if draw(p, str(row)) != arm or reject(np.array([keep, 1.0 - keep]), str(row)):
            continue
        context = None if log.contexts is None else log.contexts[row]
        learnt[arm] += policy.delta(reward, context, p[arm])
        counted.append(row)
        if len(counted) % batch == 0:
            fitted = policy.fit(learnt)

    rows = np.array(counted, dtype=np.intp)
    rewards = log.rewards[rows]
    low, high = value_interval(np.ones(len(rows)), rewards, alpha=alpha, drifting=True)
    expected = len(log) * least
    return Replay(rows, rewards, learnt, expected, low, high, _why(len(rows), expected, least))


def _why(counted: int, expected: float, least: float) -> str:
    why = []
    if counted < FEWEST:
        why.append(f"Only {counted} rows count; an answer takes {FEWEST}.")
    if abs(counted - expected) > max(FARTHEST * expected, 3.0 * math.sqrt(expected * (1.0 - least))):
        why.append(
            f"{counted} rows count instead of {expected:.0f}: propensities are wrong, rows are missing, or the log "
            "could not choose all that the policy would."
        )
    return " ".join(why)
