"""What every upstream promises its route, each against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import CallError, DeadlineExceeded, Fault, InvalidArgument
from protos.messages import ModelInferResponse
from protos.tensors import outputs_of
from router.config import Arm
from router.config.arm import Ensemble
from router.upstreams import Upstream
from router.upstreams.local import Models
from tests.router.fakes import SOON, FakeUpstream, call_of
from tests.router.serving import serving
from tests.router.upstreams.servers import MODEL, Mesh, answer, upstream_of

pytestmark = pytest.mark.anyio

KINDS = ["fake", "local", "http2", "grpc", "pool", "rest", "seldon", "ensemble"]


@pytest.fixture(params=KINDS)
async def upstream(request: pytest.FixtureRequest, models: Path) -> AsyncIterator[Upstream]:
    """Whatever answers for an arm, it doubles."""
    kind = request.param
    if kind == "fake":
        yield FakeUpstream()
        return
    if kind == "local":
        async with upstream_of(models=Models(models, CollectorRegistry()), model=MODEL) as upstream:
            yield upstream
        return
    address = request.getfixturevalue("runtime")
    if kind == "seldon":
        mesh = Mesh(FakeUpstream())
        async with serving(mesh) as there, upstream_of(model=MODEL, target=there, kind="seldon") as upstream:
            yield upstream
    elif kind == "ensemble":
        arms = {"remote": Arm(model=MODEL, target=address), "rest": Arm(model=MODEL, url=f"http://{address}")}
        inline = {"local": Arm(model=MODEL)}
        members = Ensemble(members={"remote": 1.0, "rest": 2.0, "local": 1.0}, arms=inline)
        async with upstream_of(arms, Models(models, CollectorRegistry()), ensemble=members) as upstream:
            yield upstream
    elif kind == "rest":
        async with upstream_of(model=MODEL, url=f"http://{address}") as upstream:
            yield upstream
    elif kind == "pool":
        async with upstream_of(model=MODEL, target=address, connections=3) as upstream:
            yield upstream
    else:
        async with upstream_of(model=MODEL, target=address, client=kind) as upstream:
            yield upstream


async def test_answers_with_its_model_whatever_name_the_call_carries(upstream: Upstream):
    response = answer(await upstream(call_of("credit", x=[1.5, -2.0], id="r1")))
    assert (response.model_name, response.model_version) in {("double", "7"), ("mean", "")}
    assert response.id == "r1"
    np.testing.assert_array_equal(outputs_of(response)["y"], [3.0, -4.0])


async def test_its_answer_is_bytes_that_another_message_can_be_added_to(upstream: Upstream):
    reply = await upstream(call_of("credit", x=[1.0], id="r1"))
    stamp = ModelInferResponse(model_name="credit")
    stamp.parameters["arm"].string_param = "a"
    reply.body += stamp.SerializeToString()
    stamped = answer(reply)
    assert (stamped.model_name, stamped.id, stamped.parameters["arm"].string_param) == ("credit", "r1", "a")
    np.testing.assert_array_equal(outputs_of(stamped)["y"], [2.0])


async def test_each_reply_is_the_callers_own(upstream: Upstream):
    one, two = await upstream(call_of("credit")), await upstream(call_of("credit"))
    one.metadata.append((b"croupier-arm", b"a"))
    assert (b"croupier-arm", b"a") not in two.metadata


async def test_calls_at_the_same_time_get_their_own_answers(upstream: Upstream):
    replies = await asyncio.gather(*(upstream(call_of("credit", x=[n], id=str(n))) for n in range(50)))
    answers = [answer(reply) for reply in replies]
    assert [each.id for each in answers] == [str(n) for n in range(50)]
    assert [float(outputs_of(each)["y"][0]) for each in answers] == [2.0 * n for n in range(50)]


async def test_what_the_client_did_wrong_is_the_clients_fault(upstream: Upstream):
    call = call_of("credit")
    call.request.inputs[0].name = "z"
    call.body = call.request.SerializeToString()
    with pytest.raises(InvalidArgument, match="'x'") as refused:
        await upstream(call)
    assert refused.value.fault is Fault.CLIENT


async def test_a_call_that_comes_too_late_is_told_so(upstream: Upstream):
    call = call_of("credit")
    call.deadline = asyncio.get_running_loop().time() - 1
    with pytest.raises(DeadlineExceeded):
        await upstream(call)


async def test_a_call_in_time_is_answered(upstream: Upstream):
    call = call_of("credit", x=[1.0])
    call.deadline = asyncio.get_running_loop().time() + SOON
    np.testing.assert_array_equal(outputs_of(answer(await upstream(call)))["y"], [2.0])


async def test_a_caller_who_leaves_harms_nobody(upstream: Upstream):
    calls = [asyncio.create_task(upstream(call_of("credit", id=str(n)))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() or answer(call.result()) for call in calls)
    assert [answer(call.result()).id for call in calls[1::2]] == [str(n) for n in range(1, 20, 2)]


async def test_a_call_is_read_by_its_upstream_and_never_changed_for_the_next(upstream: Upstream):
    """A route may ask another arm with the same call."""
    call = call_of("credit", x=[1.0], id="r1")
    body = call.body
    for _ in range(2):
        np.testing.assert_array_equal(outputs_of(answer(await upstream(call)))["y"], [2.0])
    assert call.body == body


async def test_large_messages_pass(upstream: Upstream):
    x = np.arange(200_000, dtype=np.float64)
    np.testing.assert_array_equal(outputs_of(answer(await upstream(call_of("credit", x=x))))["y"], 2 * x)


async def test_says_what_it_takes_and_gives(upstream: Upstream):
    told = await upstream.metadata()
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("x", "FP64", [-1])]
    assert [(each.name, each.datatype, list(each.shape)) for each in told.outputs] == [("y", "FP64", [-1])]


async def test_is_ready(upstream: Upstream):
    assert await upstream.ready() is True


async def test_a_failure_is_a_call_error(models: Path):
    async with upstream_of(model=MODEL, target="127.0.0.1:1") as upstream:
        with pytest.raises(CallError):
            await upstream(call_of("credit"))
