"""Policies that turn what was learnt into probabilities, the sampler that draws from them, and what they are worth."""

from __future__ import annotations

from bandits.conservative import Conservative
from bandits.decay import HalfLife
from bandits.draw import Draw, sampler
from bandits.exp3 import Exp3IX
from bandits.floor import Floor
from bandits.gaussian import GaussianThompson
from bandits.greedy import EpsilonGreedy
from bandits.linear_thompson import LinearThompson
from bandits.linucb import LinUCB
from bandits.log import Log, target_of
from bandits.offline import Estimate, Evaluation, evaluate
from bandits.overlap import Overlap
from bandits.policy import Fitted, Mask, Policy, Vector
from bandits.replay import Replay, replay
from bandits.reward import Range
from bandits.simulate import Feedback, simulate
from bandits.split import Split
from bandits.squarecb import SquareCB
from bandits.thompson import Thompson
from bandits.top_two import TopTwoThompson
from bandits.ucb import UCB1, KLUCBPlus

POLICIES: dict[str, type[Policy]] = {
    "split": Split,
    "epsilon_greedy": EpsilonGreedy,
    "ucb1": UCB1,
    "kl_ucb_plus": KLUCBPlus,
    "thompson": Thompson,
    "gaussian_thompson": GaussianThompson,
    "top_two_thompson": TopTwoThompson,
    "exp3_ix": Exp3IX,
    "linucb": LinUCB,
    "linear_thompson": LinearThompson,
    "squarecb": SquareCB,
}
"""Every policy by the name that configuration gives it."""

__all__ = [
    "POLICIES",
    "UCB1",
    "Conservative",
    "Draw",
    "EpsilonGreedy",
    "Estimate",
    "Evaluation",
    "Exp3IX",
    "Feedback",
    "Fitted",
    "Floor",
    "GaussianThompson",
    "HalfLife",
    "KLUCBPlus",
    "LinUCB",
    "LinearThompson",
    "Log",
    "Mask",
    "Overlap",
    "Policy",
    "Range",
    "Replay",
    "Split",
    "SquareCB",
    "Thompson",
    "TopTwoThompson",
    "Vector",
    "evaluate",
    "replay",
    "sampler",
    "simulate",
    "target_of",
]
