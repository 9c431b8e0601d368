"""A probability floor: no allowed arm is ever starved, and no weight of an evaluation grows without bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numba

from bandits.kernels import BYTES, direct, kernel
from bandits.policy import Fitted, Policy, Vector
from bandits.wrapper import Wrapper, rewritten


@kernel(numba.void(numba.float64, numba.float64[::1], BYTES), nogil=False)
def lift(floor: float, p: Vector, mask: bytes) -> None:
    """Mix p, in place, with equal shares for the allowed arms, so that each has the floor at least."""
    allowed = 0
    for k in range(len(p)):
        allowed += mask[k]
    floor = min(floor, 1.0 / allowed)
    rest = 1.0 - allowed * floor
    for k in range(len(p)):
        if mask[k]:
            p[k] = floor + rest * p[k]


_lift = direct(lift)


@dataclass(frozen=True, slots=True)
class Floor(Wrapper):
    """The policy inside, but every allowed arm has a probability of at least `floor`.

    Of m allowed arms each gets p' = f + (1 - mf) p, with f = min(floor, 1/m): the floor is taken from all in
    proportion, so their order stays. Equal shares where the floor leaves nothing else to give.
    An importance weight is then never above 1 / f. Raises ValueError for a floor outside [0, 1].
    """

    policy: Policy
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"floor: must lie in [0, 1], got {self.floor}")

    def fit(self, sums: Vector) -> Fitted:
        return rewritten(self.policy, sums, partial(_lift, self.floor))
