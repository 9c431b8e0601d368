"""What an upstream behind gRPC has to get right, whichever client carries it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

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
from protos.grpc import GrpcApp, Rpc
from protos.tensors import outputs_of
from protos.v2 import SERVICE
from router.call import Call, Reply
from router.config import Arm
from router.config.arm import File
from router.upstreams import Upstream
from router.upstreams.connections import Connections
from router.upstreams.http2 import frames
from tests.router.fakes import SOON, FakeUpstream, call_of, doubled
from tests.router.serving import FakeServer, serving
from tests.router.upstreams.servers import MODEL, answer, free_address, listening, upstream_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["http2", "grpc"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def server(model: FakeUpstream) -> FakeServer:
    return FakeServer(model)


@pytest.fixture
async def address(server: FakeServer) -> AsyncIterator[str]:
    async with serving(server.app) as address:
        yield address


@pytest.fixture
def settings(client: str) -> dict[str, Any]:
    return {"model": MODEL, "client": client}


@pytest.fixture
async def remote(address: str, settings: dict[str, Any]) -> AsyncIterator[Upstream]:
    async with upstream_of(target=address, **settings) as upstream:
        yield upstream


async def test_the_bytes_are_passed_on_as_they_came_and_only_the_model_is_another(
    remote: Upstream, model: FakeUpstream
):
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


async def test_the_answer_is_passed_back_as_it_came(remote: Upstream):
    call = call_of("credit", id="r1")
    assert (await remote(call)).body == doubled(call.request, "double").SerializeToString()


async def test_an_arm_may_name_a_version(address: str, settings: dict[str, Any], model: FakeUpstream):
    async with upstream_of(target=address, version="7", **settings) as remote:
        await remote(call_of("credit"))
    assert model.calls[0].request.model_version == "7"


async def test_where_nobody_listens_the_error_names_the_target(settings: dict[str, Any]):
    target = free_address()
    async with upstream_of(target=target, **settings) as remote:
        call = call_of("credit")
        call.deadline = asyncio.get_running_loop().time() + SOON
        sentence = f"upstream at {target} answered UNAVAILABLE for model 'double'"
        with pytest.raises(UpstreamError, match=sentence) as failed:
            await remote(call)
        assert (failed.value.code, failed.value.fault, failed.value.retry) == (Code.UNAVAILABLE, Fault.UPSTREAM, True)
        assert not await remote.ready()
        with pytest.raises(UpstreamError, match=target):
            await remote.metadata()


async def test_an_upstream_that_was_restarted_is_found_again(settings: dict[str, Any], model: FakeUpstream):
    async with serving(FakeServer(model).app) as address:
        connected = upstream_of(target=address, **settings)
        remote = await connected.__aenter__()
        await remote(call_of("credit"))
    with pytest.raises(UpstreamError) as failed:
        await remote(call_of("credit"))
    assert failed.value.code is Code.UNAVAILABLE
    async with serving(FakeServer(model).app, address):
        async with asyncio.timeout(SOON):
            while not await remote.ready():
                await asyncio.sleep(0.05)
        assert answer(await remote(call_of("credit", id="again"))).id == "again"
        await connected.__aexit__(None, None, None)


async def test_an_upstream_that_starts_late_is_found(settings: dict[str, Any], model: FakeUpstream):
    address = free_address()
    async with upstream_of(target=address, **settings) as remote:
        assert not await remote.ready()
        async with serving(FakeServer(model).app, address):
            async with asyncio.timeout(SOON):
                while not await remote.ready():
                    await asyncio.sleep(0.05)
            await remote(call_of("credit"))


@pytest.mark.parametrize(
    ("error", "code", "fault", "retry"),
    [
        (InvalidArgument("input 'x' is missing"), Code.INVALID_ARGUMENT, Fault.CLIENT, False),
        (ResourceExhausted("the queue is full"), Code.RESOURCE_EXHAUSTED, Fault.SERVER, True),
        (DeadlineExceeded("too late"), Code.DEADLINE_EXCEEDED, Fault.UPSTREAM, True),
        (Unavailable("loading"), Code.UNAVAILABLE, Fault.UPSTREAM, True),
        (NotFound("no such model"), Code.INTERNAL, Fault.UPSTREAM, False),
        (FailedPrecondition("it did not load: 100 % é"), Code.INTERNAL, Fault.UPSTREAM, False),
        (RuntimeError("a bug"), Code.INTERNAL, Fault.UPSTREAM, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_there_becomes_ours(
    remote: Upstream, model: FakeUpstream, error: Exception, code: Code, fault: Fault, retry: bool
):
    model.fail(error)
    with pytest.raises(CallError) as failed:
        await remote(call_of("credit"))
    assert (failed.value.code, failed.value.fault, failed.value.retry) == (code, fault, retry)
    if code is Code.INVALID_ARGUMENT:
        assert failed.value.message == "input 'x' is missing", "in the words of the model's server"
    if fault is Fault.UPSTREAM and isinstance(error, CallError) and not isinstance(error, DeadlineExceeded):
        assert f"answered {error.code.name} for model 'double': {error.message}" in failed.value.message


async def test_a_model_that_the_upstream_does_not_have_is_its_failure_and_not_the_clients(
    address: str, settings: dict[str, Any]
):
    async with upstream_of(target=address, **{**settings, "model": "triple"}) as remote:
        for asked in (remote(call_of("credit")), remote.metadata()):
            with pytest.raises(UpstreamError, match=f"{address} answered NOT_FOUND for model 'triple'") as failed:
                await asked
            assert failed.value.fault is Fault.UPSTREAM
        assert not await remote.ready()


async def test_a_model_that_is_not_ready_is_not(remote: Upstream, model: FakeUpstream):
    model.is_ready = False
    assert not await remote.ready()


async def test_a_server_that_answers_nonsense_about_its_model_is_the_arms_failure(settings: dict[str, Any]):
    async def nonsense(_body: bytes, _rpc: Rpc) -> bytes:
        return b"\xff"

    app = GrpcApp({SERVICE + name: nonsense for name in ("ModelMetadata", "ModelReady")})
    async with serving(app) as address, upstream_of(target=address, **settings) as remote:
        with pytest.raises(UpstreamError, match="no metadata"):
            await remote.metadata()
        assert not await remote.ready()


async def test_the_deadline_goes_with_the_call(remote: Upstream, server: FakeServer):
    now = asyncio.get_running_loop().time
    for seconds in (0.9, 3.0, 4.9):
        call = call_of("credit")
        call.deadline = now() + seconds
        await remote(call)
        there = server.rpcs[-1].deadline
        assert there is not None
        assert call.deadline - 0.01 <= there <= now() + 1.01 * seconds  # grpcio rounds up


async def test_an_upstream_that_hangs_has_failed_whatever_the_caller_grants_it(
    address: str, settings: dict[str, Any], model: FakeUpstream
):
    async with upstream_of(target=address, timeout_seconds=0.5, retries=3, **settings) as remote:
        patient = call_of("credit")
        patient.deadline = asyncio.get_running_loop().time() + 60
        for call in (patient, call_of("credit")):
            held = model.hold()
            with pytest.raises(UpstreamError, match=f"{address} did not answer within 0.5 s") as failed:
                await remote(call)
            assert (failed.value.code, failed.value.fault) == (Code.DEADLINE_EXCEEDED, Fault.UPSTREAM)
            assert held.arrived.is_set()
        assert len(model.calls) == 2, "what took too long is not asked again"


async def test_a_deadline_that_passes_there_ends_the_call_in_both_places(remote: Upstream, model: FakeUpstream):
    held = model.hold()
    call = call_of("credit")
    call.deadline = asyncio.get_running_loop().time() + 0.5
    with pytest.raises(DeadlineExceeded, match="before the upstream answered"):
        await remote(call)
    assert held.arrived.is_set()


async def test_who_leaves_is_followed_by_the_upstream(settings: dict[str, Any]):
    ended = asyncio.Event()

    class Endless(FakeUpstream):
        async def __call__(self, call: Call) -> Reply:
            try:
                return await super().__call__(call)
            finally:
                ended.set()

    endless = Endless()
    held = endless.hold()
    async with serving(FakeServer(endless).app) as address, upstream_of(target=address, **settings) as remote:
        call = asyncio.create_task(remote(call_of("credit")))
        await asyncio.wait_for(held.arrived.wait(), SOON)
        call.cancel()
        await asyncio.wait_for(ended.wait(), SOON)
        await asyncio.wait([call])
        assert call.cancelled()
        # grpcio, too, has heard of the end then: it would tell it to the next test's event loop, as this one is closed.
        assert answer(await remote(call_of("credit", id="next"))).id == "next"


async def test_trace_and_request_id_are_passed_on_and_nothing_else(remote: Upstream, server: FakeServer):
    call = call_of("credit")
    call.metadata = {"traceparent": "00-ab-cd-01", "x-request-id": "77", "authorization": "secret", "cookie": "secret"}
    await remote(call)
    (rpc,) = server.rpcs
    assert rpc.metadata["traceparent"] == "00-ab-cd-01"
    assert rpc.metadata["x-request-id"] == "77"
    assert "secret" not in rpc.metadata.values()


@pytest.mark.parametrize("value", ["é", "a\x7f", "\t", "", "a" * 2000])
async def test_metadata_that_grpc_does_not_take_is_left_out_and_the_call_is_made(
    remote: Upstream, server: FakeServer, value: str
):
    call = call_of("credit")
    call.metadata = {"x-request-id": value}
    await remote(call)
    assert "x-request-id" not in server.rpcs[0].metadata


async def test_configured_headers_go_with_every_call(
    address: str, settings: dict[str, Any], server: FakeServer, tmp_path: Any
):
    (tmp_path / "token").write_text("Bearer abc\n")
    headers = {"authorization": File(file=str(tmp_path / "token")), "x-tenant": "fx", "x-long": "a" * 300}
    async with upstream_of(target=address, headers=headers, **settings) as remote:
        await remote(call_of("credit"))
    sent = server.rpcs[0].metadata
    assert [sent[name] for name in headers] == ["Bearer abc", "fx", "a" * 300]


async def test_a_header_that_cannot_be_read_is_refused_when_it_is_opened(settings: dict[str, Any]):
    headers = {"authorization": File(file="/nowhere")}
    with pytest.raises(FailedPrecondition, match=r"headers: authorization cannot be read.*/nowhere"):
        async with upstream_of(target="127.0.0.1:1", headers=headers, **settings):
            pass


async def test_large_messages_pass(remote: Upstream):
    x = np.arange(1_000_000, dtype=np.float64)
    response = answer(await remote(call_of("credit", x=x)))
    np.testing.assert_array_equal(outputs_of(response)["y"], 2 * x)


async def test_large_and_small_messages_share_a_connection(remote: Upstream):
    sizes = [300_000, 1, 200_000, 2, 100_000, 3]
    replies = await asyncio.gather(*(remote(call_of("credit", x=np.full(size, float(size)))) for size in sizes))
    assert [len(outputs_of(answer(reply))["y"]) for reply in replies] == sizes


async def test_closing_waits_for_calls_in_flight(address: str, settings: dict[str, Any], model: FakeUpstream):
    connected = upstream_of(target=address, **settings)
    remote = await connected.__aenter__()
    held = model.hold()
    call = asyncio.create_task(remote(call_of("credit", id="last")))
    await asyncio.wait_for(held.arrived.wait(), SOON)
    closing = asyncio.create_task(connected.__aexit__(None, None, None))
    await asyncio.sleep(0.01)
    assert not closing.done()
    held.release()
    assert answer(await call).id == "last"
    await asyncio.wait_for(closing, SOON)


# ------------------------------------------------------------------------------------------------- several servers


async def ask_often(remote: Upstream) -> None:
    for _ in range(10):
        await remote(call_of("credit"))


async def test_calls_go_round_all_servers(settings: dict[str, Any]):
    models = [FakeUpstream() for _ in range(3)]
    async with (
        serving(FakeServer(models[0]).app) as a,
        serving(FakeServer(models[1]).app) as b,
        serving(FakeServer(models[2]).app) as c,
        upstream_of(target=(a, b, c), **settings) as remote,
    ):
        async with asyncio.timeout(SOON):
            while not all(model.calls for model in models):
                await remote(call_of("credit"))
        for model in models:
            model.calls.clear()
        for _ in range(30):
            await remote(call_of("credit"))
        assert [len(model.calls) for model in models] == [10, 10, 10]


async def test_a_dead_server_is_nobodys_error_while_another_lives(settings: dict[str, Any], model: FakeUpstream):
    async with (
        serving(FakeServer(model).app) as alive,
        upstream_of(target=(free_address(), alive, free_address()), **{**settings, "retries": 2}) as remote,
    ):
        for n in range(20):
            assert answer(await remote(call_of("credit", id=str(n)))).id == str(n)


async def test_servers_restarted_one_after_the_other_are_nobodys_error(settings: dict[str, Any]):
    """Each ends what it began, and calls that it did not begin go to the other.

    grpcio does not say of a call that met the end of its connection whether it was begun; so none is made again.
    """
    models = [FakeUpstream(), FakeUpstream()]
    clients = 4
    lost = 0

    async def ask_on() -> None:
        nonlocal lost
        while not done:
            try:
                await remote(call_of("credit"))
            except UpstreamError as error:
                if settings["client"] != "grpc" or error.code is not Code.UNAVAILABLE:
                    raise
                lost += 1

    async def is_asked(model: FakeUpstream) -> None:
        model.calls.clear()
        async with asyncio.timeout(SOON):
            while not model.calls:
                await asyncio.sleep(0.01)

    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(contextlib.AsyncExitStack()) for _ in models]
        addresses = [
            await one.enter_async_context(serving(FakeServer(model).app))
            for one, model in zip(running, models, strict=True)
        ]
        done = False
        remote = await stack.enter_async_context(upstream_of(target=tuple(addresses), **{**settings, "retries": 3}))
        asking = [asyncio.create_task(ask_on()) for _ in range(clients)]
        for one, model, address in zip(running, models, addresses, strict=True):
            await is_asked(model)
            await one.aclose()
            await one.enter_async_context(serving(FakeServer(model).app, address))
            await is_asked(model)
        done = True
        await asyncio.gather(*asking)
        assert lost <= clients * len(models), "only what was on its way when a connection ended"


async def test_a_server_that_is_not_ready_passes_its_calls_to_another():
    """Over our own client alone: grpcio does not say whose word UNAVAILABLE was."""
    loading, good = FakeUpstream(), FakeUpstream()
    async with (
        serving(FakeServer(loading).app) as a,
        serving(FakeServer(good).app) as b,
        upstream_of(target=(a, b), model=MODEL) as remote,
    ):
        loading.fail(Unavailable("loading"), times=10)
        for _ in range(10):
            await remote(call_of("credit"))
        assert len(good.calls) == 10
        assert len(loading.calls) <= 2, "and it is left alone for a while"


async def test_without_retries_a_server_that_is_not_ready_is_not_asked_for_by_another():
    loading, good = FakeUpstream(), FakeUpstream()
    async with (
        serving(FakeServer(loading).app) as a,
        serving(FakeServer(good).app) as b,
        upstream_of(target=(a, b), model=MODEL, retries=0) as remote,
    ):
        loading.fail(Unavailable("loading"))
        with pytest.raises(UpstreamError, match="loading"):
            await ask_often(remote)


async def test_a_call_that_was_lost_with_its_connection_is_not_made_again(model: FakeUpstream):
    """It may be what the server died of."""
    seen = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        writer.write(frames.settings())
        while data := await reader.read(65536):
            if b"ModelInfer" in data:
                seen += 1
                writer.transport.abort()

    async with (
        listening(dies) as a,
        serving(FakeServer(model).app) as b,
        upstream_of(target=(a, b), model=MODEL, retries=5) as remote,
    ):
        with pytest.raises(UpstreamError) as failed:
            await ask_often(remote)
        assert failed.value.code is Code.UNAVAILABLE
        assert seen == 1


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are compared ten times a second, and left out for as long."""
    monkeypatch.setattr("router.upstreams.outliers.WINDOW_SECONDS", 0.1)
    monkeypatch.setattr("router.upstreams.outliers.PROBE_SECONDS", 0.1)
    monkeypatch.setattr("router.upstreams.outliers.OUT_SECONDS", (0.2, 0.2))


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_keeps_failing_is_left_out_until_it_does_not(settings: dict[str, Any]):
    good, bad = FakeUpstream(), FakeUpstream()
    left_out: list[str] = []
    connections = Connections(None, left_out=left_out.append)
    async with serving(FakeServer(good).app) as a, serving(FakeServer(bad).app) as b:
        remote = await connections.upstream(Arm(target=(a, b), **settings))
        bad.fail(RuntimeError("out of memory"), times=10_000)
        async with asyncio.timeout(SOON):
            while not left_out:
                with contextlib.suppress(UpstreamError):
                    await remote(call_of("credit"))
        assert left_out == [b]
        bad._script.clear()
        bad.calls.clear()
        async with asyncio.timeout(SOON):
            while len(bad.calls) < 10:
                await remote(call_of("credit"))
        await connections.close()


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_is_far_slower_is_left_out(settings: dict[str, Any]):
    class Slow(FakeUpstream):
        async def __call__(self, call: Call) -> Reply:
            await asyncio.sleep(0.2)
            return await super().__call__(call)

    quick, slow = FakeUpstream(), Slow()
    left_out: list[str] = []
    connections = Connections(None, left_out=left_out.append)
    async with serving(FakeServer(quick).app) as a, serving(FakeServer(slow).app) as b:
        remote = await connections.upstream(Arm(target=(a, b), **settings))
        async with asyncio.timeout(2 * SOON):
            while not left_out:
                await asyncio.gather(*(remote(call_of("credit")) for _ in range(20)))
        assert left_out == [b]
        await connections.close()


# ---------------------------------------------------------------------------------------------------------- loops


async def test_each_router_counts_itself(remote: Upstream, server: FakeServer):
    for before, after in ((None, "1"), ("1", "2"), ("3", "4")):
        call = call_of("credit")
        call.metadata = {} if before is None else {"croupier-hops": before}
        await remote(call)
        assert server.rpcs[-1].metadata["croupier-hops"] == after


async def test_a_call_that_goes_round_in_a_loop_is_refused(remote: Upstream, server: FakeServer):
    call = call_of("credit")
    call.metadata = {"croupier-hops": "4"}
    with pytest.raises(FailedPrecondition, match="passed 4 routers before this one: it goes round in a loop"):
        await remote(call)
    assert not server.rpcs


@pytest.mark.parametrize("value", ["", "-1", "many", "٤", "1e9", "12345"])
async def test_a_count_of_routers_that_is_none_is_the_clients_fault(remote: Upstream, value: str):
    call = call_of("credit")
    call.metadata = {"croupier-hops": value}
    with pytest.raises(InvalidArgument, match="croupier-hops"):
        await remote(call)
