"""The policies of bandits/, as a file configures them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from bandits import POLICIES, Policy, Split
from router.config.struct import Name, Struct
from router.errors import listed


class SplitPolicy(Struct, frozen=True, tag="split", tag_field="kind"):
    """An A/B test: each arm gets its share."""

    weights: dict[Name, float] = {}  # by arm; none: equal shares

    def build(self, arms: Sequence[str]) -> Policy:
        """The policy over `arms`, in their order. Raises ValueError."""
        if not self.weights:
            return Split(weights=(1.0,) * len(arms))
        if set(self.weights) != set(arms):
            raise ValueError(f"weights: give one for each arm ({listed(arms)}), and for nothing else")
        return Split(weights=tuple(self.weights[arm] for arm in arms))


class PlainPolicy(Struct, frozen=True):
    """A policy whose settings are its own, whatever the arms."""

    def build(self, _arms: Sequence[str]) -> Policy:
        """The policy. Raises ValueError."""
        return POLICIES[str(self.__struct_config__.tag)](**msgspec.structs.asdict(self))


class EpsilonGreedyPolicy(PlainPolicy, frozen=True, tag="epsilon_greedy", tag_field="kind"):
    """The best arm so far, but any arm with probability epsilon."""

    epsilon: float = 0.1
    constant_plays: float = math.inf  # after so many, epsilon falls as one over the plays


class UCB1Policy(PlainPolicy, frozen=True, tag="ucb1", tag_field="kind"):
    """The arm that could be the best, by the upper end of a wide interval."""

    exploration: float = 2.0  # 2 as published; 0.5 regrets less


class KLUCBPlusPolicy(PlainPolicy, frozen=True, tag="kl_ucb_plus", tag_field="kind"):
    """The arm that could be the best, by the upper end of a sharp interval."""


class ThompsonPolicy(PlainPolicy, frozen=True, tag="thompson", tag_field="kind"):
    """Each arm with the probability that it is the best, given what was earned; priors are Beta(alpha, beta)."""

    alpha: float = 1.0
    beta: float = 1.0


class GaussianThompsonPolicy(PlainPolicy, frozen=True, tag="gaussian_thompson", tag_field="kind"):
    """The same for rewards that are not 0 or 1, by their mean and variance, in parts of the route's range."""

    mu: float = 0.5
    kappa: float = 1.0
    alpha: float = 1.0
    beta: float = 1 / 12


class TopTwoThompsonPolicy(PlainPolicy, frozen=True, tag="top_two_thompson", tag_field="kind"):
    """To find the best arm soon: the one that seems best with probability `leader`, else its closest rival."""

    leader: float = 0.5
    alpha: float = 1.0
    beta: float = 1.0


class Exp3IXPolicy(PlainPolicy, frozen=True, tag="exp3_ix", tag_field="kind"):
    """For rewards that follow no law, as an adversary would set them."""

    gamma: float = 0.01
    rate: float = 1.0


AnyPolicy = (
    SplitPolicy
    | EpsilonGreedyPolicy
    | UCB1Policy
    | KLUCBPlusPolicy
    | ThompsonPolicy
    | GaussianThompsonPolicy
    | TopTwoThompsonPolicy
    | Exp3IXPolicy
)
