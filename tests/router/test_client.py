"""The client library, against a router on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import router as package
from protos.grpc import GrpcApp
from router.client import AsyncClient, Client, Earned
from router.edge.service import methods
from tests.router.fakes import FakeRouter, router, settled
from tests.router.serving import serving

pytestmark = pytest.mark.anyio

ROUTES = """
routes:
  credit:
    policy: {kind: epsilon_greedy, epsilon: 0.2}
    arms: {champion: {model: forest}, challenger: {model: linear}}
    metrics: {pnl: {unit: GBP}}
    sticky: true
"""
X = {"x": np.array([1.0, 2.5])}


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeRouter]:
    async with router(tmp_path, ROUTES, "forest", "linear") as fake:
        yield fake


@pytest.fixture
async def address(fake: FakeRouter) -> AsyncIterator[str]:
    async with serving(GrpcApp(methods(fake.service))) as address:
        yield address


async def test_the_library_is_the_package():
    assert package.Client is Client
    assert set(package.__all__) == {"Answer", "AsyncClient", "Client", "Earned", "Trust"}
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = package.Server


async def test_a_client_asks_and_reports(fake: FakeRouter, address: str):
    def talk() -> None:
        with Client(address) as client:
            assert client.ready()
            assert client.routes() == ["credit"]
            answer = client.infer("credit", X, unit="jane")
            np.testing.assert_array_equal(answer.outputs["y"], [2.0, 5.0])
            assert (answer.arm, answer.propensity) == (client.infer("credit", X, unit="jane").arm, 0.5)
            decided = client.decide("credit", unit="jane")
            assert decided.arm == answer.arm
            assert client.reward(answer.decision, 1.0, metrics={"pnl": 3.0}, truth=0.0).arm == answer.arm
            outcomes = client.rewards([Earned(decided.decision_id, 0.5), Earned("nobody", 1.0)]).outcomes
            assert [outcome.code for outcome in outcomes] == [0, 5]
            assert client.describe("credit").route == "credit"
            with pytest.raises(grpc.RpcError) as refused:
                client.reward(answer.decision, 1.0)
            assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
            assert "the first one stands" in refused.value.details()

    await asyncio.to_thread(talk)


async def test_an_async_client_does_the_same(fake: FakeRouter, address: str):
    async with AsyncClient(address) as client:
        assert await client.ready()
        assert await client.routes() == ["credit"]
        answer = await client.infer("credit", X, unit="jane")
        np.testing.assert_array_equal(answer.outputs["y"], [2.0, 5.0])
        decided = await client.decide("credit", unit="jane")
        assert decided.arm == answer.arm
        assert (await client.reward(answer.decision, 1.0, metrics={"pnl": 3.0})).arm == answer.arm
        outcomes = (await client.rewards([Earned(decided.decision_id, 0.5), Earned("nobody", 1.0)])).outcomes
        assert [outcome.code for outcome in outcomes] == [0, 5]
        assert (await client.describe("credit")).route == "credit"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.infer("nope", X)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert refused.value.details() == "unknown route 'nope'; there are: credit"


async def test_what_is_not_given_is_not_sent():
    assert not Earned("d", 1.0).message().HasField("truth")
    assert Earned("d", 1.0, truth=0.0).message().HasField("truth")
    assert not Earned("d").message().HasField("reward")
    assert Earned("d", 0.0).message().HasField("reward")


async def test_feedback_is_streamed(fake: FakeRouter, address: str):
    def talk() -> None:
        with Client(address) as client:
            decisions = [client.decide("credit").decision_id for _ in range(50)]
            outcomes = list(client.reward_stream([*(Earned(each, 0.5) for each in decisions), Earned("nobody", 1.0)]))
            assert [outcome.code for outcome in outcomes] == [0] * 50 + [5]
            assert {tuple(outcome.counted) for outcome in outcomes[:50]} == {("reward",)}

    await asyncio.to_thread(talk)


async def test_streamed_feedback_is_acknowledged_while_more_is_to_come(fake: FakeRouter, address: str):
    answered = asyncio.Event()

    async def earned(decisions: list[str]) -> AsyncIterator[Earned]:
        for decision in decisions:
            yield Earned(decision, 0.5)
            await answered.wait()
            answered.clear()

    async with AsyncClient(address) as client:
        decisions = [(await client.decide("credit")).decision_id for _ in range(3)]
        async for outcome in client.reward_stream(earned(decisions)):
            assert outcome.code == 0
            answered.set()
        assert fake.store.outcomes(decisions).keys() == set(decisions)


async def test_an_answer_carries_its_decision_as_recorded(fake: FakeRouter, address: str):
    async with AsyncClient(address) as client:
        answers = [await client.infer("credit", X) for _ in range(20)]
    await settled(fake.learner)
    recorded = fake.store.find([answer.decision for answer in answers])
    assert len(recorded) == 20
    for answer in answers:
        assert (answer.arm, answer.propensity) == (
            recorded[answer.decision].arm,
            recorded[answer.decision].propensity,
        )
