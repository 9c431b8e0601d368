"""Thompson sampling for rewards in [0, 1], by exact probabilities instead of samples."""

from __future__ import annotations

from dataclasses import dataclass

from bandits.beta import probability_best
from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector

FEWEST, MOST = 0.1, 2.0**53


@dataclass(frozen=True, slots=True)
class Thompson(Counts):
    """Each arm with the probability that it is the best, given its rewards and the prior Beta(alpha, beta).

    The posterior of an arm is Beta(alpha + Σr, beta + n - Σr). Rewards between 0 and 1 count as parts of a success,
    which keeps the mean and overstates the variance.
    W. R. Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25 (1933).
    """

    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        for name, value in ("alpha", self.alpha), ("beta", self.beta):
            if not FEWEST <= value <= MOST:  # below, the prior is two spikes, at 0 and at 1
                raise ValueError(f"{name}: must lie between {FEWEST} and 2^53, got {value}")

    def fit(self, sums: Vector) -> Fitted:
        a, b = self.posterior(sums)

        def share(arms: Arms) -> Vector:
            p = probability_best(a[arms], b[arms])
            p /= p.sum()
            return p

        return per_mask(len(a), share)

    def posterior(self, sums: Vector) -> tuple[Vector, Vector]:
        """Parameters a and b of each arm's Beta posterior, two of shape [K], from sums of shape [K, 3].

        Raises ValueError where the sums cannot have come from rewards in [0, 1], and for more than 2^53 plays.
        """
        plays, rewards = plays_and_rewards(sums)
        if plays.max() > MOST:
            raise ValueError(f"sums: arm {plays.argmax()} has more than 2^53 plays, beyond which float64 cannot count")
        return self.alpha + rewards, self.beta + (plays - rewards)
