"""What every upstream promises its route, and what only a remote one has to get right."""

from __future__ import annotations

import asyncio
import json
import socket
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from protos.errors import (
    CallError,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    UpstreamError,
)
from protos.messages import ModelInferResponse
from protos.tensors import outputs_of
from router.call import Call, Reply
from router.config import Arm
from router.upstreams import Upstream
from router.upstreams.connections import Connections
from router.upstreams.local import Local, Models
from router.upstreams.remote import Remote
from tests.router.fakes import SOON, FakeModels, FakeUpstream, call_of, doubled
from tests.router.serving import FakeServer, serving

pytestmark = pytest.mark.anyio


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model, "double", in one version, "7"."""
    folder = tmp_path_factory.mktemp("models") / "double"
    folder.mkdir()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(Double()).save(folder / "model.pt")
    settings = {
        "name": "double",
        "implementation": "runtime.TorchScriptModel",
        "parameters": {"version": "7"},
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return folder.parent


def answer(reply: Reply) -> ModelInferResponse:
    return ModelInferResponse.FromString(reply.body)


class TestUpstreamContract:
    """Whatever answers for an arm, it doubles."""

    @pytest.fixture(params=["fake", "local", "remote"])
    async def upstream(self, request: pytest.FixtureRequest, models: Path) -> AsyncIterator[Upstream]:
        if request.param == "fake":
            yield FakeUpstream()
        elif request.param == "local":
            yield await Models(models, CollectorRegistry()).upstream("double", "")
        else:
            async with serving(FakeServer(FakeUpstream()).app) as address:
                remote = Remote(address, "double")
                yield remote
                await remote.close()

    async def test_answers_with_its_model_whatever_name_the_call_carries(self, upstream: Upstream):
        response = answer(await upstream(call_of("credit", x=[1.5, -2.0], id="r1")))
        assert (response.model_name, response.model_version, response.id) == ("double", "7", "r1")
        np.testing.assert_array_equal(outputs_of(response)["y"], [3.0, -4.0])

    async def test_its_answer_is_bytes_that_another_message_can_be_added_to(self, upstream: Upstream):
        reply = await upstream(call_of("credit", x=[1.0], id="r1"))
        stamp = ModelInferResponse(model_name="credit")
        stamp.parameters["arm"].string_param = "a"
        reply.body += stamp.SerializeToString()
        stamped = answer(reply)
        assert (stamped.model_name, stamped.id, stamped.parameters["arm"].string_param) == ("credit", "r1", "a")
        np.testing.assert_array_equal(outputs_of(stamped)["y"], [2.0])

    async def test_each_reply_is_the_callers_own(self, upstream: Upstream):
        one, two = await upstream(call_of("credit")), await upstream(call_of("credit"))
        one.metadata.append(("croupier-arm", "a"))
        assert two.metadata == []

    async def test_calls_at_the_same_time_get_their_own_answers(self, upstream: Upstream):
        replies = await asyncio.gather(*(upstream(call_of("credit", x=[n], id=str(n))) for n in range(50)))
        answers = [answer(reply) for reply in replies]
        assert [each.id for each in answers] == [str(n) for n in range(50)]
        assert [float(outputs_of(each)["y"][0]) for each in answers] == [2.0 * n for n in range(50)]

    async def test_what_the_client_did_wrong_is_the_clients_fault(self, upstream: Upstream):
        call = call_of("credit")
        call.request.inputs[0].name = "z"
        call.body = call.request.SerializeToString()
        with pytest.raises(InvalidArgument, match="'x'") as refused:
            await upstream(call)
        assert refused.value.fault is Fault.CLIENT

    async def test_a_call_that_comes_too_late_is_told_so(self, upstream: Upstream):
        call = call_of("credit")
        call.deadline = asyncio.get_running_loop().time() - 1
        with pytest.raises(DeadlineExceeded):
            await upstream(call)

    async def test_a_call_in_time_is_answered(self, upstream: Upstream):
        call = call_of("credit")
        call.deadline = asyncio.get_running_loop().time() + SOON
        assert answer(await upstream(call)).model_name == "double"

    async def test_a_caller_who_leaves_harms_nobody(self, upstream: Upstream):
        calls = [asyncio.create_task(upstream(call_of("credit", id=str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() or answer(call.result()) for call in calls)
        assert [answer(call.result()).id for call in calls[1::2]] == [str(n) for n in range(1, 20, 2)]

    async def test_says_what_it_takes_and_gives(self, upstream: Upstream):
        told = await upstream.metadata()
        assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("x", "FP64", [-1])]
        assert [(each.name, each.datatype, list(each.shape)) for each in told.outputs] == [("y", "FP64", [-1])]

    async def test_is_ready(self, upstream: Upstream):
        assert await upstream.ready() is True


# ----------------------------------------------------------------------------------------------------------- local


async def test_a_local_model_that_is_not_there_is_refused_when_it_is_opened(models: Path):
    served = Models(models, CollectorRegistry())
    with pytest.raises(CallError, match="'triple'"):
        await served.upstream("triple", "")
    with pytest.raises(NotFound, match=r"'8'.*'7'"):
        await served.upstream("double", "8")


async def test_a_local_model_that_does_not_load_says_why(tmp_path: Path, models: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.pt").write_bytes(b"nothing of the kind")
    (broken / "model-settings.json").write_text((models / "double" / "model-settings.json").read_text())
    with pytest.raises(FailedPrecondition, match="not a TorchScript archive"):
        await Models(tmp_path, CollectorRegistry()).upstream("double", "")


async def test_a_local_model_that_is_gone_is_the_arms_failure_and_not_the_clients(models: Path):
    served = Models(models, CollectorRegistry())
    arms = [await served.upstream("double", version) for version in ("", "7")]
    await served._engine.unload("double")
    for arm in arms:
        with pytest.raises(UpstreamError, match=r"'double'.*is not loaded") as failed:
            await arm(call_of("credit"))
        assert (failed.value.code, failed.value.fault) == (Code.INTERNAL, Fault.UPSTREAM)
        assert not await arm.ready()


async def test_a_local_model_that_was_never_there_is_not_ready(models: Path):
    engine = Models(models, CollectorRegistry())._engine
    assert not await Local(engine, "double").ready()


# ---------------------------------------------------------------------------------------------------------- remote


@pytest.fixture
async def model() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
async def server(model: FakeUpstream) -> FakeServer:
    return FakeServer(model)


@pytest.fixture
async def address(server: FakeServer) -> AsyncIterator[str]:
    async with serving(server.app) as address:
        yield address


@pytest.fixture
async def remote(address: str) -> AsyncIterator[Remote]:
    remote = Remote(address, "double")
    yield remote
    await remote.close()


def free_address() -> str:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def test_the_bytes_are_passed_on_as_they_came_and_only_the_model_is_another(remote: Remote, model: FakeUpstream):
    call = call_of("credit", x=[1.0], id="r1")
    call.request.parameters["unit"].string_param = "jane"
    unknown = b"\xa2\x06\x03abc"  # a field that a newer client may send
    call.body = call.request.SerializeToString() + unknown
    await remote(call)
    (passed,) = model.calls
    assert passed.body.startswith(call.body)
    assert unknown in passed.body
    assert (passed.request.model_name, passed.request.id) == ("double", "r1")
    assert passed.request.inputs == call.request.inputs
    assert passed.request.raw_input_contents == call.request.raw_input_contents
    assert passed.request.parameters["unit"].string_param == "jane"


async def test_the_answer_is_passed_back_as_it_came(remote: Remote):
    call = call_of("credit", id="r1")
    assert (await remote(call)).body == doubled(call.request, "double").SerializeToString()


async def test_an_arm_may_name_a_version(address: str, model: FakeUpstream):
    remote = Remote(address, "double", "7")
    await remote(call_of("credit"))
    assert model.calls[0].request.model_version == "7"
    await remote.close()


async def test_where_nobody_listens_the_error_names_the_target():
    target = free_address()
    remote = Remote(target, "double")
    call = call_of("credit")
    call.deadline = asyncio.get_running_loop().time() + SOON
    with pytest.raises(UpstreamError, match=f"upstream at {target} answered UNAVAILABLE for model 'double'") as failed:
        await remote(call)
    assert (failed.value.code, failed.value.fault, failed.value.retry) == (Code.UNAVAILABLE, Fault.UPSTREAM, True)
    assert not await remote.ready()
    with pytest.raises(UpstreamError, match=target):
        await remote.metadata()
    await remote.close()


async def test_an_upstream_that_was_restarted_is_found_again(model: FakeUpstream):
    async with serving(FakeServer(model).app) as address:
        remote = Remote(address, "double")
        await remote(call_of("credit"))
    with pytest.raises(UpstreamError) as failed:
        await remote(call_of("credit"))
    assert failed.value.code is Code.UNAVAILABLE
    async with serving(FakeServer(model).app, address):
        async with asyncio.timeout(SOON):
            while not await remote.ready():
                await asyncio.sleep(0.05)
        assert answer(await remote(call_of("credit", id="again"))).id == "again"
        await remote.close()


async def test_an_upstream_that_starts_late_is_found(model: FakeUpstream):
    address = free_address()
    remote = Remote(address, "double")
    assert not await remote.ready()
    async with serving(FakeServer(model).app, address):
        async with asyncio.timeout(SOON):
            while not await remote.ready():
                await asyncio.sleep(0.05)
        await remote(call_of("credit"))
        await remote.close()


@pytest.mark.parametrize(
    ("error", "code", "fault", "retry"),
    [
        (InvalidArgument("input 'x' is missing"), Code.INVALID_ARGUMENT, Fault.CLIENT, False),
        (ResourceExhausted("the queue is full"), Code.RESOURCE_EXHAUSTED, Fault.SERVER, True),
        (DeadlineExceeded("too late"), Code.DEADLINE_EXCEEDED, Fault.UPSTREAM, True),
        (Unavailable("loading"), Code.UNAVAILABLE, Fault.UPSTREAM, True),
        (NotFound("no such model"), Code.INTERNAL, Fault.UPSTREAM, False),
        (FailedPrecondition("it did not load"), Code.INTERNAL, Fault.UPSTREAM, False),
        (RuntimeError("a bug"), Code.INTERNAL, Fault.UPSTREAM, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_there_becomes_ours(
    remote: Remote, model: FakeUpstream, error: Exception, code: Code, fault: Fault, retry: bool
):
    model.fail(error)
    with pytest.raises(CallError) as failed:
        await remote(call_of("credit"))
    assert (failed.value.code, failed.value.fault, failed.value.retry) == (code, fault, retry)
    if code is Code.INVALID_ARGUMENT:
        assert failed.value.message == "input 'x' is missing", "in the words of the model's server"
    if fault is Fault.UPSTREAM and isinstance(error, CallError) and not isinstance(error, DeadlineExceeded):
        assert f"answered {error.code.name} for model 'double': {error.message}" in failed.value.message


async def test_a_model_that_the_upstream_does_not_have_is_its_failure_and_not_the_clients(address: str):
    remote = Remote(address, "triple")
    for asked in (remote(call_of("credit")), remote.metadata()):
        with pytest.raises(UpstreamError, match=f"{address} answered NOT_FOUND for model 'triple'") as failed:
            await asked
        assert failed.value.fault is Fault.UPSTREAM
    assert not await remote.ready()
    await remote.close()


async def test_a_model_that_is_not_ready_is_not(remote: Remote, model: FakeUpstream):
    model.is_ready = False
    assert not await remote.ready()


async def test_the_deadline_goes_with_the_call(remote: Remote, server: FakeServer):
    loop = asyncio.get_running_loop()
    call = call_of("credit")
    call.deadline = loop.time() + 3
    await remote(call)
    with_deadline = server.rpcs[0].deadline
    assert with_deadline is not None
    assert with_deadline == pytest.approx(call.deadline, abs=SOON)


async def test_an_upstream_that_hangs_has_failed_whatever_the_caller_grants_it(address: str, model: FakeUpstream):
    remote = Remote(address, "double", timeout_seconds=0.2)
    patient = call_of("credit")
    patient.deadline = asyncio.get_running_loop().time() + 60
    for call in (patient, call_of("credit")):
        held = model.hold()
        with pytest.raises(UpstreamError, match=f"{address} did not answer within 0.2 s") as failed:
            await remote(call)
        assert (failed.value.code, failed.value.fault) == (Code.DEADLINE_EXCEEDED, Fault.UPSTREAM)
        assert held.arrived.is_set()
    await remote.close()


async def test_a_deadline_that_passes_there_ends_the_call_in_both_places(remote: Remote, model: FakeUpstream):
    held = model.hold()
    call = call_of("credit")
    call.deadline = asyncio.get_running_loop().time() + 0.1
    with pytest.raises(DeadlineExceeded, match="before the upstream answered"):
        await remote(call)
    assert held.arrived.is_set()


async def test_who_leaves_is_followed_by_the_upstream():
    ended = asyncio.Event()

    class Endless(FakeUpstream):
        async def __call__(self, call: Call) -> Reply:
            try:
                return await super().__call__(call)
            finally:
                ended.set()

    endless = Endless()
    held = endless.hold()
    async with serving(FakeServer(endless).app) as address:
        remote = Remote(address, "double")
        call = asyncio.create_task(remote(call_of("credit")))
        await asyncio.wait_for(held.arrived.wait(), SOON)
        call.cancel()
        await asyncio.wait_for(ended.wait(), SOON)
        await asyncio.wait([call])
        assert call.cancelled()
        await remote.close()


async def test_trace_and_request_id_are_passed_on_and_nothing_else(remote: Remote, server: FakeServer):
    call = call_of("credit")
    call.metadata = {"traceparent": "00-ab-cd-01", "x-request-id": "77", "authorization": "secret", "cookie": "secret"}
    await remote(call)
    (rpc,) = server.rpcs
    assert rpc.metadata["traceparent"] == "00-ab-cd-01"
    assert rpc.metadata["x-request-id"] == "77"
    assert "secret" not in rpc.metadata.values()


@pytest.mark.parametrize("value", ["é", "a\x7f", "\t", ""])
async def test_metadata_that_grpc_does_not_take_is_left_out_and_the_call_is_made(
    remote: Remote, server: FakeServer, value: str
):
    call = call_of("credit")
    call.metadata = {"x-request-id": value}
    await remote(call)
    assert "x-request-id" not in server.rpcs[0].metadata


async def test_large_messages_pass(remote: Remote):
    x = np.arange(1_000_000, dtype=np.float64)
    response = answer(await remote(call_of("credit", x=x)))
    np.testing.assert_array_equal(outputs_of(response)["y"], 2 * x)


async def test_closing_waits_for_calls_in_flight(remote: Remote, model: FakeUpstream):
    held = model.hold()
    call = asyncio.create_task(remote(call_of("credit", id="last")))
    await asyncio.wait_for(held.arrived.wait(), SOON)
    closing = asyncio.create_task(remote.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    held.release()
    assert answer(await call).id == "last"
    await asyncio.wait_for(closing, SOON)


# ----------------------------------------------------------------------------------------------------- connections


async def test_an_upstream_is_opened_once_for_equal_arms():
    models = FakeModels()
    models.upstreams = {"double": FakeUpstream()}
    connections = Connections(models)  # type: ignore[arg-type]  # a fake
    one = await connections.upstream(Arm(model="double"))
    assert await connections.upstream(Arm(model="double")) is one
    assert models.opened == ["double"]


async def test_equal_models_of_two_targets_are_two_upstreams():
    connections = Connections(None)
    arms = [Arm(model="m", target="h:1"), Arm(model="m", target="h:2"), Arm(model="m", version="1", target="h:1")]
    upstreams = [await connections.upstream(arm) for arm in arms]
    assert len(set(map(id, upstreams))) == 3
    await connections.close()


async def test_what_nobody_needs_is_closed_and_opened_anew_when_it_is():
    models = FakeModels()
    models.upstreams = {name: FakeUpstream(name) for name in ("one", "two")}
    connections = Connections(models)  # type: ignore[arg-type]  # a fake
    for name in ("one", "two"):
        await connections.upstream(Arm(model=name))
    await connections.keep_only([Arm(model="two"), Arm(model="three")])
    assert models.upstreams["one"].is_closed
    assert not models.upstreams["two"].is_closed
    await connections.upstream(Arm(model="one"))
    assert models.opened == ["one", "two", "one"]
    await connections.close()
    assert models.upstreams["two"].is_closed
