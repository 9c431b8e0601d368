"""Thompson sampling for rewards of unknown mean and unknown variance, by exact probabilities instead of samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector
from bandits.student import probability_best

LEAST, MOST = 1e-6, 2.0**53
FINEST = 1e-15  # scale: the means are rounded by about as much


@dataclass(frozen=True, slots=True)
class GaussianThompson(Counts):
    """Each arm with the probability that its mean reward is the greatest, if rewards are Gaussian.

    It learns how widely an arm's rewards spread, where Thompson supposes the widest. For amounts and scores that keep
    to a small part of [0, 1] its regret is several times smaller; for successes and failures take Thompson,
    whose model is then the true one.

    The prior is normal-inverse-gamma: precision ~ Gamma(alpha, rate beta), mean ~ Normal(mu, variance / kappa). It
    weighs as much as `kappa` rewards of the mean `mu` and 2 `alpha` rewards of the variance beta / alpha; by default
    those of a reward anywhere in [0, 1], which are 1/2 and 1/12. Then the mean of n rewards has a Student-t
    distribution of 2 alpha + n degrees of freedom. That the mean lies in [0, 1] is not known to it.
    A spread below 1e-7 cannot be told from none, as Σr² is rounded.
    K. P. Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", University of British Columbia (2007).
    """

    mu: float = 0.5
    kappa: float = 1.0
    alpha: float = 1.0
    beta: float = 1.0 / 12.0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("mu", self.mu, 0.0, 1.0),
            ("kappa", self.kappa, LEAST, MOST),
            ("alpha", self.alpha, 0.5, MOST),  # below one degree of freedom, tails are too heavy for float64
            ("beta", self.beta, LEAST, MOST),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name}: must lie between {least:g} and {most:g}, got {value}")

    def fit(self, sums: Vector) -> Fitted:
        mean, scale, freedom = self.posterior(sums)

        def share(arms: Arms) -> Vector:
            p = probability_best(mean[arms], scale[arms], freedom[arms])
            p /= p.sum()
            return p

        return per_mask(len(mean), share)

    def posterior(self, sums: Vector) -> tuple[Vector, Vector, Vector]:
        """Location, scale and degrees of freedom of each mean reward's Student-t distribution, three of shape [K].

        Raises ValueError where the sums, of shape [K, 3], cannot have come from rewards in [0, 1].
        """
        n, rewards = plays_and_rewards(sums)
        if n.max() > MOST:
            raise ValueError(f"sums: arm {n.argmax()} has more than 2^53 plays, beyond which float64 cannot count")
        average = np.divide(rewards, n, out=np.zeros_like(n), where=n > 0)
        squares = np.asarray(sums, dtype=np.float64)[:, 2]
        slack = 1e-9 * n + 1e-300  # forgetting and merging round
        wrong = np.flatnonzero((squares < rewards * average - slack) | (squares > rewards + slack))
        if wrong.size:
            raise ValueError(
                f"sums: the row of arm {wrong[0]} needs a sum of squared rewards between"
                " the squared sum of rewards over the plays and the sum of rewards"
            )
        kappa = self.kappa + n
        alpha = self.alpha + n / 2
        spread = np.maximum(squares - rewards * average, 0.0)
        beta = self.beta + (spread + self.kappa * n / kappa * (average - self.mu) ** 2) / 2
        scale = np.sqrt(beta / alpha / kappa)
        return (self.kappa * self.mu + rewards) / kappa, np.maximum(scale, FINEST), 2 * alpha
