"""The policies of bandits/, as a file configures them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from bandits import POLICIES, Policy, Split
from router.config.context import Schema
from router.config.struct import Name, Struct
from router.errors import listed

MOST_COLUMNS = 200
"""That a policy learns from: each reward adds a row of about half their square."""

_NO_CONTEXT = Schema()


class SplitPolicy(Struct, frozen=True, tag="split", tag_field="kind"):
    """An A/B test: each arm gets its share."""

    weights: dict[Name, float] = {}  # by arm; none: equal shares

    def build(self, arms: Sequence[str], _schema: Schema = _NO_CONTEXT) -> Policy:
        """The policy over `arms`, in their order. Raises ValueError."""
        if not self.weights:
            return Split(weights=(1.0,) * len(arms))
        if set(self.weights) != set(arms):
            raise ValueError(f"weights: give one for each arm ({listed(arms)}), and for nothing else")
        return Split(weights=tuple(self.weights[arm] for arm in arms))


class PlainPolicy(Struct, frozen=True):
    """A policy whose settings are its own, whatever the arms."""

    def build(self, _arms: Sequence[str], _schema: Schema = _NO_CONTEXT) -> Policy:
        """The policy. Raises ValueError."""
        return POLICIES[str(self.__struct_config__.tag)](**msgspec.structs.asdict(self))


class EpsilonGreedyPolicy(PlainPolicy, frozen=True, tag="epsilon_greedy", tag_field="kind"):
    """The best arm so far, but any arm with probability epsilon."""

    epsilon: float = 0.1  # part of the calls that explore
    constant_plays: float = math.inf  # after so many, epsilon falls as one over the plays


class UCB1Policy(PlainPolicy, frozen=True, tag="ucb1", tag_field="kind"):
    """The arm that could be the best, by the upper end of a wide interval."""

    exploration: float = 2.0  # 2 as published; 0.5 regrets less


class KLUCBPlusPolicy(PlainPolicy, frozen=True, tag="kl_ucb_plus", tag_field="kind"):
    """The arm that could be the best, by the upper end of a sharp interval."""


class ThompsonPolicy(PlainPolicy, frozen=True, tag="thompson", tag_field="kind"):
    """Each arm with the probability that it is the best, given what was earned; priors are Beta(alpha, beta)."""

    alpha: float = 1.0  # rewards of 1 that each arm is taken to have had
    beta: float = 1.0  # and rewards of 0


class GaussianThompsonPolicy(PlainPolicy, frozen=True, tag="gaussian_thompson", tag_field="kind"):
    """The same for rewards that are not 0 or 1, by their mean and variance, in parts of the route's range."""

    mu: float = 0.5  # the mean reward that is expected
    kappa: float = 1.0  # rewards that this counts for
    alpha: float = 1.0  # half the rewards that the variance counts for
    beta: float = 1 / 12  # alpha times the variance that is expected: that of an even spread


class TopTwoThompsonPolicy(PlainPolicy, frozen=True, tag="top_two_thompson", tag_field="kind"):
    """To find the best arm soon: the one that seems best with probability `leader`, else its closest rival."""

    leader: float = 0.5  # between 0 and 1
    alpha: float = 1.0  # rewards of 1 that each arm is taken to have had
    beta: float = 1.0  # and rewards of 0


class Exp3IXPolicy(PlainPolicy, frozen=True, tag="exp3_ix", tag_field="kind"):
    """For rewards that follow no law, as an adversary would set them."""

    gamma: float = 0.01  # a greater one explores more: one lost reward counts as up to 1 / gamma
    rate: float = 1.0  # a greater one believes rewards sooner


class ContextualPolicy(Struct, frozen=True):
    """A policy that predicts the reward of each arm from the context, by ridge regression, once some rewards came."""

    l2: float = 4.0  # rewards that have to speak for a feature before it counts
    expected: float | None = None  # what an unknown arm is taken to pay, in parts of the range; none: as the others do

    def build(self, _arms: Sequence[str], schema: Schema = _NO_CONTEXT) -> Policy:
        """The policy over contexts of a schema. Raises ValueError."""
        kind, columns = str(self.__struct_config__.tag), len(schema.columns)
        if not columns:
            raise ValueError(f"{kind} reads a context, and the route declares none; give it the key context")
        if columns > MOST_COLUMNS:
            raise ValueError(f"{kind} reads up to {MOST_COLUMNS} columns of a context, and there are {columns}")
        constants = {"features": columns, "mean": schema.mean, "scale": schema.scale}
        return POLICIES[kind](**constants, **msgspec.structs.asdict(self))


class LinUCBPolicy(ContextualPolicy, frozen=True, tag="linucb", tag_field="kind"):
    """The arm that could be the best in this context: its prediction and `alpha` standard errors."""

    alpha: float = 0.2  # a smaller one explores less


class LinearThompsonPolicy(ContextualPolicy, frozen=True, tag="linear_thompson", tag_field="kind"):
    """Each arm with the probability that it is the best in this context, given what was earned."""

    v: float = 0.05  # deviation of the noise; a smaller one explores less


class SquareCBPolicy(ContextualPolicy, frozen=True, tag="squarecb", tag_field="kind"):
    """The farther an arm's prediction falls short of the best, the more seldom it is played; each is now and then."""

    gamma: float = 100.0  # of gamma * plays^exponent, by which a gap counts
    exponent: float = 0.5  # 0: exploration never ends


AnyPolicy = (
    SplitPolicy
    | EpsilonGreedyPolicy
    | UCB1Policy
    | KLUCBPlusPolicy
    | ThompsonPolicy
    | GaussianThompsonPolicy
    | TopTwoThompsonPolicy
    | Exp3IXPolicy
    | LinUCBPolicy
    | LinearThompsonPolicy
    | SquareCBPolicy
)
