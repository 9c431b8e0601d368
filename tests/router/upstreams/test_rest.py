"""What an upstream behind REST has to get right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from protos.errors import (
    CallError,
    Code,
    DeadlineExceeded,
    Fault,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    UpstreamError,
)
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs, outputs_of
from router.call import Call
from router.upstreams import Upstream
from router.upstreams.v2_json import body_of, response_of
from tests.router.fakes import SOON, FakeUpstream, call_of
from tests.router.serving import FakeServer, serving
from tests.router.upstreams.servers import MODEL, answer, both, free_address, listening, upstream_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def model() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
async def there(model: FakeUpstream) -> AsyncIterator[tuple[FakeServer, str]]:
    server, app = both(model)
    async with serving(app) as address:
        yield server, address


@pytest.fixture
async def upstream(there: tuple[FakeServer, str]) -> AsyncIterator[Upstream]:
    async with upstream_of(model=MODEL, url=f"http://{there[1]}", timeout_seconds=3.0) as upstream:
        yield upstream


async def test_parameters_id_and_wanted_outputs_go_along(upstream: Upstream, model: FakeUpstream):
    call = call_of("credit", x=[1.0], id="r1")
    call.request.parameters["unit"].string_param = "jane"
    call.request.inputs[0].parameters["age"].int64_param = 3
    call.request.outputs.add(name="y")
    await upstream(call)
    (passed,) = (call.request for call in model.calls)
    assert (passed.model_name, passed.id) == ("double", "r1")
    assert passed.parameters["unit"].string_param == "jane"
    assert passed.inputs[0].parameters["age"].int64_param == 3
    assert [output.name for output in passed.outputs] == ["y"]


@pytest.mark.parametrize(
    ("error", "code", "fault", "retry"),
    [
        (InvalidArgument("input 'x' is missing"), Code.INVALID_ARGUMENT, Fault.CLIENT, False),
        (ResourceExhausted("the queue is full"), Code.RESOURCE_EXHAUSTED, Fault.SERVER, True),
        (DeadlineExceeded("too late"), Code.DEADLINE_EXCEEDED, Fault.UPSTREAM, True),
        (Unavailable("loading"), Code.UNAVAILABLE, Fault.UPSTREAM, True),
        (NotFound("no such model"), Code.INTERNAL, Fault.UPSTREAM, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_there_becomes_ours(
    upstream: Upstream, model: FakeUpstream, error: CallError, code: Code, fault: Fault, retry: bool
):
    model.fail(error)
    with pytest.raises(CallError, match=error.message) as failed:
        await upstream(call_of("credit"))
    assert (failed.value.code, failed.value.fault, failed.value.retry) == (code, fault, retry)


async def test_a_url_may_have_a_path_and_a_model_a_version_and_any_name():
    seen: list[str] = []

    async def app(scope, receive, send):
        seen.append(scope["raw_path"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with (
        serving(app) as address,
        upstream_of(model="a/b c", version="2", url=f"http://{address}/models/eu/") as upstream,
    ):
        assert await upstream.ready()
    assert seen == ["/models/eu/v2/models/a%2Fb%20c/versions/2/ready"]


async def test_where_nobody_listens_the_error_names_the_url():
    url = f"http://{free_address()}"
    async with upstream_of(model=MODEL, url=url) as upstream:
        for asked in (upstream(call_of("credit")), upstream.metadata()):
            with pytest.raises(UpstreamError, match=url) as failed:
                await asked
            assert (failed.value.code, failed.value.retry) == (Code.UNAVAILABLE, True)
        assert not await upstream.ready()


async def test_an_upstream_that_hangs_has_failed(there: tuple[FakeServer, str], model: FakeUpstream):
    async with upstream_of(model=MODEL, url=f"http://{there[1]}", timeout_seconds=0.1) as upstream:
        held = model.hold()
        with pytest.raises(UpstreamError, match="did not answer within") as failed:
            await upstream(call_of("credit"))
        assert failed.value.code is Code.DEADLINE_EXCEEDED
        held.release()


async def test_a_deadline_that_passes_there_is_the_callers(upstream: Upstream, model: FakeUpstream):
    held = model.hold()
    call = call_of("credit")
    call.deadline = asyncio.get_running_loop().time() + 0.1
    with pytest.raises(DeadlineExceeded, match="before the upstream answered"):
        await upstream(call)
    held.release()


async def test_trace_and_hops_are_passed_on(upstream: Upstream, there: tuple[FakeServer, str]):
    call = call_of("credit")
    call.metadata = {"traceparent": "00-ab-cd-01", "croupier-hops": "2", "cookie": "secret"}
    await upstream(call)
    (rpc,) = there[0].rpcs
    assert (rpc.metadata["traceparent"], rpc.metadata["croupier-hops"]) == ("00-ab-cd-01", "3")
    assert "secret" not in rpc.metadata.values()


async def test_what_json_cannot_say_is_the_clients_fault(upstream: Upstream):
    request = ModelInferRequest()
    add_inputs(request, {"x": np.array([b"\xff\xfe"], np.object_)}, raw=True)
    with pytest.raises(InvalidArgument, match="'x'"):
        await upstream(Call("credit", request, request.SerializeToString()))


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"{}", b'{"outputs":[{"name":"y","datatype":"FP64","shape":[2],"data":[1]}]}']
)
async def test_an_answer_that_is_none_is_the_arms_failure(body: bytes):
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async with listening(odd) as address, upstream_of(model=MODEL, url=f"http://{address}") as upstream:
        with pytest.raises(UpstreamError, match="not a V2 answer"):
            await upstream(call_of("credit"))


async def test_closing_waits_for_calls_in_flight(there: tuple[FakeServer, str], model: FakeUpstream):
    connected = upstream_of(model=MODEL, url=f"http://{there[1]}")
    upstream = await connected.__aenter__()
    held = model.hold()
    call = asyncio.create_task(upstream(call_of("credit", id="last")))
    await asyncio.wait_for(held.arrived.wait(), SOON)
    closing = asyncio.create_task(connected.__aexit__(None, None, None))
    await asyncio.sleep(0.01)
    assert not closing.done()
    held.release()
    assert answer(await call).id == "last"
    await asyncio.wait_for(closing, SOON)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", "float64"])
def test_numbers_come_through_json_as_they_are(dtype: str):
    numbers = np.array([[0, 1], [1, 0]], dtype) if dtype == "bool" else np.array([[0.1, 1], [2, 3]]).astype(dtype)
    request = ModelInferRequest(id="r1")
    add_inputs(request, {"y": numbers}, raw=True)
    told = body_of(request).replace(b'"inputs"', b'"outputs"')
    np.testing.assert_array_equal(outputs_of(response_of(told))["y"], numbers)
    assert outputs_of(response_of(told))["y"].dtype == numbers.dtype
