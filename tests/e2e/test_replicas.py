"""Two servers on one file are one experiment: whoever asks whom, what is learnt is the same."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bandits import Thompson
from router import AsyncClient, Client
from tests.e2e.calls import ROWS
from tests.e2e.conftest import ARMS
from tests.process import Router, until, write_config

ROUTE = "shared"
EACH = 50  # rewards through each replica
EARNS = {"double": 0.4375, "triple": 0.5625}  # sums of these are exact


@pytest.fixture(scope="module")
def replicas(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    routes = {ROUTE: {"policy": {"kind": "thompson"}, "sticky": True, "arms": ARMS}}
    config = write_config(folder, routes, models=str(models))
    with Router(config, folder / "first") as first, Router(config, folder / "second") as second:
        yield first.address, second.address
        assert [first.stop(), second.stop()] == [0, 0]


@pytest.fixture(scope="module")
def rewards(replicas):
    """Half of all decisions are made by each replica, and each is rewarded at once through the other one."""

    async def serve(asked, told, customer):
        answer = await asked.infer(ROUTE, {"x": ROWS}, unit=f"customer {customer}")
        value = EARNS[answer.arm]
        acknowledged = await told.reward(answer.decision, value)
        assert acknowledged.arm == answer.arm
        return answer.arm, value

    async def talk():
        async with AsyncClient(replicas[0]) as first, AsyncClient(replicas[1]) as second:
            return await asyncio.gather(
                *(serve(first, second, customer) for customer in range(EACH)),
                *(serve(second, first, customer) for customer in range(EACH)),
            )

    return asyncio.run(talk())


@pytest.fixture(scope="module")
def descriptions(replicas, rewards):
    """Of the route by both, once both draw by all that was reported."""
    with Client(replicas[0]) as first, Client(replicas[1]) as second:

        def learnt():
            both = first.describe(ROUTE), second.describe(ROUTE)
            return both if all(probabilities(each) == best(rewards) for each in both) else None

        return until(learnt)


def probabilities(described):
    return {arm.name: arm.probability for arm in described.arms}


def best(rewards):
    """What the policy makes of these rewards."""
    earned = [np.array([value for name, value in rewards if name == arm]) for arm in ARMS]
    sums = np.array([[len(values), values.sum(), (values**2).sum()] for values in earned])
    return dict(zip(ARMS, Thompson().fit(sums)(None, np.ones(len(ARMS), bool)).tolist(), strict=True))


def test_a_reward_counts_wherever_it_is_reported(rewards, descriptions):
    """Also moments after the decision, which the other replica cannot have read yet."""
    assert len(rewards) == 2 * EACH
    for described in descriptions:
        for arm in described.arms:
            values = [value for name, value in rewards if name == arm.name]
            assert (arm.reward.n, arm.reward.sum) == (len(values), sum(values))


def test_replicas_agree_on_every_probability(descriptions):
    first, second = descriptions
    assert first.policy_version == second.policy_version
    assert probabilities(first) == probabilities(second)
    assert 0.5 < probabilities(first)["triple"] < 1.0


def test_a_unit_meets_the_same_arm_at_every_replica(replicas, descriptions):
    units = [f"customer {n}" for n in range(200)]
    with Client(replicas[0]) as first, Client(replicas[1]) as second:
        choices = [[client.decide(ROUTE, unit=unit).arm for unit in units] for client in (first, second)]
    assert choices[0] == choices[1]
    assert set(choices[0]) == set(ARMS)
