"""Every policy under one contract."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bandits import (
    POLICIES,
    UCB1,
    EpsilonGreedy,
    Exp3IX,
    GaussianThompson,
    KLUCBPlus,
    LinearThompson,
    LinUCB,
    Split,
    SquareCB,
    Thompson,
    TopTwoThompson,
)
from tests.bandits.contract import Case, PolicyContract, assert_layouts

CASES = [
    Case(Split((0.5, 0.3, 0.15, 0.05))),
    Case(Split((1, 99)), arms=2),
    Case(EpsilonGreedy()),
    Case(EpsilonGreedy(epsilon=0.0)),
    Case(EpsilonGreedy(epsilon=1.0, constant_plays=20.0)),
    Case(UCB1()),
    Case(UCB1(exploration=0.5), arms=2),
    Case(KLUCBPlus()),
    Case(KLUCBPlus(), arms=7),
    Case(Thompson()),
    Case(Thompson(alpha=0.5, beta=20.0), arms=7),
    Case(GaussianThompson()),
    Case(GaussianThompson(mu=0.2, kappa=4.0, alpha=0.5, beta=0.01), arms=7),
    Case(TopTwoThompson()),
    Case(TopTwoThompson(leader=0.3, alpha=0.5, beta=20.0), arms=7),
    Case(Exp3IX()),
    Case(Exp3IX(gamma=0.05, rate=3.0), arms=7),
    Case(LinUCB(features=3)),
    Case(LinUCB(features=2, alpha=1.0, l2=4.0, mean=(0.5, -0.25), scale=(2.0, 0.5)), arms=2),
    Case(LinearThompson(features=3)),
    Case(LinearThompson(features=2, v=1.0, l2=4.0, mean=(0.5, -0.25), scale=(2.0, 0.5)), arms=2),
    Case(SquareCB(features=3)),
    Case(SquareCB(features=2, gamma=10.0, exponent=0.25, mean=(0.5, -0.25), scale=(2.0, 0.5)), arms=7),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.policy))
class TestPolicies(PolicyContract):
    """All that is expected of a policy is in the contract."""


def test_every_registered_policy_is_under_contract() -> None:
    assert {type(case.policy) for case in CASES} == set(POLICIES.values())


def test_one_layout_is_one_meaning() -> None:
    assert_layouts(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if not case.context], ids=lambda case: str(case.policy))
def test_without_a_context_p_is_worked_out_once_and_read_only(case: Case) -> None:
    fitted = case.policy.fit(case.nothing)
    p = fitted(None, case.everyone)
    assert not p.flags.writeable
    assert fitted(np.array([1.0, 2.0]), case.everyone) is p


@pytest.mark.parametrize("policy", [EpsilonGreedy(), Thompson(), Split((1, 1))], ids=str)
@pytest.mark.parametrize("row", [(-1, 0, 0), (1, 2, 4), (5, -1, 1)])
def test_counts_that_no_rewards_can_sum_to_are_refused(policy: Thompson, row: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^sums: .*arm 1"):
        policy.fit(np.array([(1.0, 0.5, 0.25), row]))


def test_rounding_of_merged_and_forgotten_counts_is_forgiven() -> None:
    """A tenth added ten times is not one: the sum of rewards may pass the plays by a rounding."""
    for policy in (EpsilonGreedy(), Thompson(), Split((1, 1))):
        p = policy.fit(np.array([(0.7, 0.7 + 1e-16, 0.7), (0.1, -1e-17, 0.0)]))(None, np.ones(2, dtype=bool))
        assert p.sum() == pytest.approx(1)


def test_configuration_can_make_every_policy() -> None:
    options: dict[str, dict[str, object]] = {
        "split": {"weights": [1, 2]},
        "linucb": {"features": 2, "mean": [1, 2]},
        "linear_thompson": {"features": 2, "v": 1},
        "squarecb": {"features": 2, "scale": [1, 2]},
    }
    made: dict[str, object] = {name: msgspec.convert(options.get(name, {}), POLICIES[name]) for name in POLICIES}
    assert {name: type(policy) for name, policy in made.items()} == POLICIES
    assert made["split"] == Split((1, 2))
    assert made["squarecb"] == SquareCB(features=2, scale=(1, 2))
