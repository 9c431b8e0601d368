"""What the wrappers of a policy share: they learn what it learns, and change only the p that comes out of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bandits.counts import Arms, per_mask
from bandits.kernels import is_vector
from bandits.policy import Fitted, Mask, Policy, Vector


class Wrapper:
    """Half of a wrapper: everything but `fit`. Its sums are those of the policy inside, so each can take over."""

    __slots__ = ()

    policy: Policy

    @property
    def layout(self) -> str:
        return self.policy.layout

    @property
    def width(self) -> int:
        return self.policy.width

    @property
    def features(self) -> int:
        return self.policy.features

    def delta(self, reward: float, context: Vector | None, propensity: float) -> Vector:
        """What the policy inside adds, and the ValueErrors that it raises."""
        return self.policy.delta(reward, context, propensity)


def rewritten(policy: Policy, sums: Vector, rewrite: Callable[[Vector, bytes], None]) -> Fitted:
    """Fit `policy` to the sums of shape [K, width], and let `rewrite(p, mask)` change each p[K] in place.

    p is contiguous and belongs to `rewrite` alone; the mask holds a byte for each arm, 1 where it is allowed, and has
    passed the policy. Without a context p is worked out once for each mask, so that the wrapper costs a decision
    nothing.
    """
    fitted = policy.fit(sums)

    def changed(context: Vector | None, allowed: Mask) -> Vector:
        p = fitted(context, allowed)
        if not (is_vector(p) and p.flags.writeable):  # what a policy lets others write into, it has let go
            p = np.array(p, dtype=np.float64)
        rewrite(p, allowed.tobytes())
        return p

    if policy.features:
        return changed
    arms = len(sums)

    def share(indices: Arms) -> Vector:
        allowed = np.zeros(arms, dtype=np.bool_)
        allowed[indices] = True
        return changed(None, allowed)[indices]

    return per_mask(arms, share)
