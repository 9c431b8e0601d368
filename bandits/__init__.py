"""Policies that turn what was learnt into probabilities, and the one sampler that draws from them."""

from __future__ import annotations

from bandits.draw import Draw
from bandits.greedy import EpsilonGreedy
from bandits.policy import Fitted, Mask, Policy, Vector
from bandits.split import Split
from bandits.thompson import Thompson

POLICIES: dict[str, type[Policy]] = {
    "split": Split,
    "epsilon_greedy": EpsilonGreedy,
    "thompson": Thompson,
}
"""Every policy by the name that configuration gives it."""

__all__ = ["POLICIES", "Draw", "EpsilonGreedy", "Fitted", "Mask", "Policy", "Split", "Thompson", "Vector"]
