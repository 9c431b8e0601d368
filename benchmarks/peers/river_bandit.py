"""river's bandits, and a linear Thompson sampling made of its Bayesian linear regression. It tells no propensities.

alpha and beta are the precisions of prior and noise: the ridge penalty is alpha/beta, and the bound as wide as that of
LinUCB with its alpha = beta^(-1/2), but for the noise that river adds to it.
"""

from __future__ import annotations

import random
from typing import Any

from bandits import Vector

SETTINGS = {
    f"{kind} {beta:g}, l2 {l2:g}": (kind, {"alpha": beta * l2, "beta": beta})
    for kind, betas in {"LinUCB": (10.0, 100.0, 1000.0), "LinTS": (1000.0,)}.items()
    for beta in betas
    for l2 in (1.0, 10.0)
}

LIKE = {
    "Thompson": ("ThompsonSampling", {}),
    "KLUCBPlus": ("UCB", {"delta": 1.0}),
    "LinUCB": ("LinUCB", {"alpha": 10.0, "beta": 10.0}),
    "LinearThompson": ("LinTS", {"alpha": 10.0, "beta": 10.0}),
}


class LinTS:
    """One Bayesian regression for each arm; each is asked for a sample of its reward."""

    def __init__(self, arms: int, seed: int, **options: float) -> None:
        from river.linear_model import BayesianLinearRegression

        self._models: list[Any] = [BayesianLinearRegression(**options) for _ in range(arms)]
        self._random = random.Random(seed)  # noqa: S311  # no secret

    def pull(self, arms: range, context: dict[str, float]) -> int:
        """The arm of the greatest sample."""
        beliefs = [self._models[arm].predict_one(context, with_dist=True) for arm in arms]
        samples = [self._random.gauss(belief.mu, belief.sigma) for belief in beliefs]
        return samples.index(max(samples))

    def update(self, arm: int, context: dict[str, float], reward: float) -> None:
        """Learns one reward."""
        self._models[arm].learn_one(context, reward)


def _bandit(kind: str, arms: int, seed: int, **options: float) -> Any:
    from river import bandit, proba

    if kind == "LinTS":
        return LinTS(arms, seed, **options)
    if kind == "LinUCB":
        return bandit.LinUCBDisjoint(seed=seed, **options)
    if kind == "UCB":
        return bandit.UCB(seed=seed, **options)
    return bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=seed)


class Peer:
    """Contexts are dicts, with a constant beside the features."""

    def __init__(self, arms: int, setting: tuple[str, dict[str, float]], seed: int) -> None:
        kind, options = setting
        self._arms = range(arms)
        self._bandit = _bandit(kind, arms, seed, **options)

    def prepared(self, context: Vector | None) -> tuple[dict[str, float], ...]:
        if context is None:
            return ()
        return ({f"x{i}": value for i, value in enumerate(context.tolist())} | {"constant": 1.0},)

    def choose(self, context: tuple[dict[str, float], ...]) -> tuple[int, float]:
        return int(self._bandit.pull(self._arms, *context)), 1.0

    def learn(self, context: tuple[dict[str, float], ...], arm: int, reward: float, propensity: float) -> None:
        self._bandit.update(arm, *context, reward)
