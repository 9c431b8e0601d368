"""mabwiser's policies. It tells no propensities, and chooses nothing before it was fitted to a first reward."""

from __future__ import annotations

import random
from typing import Any

from bandits import Vector

SETTINGS = {
    f"{kind}{value}, l2 {l2:g}": (kind, options | {"l2_lambda": l2})
    for kind, value, options in (
        ("LinUCB", " 0.1", {"alpha": 0.1}),
        ("LinUCB", " 0.3", {"alpha": 0.3}),
        ("LinTS", " 0.1", {"alpha": 0.1}),
        ("LinGreedy", "", {"epsilon": 0.0}),
    )
    for l2 in (1.0, 10.0)
}

LIKE = {
    "Thompson": ("ThompsonSampling", {}),
    "KLUCBPlus": ("UCB1", {}),
    "LinUCB": ("LinUCB", {"alpha": 0.3}),
    "LinearThompson": ("LinTS", {"alpha": 0.3}),
}


class Peer:
    """One ridge regression for each arm, with a constant beside the features. The first arm is drawn evenly."""

    def __init__(self, arms: int, setting: tuple[str, dict[str, float]], seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        kind, options = setting
        self._bandit: Any = MAB(list(range(arms)), getattr(LearningPolicy, kind)(**options), seed=seed)
        self._first = random.Random(seed).randrange(arms)  # noqa: S311  # no secret
        self._fitted = False

    def prepared(self, context: Vector | None) -> list[list[float]] | None:
        return None if context is None else [[*context.tolist(), 1.0]]

    def choose(self, context: list[list[float]] | None) -> tuple[int, float]:
        return (int(self._bandit.predict(context)) if self._fitted else self._first), 1.0

    def learn(self, context: list[list[float]] | None, arm: int, reward: float, propensity: float) -> None:
        learn = self._bandit.partial_fit if self._fitted else self._bandit.fit
        learn([arm], [reward], context)
        self._fitted = True
