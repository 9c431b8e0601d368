"""What a route wrote down: for each decision the context, the arm, its propensity and the reward that came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.policy import Fitted, Mask, Policy, Vector

HEAVIEST = 1e100  # weight: its square and the sums of such are still finite


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """n rewarded decisions over K arms, in the order of time.

    `arms` int[n], `rewards` float[n] in [0, 1], `propensities` float[n] in (0, 1]: the probability with which the arm
    was drawn. `contexts` float[n, d], or None where none was read. `allowed` bool[n, K], or None where every arm always
    was. `units` int[n] says which rows go together, as those of a customer who comes again and keeps an arm do, or
    None where each is a draw of its own. `drawn_from` float[n, K] has the propensities of all arms, or is None where
    only the drawn one's was written down. They are copied, and read-only afterwards. Raises ValueError for anything
    else, naming the argument and the row. Rewards and contexts are not quoted: they are private.
    """

    arms: NDArray[np.intp]
    rewards: Vector
    propensities: Vector
    K: int
    contexts: Vector | None = None
    allowed: Mask | None = None
    units: NDArray[np.intp] | None = None
    drawn_from: Vector | None = None

    def __post_init__(self) -> None:
        if self.K < 1:
            raise ValueError(f"K: a log has one arm at least, got {self.K}")
        arms = np.array(self.arms)
        if arms.ndim != 1 or not len(arms) or not np.issubdtype(arms.dtype, np.integer):
            raise ValueError(f"arms: must be int[n] with n > 0, not {arms.dtype}{list(arms.shape)}")
        n = len(arms)
        refuse((arms < 0) | (arms >= self.K), "arms", f"must be an index from 0 to {self.K - 1}")

        rewards = floats(self.rewards, "rewards", (n,))
        outside = ~((rewards >= 0) & (rewards <= 1))  # true for NaN too
        refuse(outside, "rewards", "must be a number from 0 to 1; scale it by the route's declared range first")

        propensities = floats(self.propensities, "propensities", (n,))
        outside = ~((propensities > 0) & (propensities <= 1))
        refuse(outside, "propensities", "an arm that was chosen had a probability above 0 and up to 1")

        own: dict[str, NDArray[Any] | None] = {
            "arms": arms.astype(np.intp),
            "rewards": rewards,
            "propensities": propensities,
            "contexts": None,
            "allowed": None,
            "units": None,
            "drawn_from": None if self.drawn_from is None else floats(self.drawn_from, "drawn_from", (n, self.K)),
        }
        if (drawn_from := own["drawn_from"]) is not None:
            refuse(~((drawn_from >= 0.0) & (drawn_from <= 1.0)), "drawn_from", "every number must be from 0 to 1")
        if self.contexts is not None:
            own["contexts"] = contexts = floats(self.contexts, "contexts", (n, None))
            refuse(~np.isfinite(contexts), "contexts", "every number must be finite")
        if self.allowed is not None:
            own["allowed"] = allowed = np.array(self.allowed, order="C")
            if allowed.dtype != np.bool_ or allowed.shape != (n, self.K):
                raise ValueError(f"allowed: must be bool[{n}, {self.K}], not {allowed.dtype}{list(allowed.shape)}")
            chosen: Mask = allowed[np.arange(n), arms]
            refuse(~chosen, "allowed", "the arm that was chosen must be allowed")

        if self.units is not None:
            units = np.array(self.units)
            if units.shape != (n,) or not np.issubdtype(units.dtype, np.integer):
                raise ValueError(f"units: must be int[{n}], not {units.dtype}{list(units.shape)}")
            own["units"] = units.astype(np.intp)

        for name, array in own.items():
            if array is not None:
                array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.arms)

    def weights(self, target: Vector) -> Vector:
        """Target's probability of the logged arm over its propensity, float[n], for target float[n, K].

        Raises ValueError for a weight above 1e100.
        """
        with np.errstate(over="ignore"):
            w: Vector = target[np.arange(len(self)), self.arms] / self.propensities
        refuse(~(w <= HEAVIEST), "propensities", "too small: the weight of this row is beyond all bounds")
        return w

    def probabilities(self, fitted: Fitted, row: int) -> Vector:
        """What a fitted policy answers, p[K], to the context and the allowed arms of one row."""
        context = None if self.contexts is None else self.contexts[row]
        return fitted(context, np.ones(self.K, dtype=bool) if self.allowed is None else self.allowed[row])


def target_of(policy: Policy, sums: Vector, log: Log) -> Vector:
    """The probabilities p[n, K] with which a policy, fitted to `sums` of shape [K, width], would have met a log's rows.

    Sums that were learnt from the very log flatter the policy: take earlier ones. Raises ValueError for sums of another
    number of arms, and for what the policy refuses.
    """
    if len(sums) != log.K:
        raise ValueError(f"sums: {len(sums)} arms, but the log has {log.K}")
    fitted = policy.fit(sums)
    if policy.features:
        return np.array([log.probabilities(fitted, row) for row in range(len(log))])
    if log.allowed is None:
        return np.tile(fitted(None, np.ones(log.K, dtype=bool)), (len(log), 1))
    masks, which = np.unique(log.allowed, axis=0, return_inverse=True)
    return np.array([fitted(None, mask) for mask in masks])[which.ravel()]


def all_arms(values: object, name: str, log: Log) -> Vector:
    """Float64 of the shape [n, K] with every number from 0 to 1. Raises ValueError for anything else."""
    own = floats(values, name, (len(log), log.K))
    refuse(~((own >= 0.0) & (own <= 1.0)), name, "every number must be from 0 to 1")
    return own


def floats(values: object, name: str, shape: tuple[int | None, ...]) -> Vector:
    """A contiguous float64 copy of the shape; None is any length. Raises ValueError for another."""
    try:
        own = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise ValueError(f"{name}: must be an array of numbers") from None
    if len(own.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, own.shape, strict=True)):
        wanted = ", ".join("d" if length is None else str(length) for length in shape)
        raise ValueError(f"{name}: must be float[{wanted}], not of shape {list(own.shape)}")
    return own


def refuse(wrong: Mask, name: str, what: str) -> None:
    """Raise ValueError for the first row, if there is one, that is wrong or holds something wrong."""
    rows = np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))
    if rows.size:
        raise ValueError(f"{name}: row {rows[0]}: {what}")
