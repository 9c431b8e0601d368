"""Coins tossed in all ways at once: probabilities of whole paths, exactly."""

from __future__ import annotations

import numpy as np

from bandits import Vector


def ever_outside(rate: float, least: Vector, most: Vector) -> float:
    """Probability that the number of heads is ever below least[n] or above most[n], after n = 0, 1, ... tosses."""
    heads = np.arange(len(least))
    chances = np.where(heads == 0, 1.0, 0.0)
    for low, high in zip(least[1:], most[1:], strict=True):
        chances[1:] = chances[1:] * (1 - rate) + chances[:-1] * rate
        chances[0] *= 1 - rate
        chances[(heads < low) | (heads > high)] = 0.0
    return 1.0 - float(chances.sum())
