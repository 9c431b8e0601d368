"""The gRPC application behind real servers, asked by grpcio.

All of it on h2corn, which we ship; some of it on hypercorn too, to prove that the server is only a choice.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec

import grpc
import httpx
import numpy as np
import pytest

from protos.errors import Code, UpstreamError
from protos.grpc import GrpcApp, Methods, Stream
from protos.messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    ServerLiveRequest,
    ServerLiveResponse,
)
from protos.rest import rest_app, v2_routes
from protos.serve import one_port
from protos.tensors import add_inputs, outputs_of
from protos.v2 import REPOSITORY_SERVICE, SERVICE, v2_methods
from tests.protos.echo import Echo

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
cancelled = threading.Event()
streaming_stopped = threading.Event()


async def echo(message, rpc):
    rpc.trailing += [(b"croupier-arm", b"champion"), (b"unit", rpc.metadata.get("unit", "nobody").encode())]
    return message


async def wait(_message, _rpc):
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return b""


async def refuse(_message, rpc):
    rpc.trailing.append((b"croupier-arm", b"champion"))
    raise UpstreamError(" größer als 100% – zu groß 模型: ", Code.RESOURCE_EXHAUSTED)


async def fail(_message, _rpc):
    raise KeyError("the secret")


@Stream
async def echoes(messages, _rpc):
    async for message in messages:
        yield message
        if message == b"stop":
            raise UpstreamError("stopped", Code.ABORTED)


@Stream
async def endless(_messages, _rpc):
    try:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(0)
    finally:
        streaming_stopped.set()


METHODS: Methods = {
    "/test.Service/echoes": echoes,
    "/test.Service/endless": endless,
    **{f"/test.Service/{each.__name__}": each for each in (echo, wait, refuse, fail)},
}


@contextmanager
def serving(run):
    """Runs `run(started, stop)` on a loop of its own in a thread; yields the address that it reports."""
    up: Future = Future()

    async def main():
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        await run(lambda address: up.set_result((address, loop, stop)), stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    address, loop, stop = up.result(30)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


def h2corn(app):
    from h2corn import Config, Server

    async def run(started, stop):
        server = Server(app, Config(bind=("127.0.0.1:0",), grpc=True, access_log=False, lifespan="off"))
        serve = asyncio.create_task(server.serve())
        await server.wait_started()
        started(server.addresses[0])
        await stop.wait()
        server.shutdown()
        await serve

    return serving(run)


def hypercorn(app):
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    async def run(started, stop):
        listening = socket.create_server(("127.0.0.1", 0))
        host, port = listening.getsockname()
        config = Config()
        config.bind = [f"fd://{listening.detach()}"]
        started(f"{host}:{port}")
        await serve(app, config, shutdown_trigger=stop.wait)

    return serving(run)


SERVERS = {"h2corn": h2corn, "hypercorn": hypercorn}


@pytest.fixture(scope="module")
def channel():
    with h2corn(GrpcApp(METHODS)) as address, grpc.insecure_channel(address, UNLIMITED) as channel:
        yield channel


@pytest.fixture(scope="module", params=SERVERS)
def any_channel(request):
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with SERVERS[request.param](GrpcApp(METHODS)) as address, grpc.insecure_channel(address, UNLIMITED) as channel:
        grpc.channel_ready_future(channel).result(30)
        yield channel


def unary(channel, method):
    return channel.unary_unary(f"/test.Service/{method}")


def stream(channel, method):
    return channel.stream_stream(f"/test.Service/{method}")


def failure(call, *arguments, **named):
    with pytest.raises(grpc.RpcError) as failed:
        call(*arguments, **named)
    return failed.value


# ------------------------------------------------------------------------------------------------------ any server


def test_a_unary_call_with_metadata(any_channel):
    reply, call = unary(any_channel, "echo").with_call(b"hello", metadata=[("unit", "customer-1")], timeout=30)
    assert reply == b"hello"
    trailing = dict(call.trailing_metadata())
    assert (trailing["croupier-arm"], trailing["unit"]) == ("champion", "customer-1")


def test_an_error_with_its_words_and_metadata(any_channel):
    error = failure(unary(any_channel, "refuse"), b"", timeout=30)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == " größer als 100% – zu groß 模型: "
    assert dict(error.trailing_metadata())["croupier-arm"] == "champion"


def test_a_failure_does_not_show_its_text(any_channel):
    error = failure(unary(any_channel, "fail"), b"", timeout=30)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has the traceback"


def test_messages_of_a_stream(any_channel):
    messages = [b"a", b"", b"c" * 100_000]
    assert list(stream(any_channel, "echoes")(iter(messages), timeout=30)) == messages


def test_a_stream_that_fails_in_the_middle(any_channel):
    call = stream(any_channel, "echoes")(iter([b"a", b"stop"]), timeout=30)
    assert [next(call), next(call)] == [b"a", b"stop"]
    error = failure(next, call)
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "stopped")


def test_a_large_message(any_channel):
    message = bytes(range(256)) * 4096  # 1 MiB: many frames, more than one flow-control window
    assert unary(any_channel, "echo")(message, timeout=60) == message


def test_a_deadline(any_channel):
    error = failure(unary(any_channel, "wait"), b"", timeout=0.2)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


# ---------------------------------------------------------------------------------------------------------- h2corn


def test_a_message_of_twenty_megabytes(channel):
    message = np.random.default_rng(0).bytes(20_000_000)
    assert unary(channel, "echo")(message, timeout=60) == message


def test_an_unknown_method(channel):
    """Not asked of hypercorn: it loses a connection whose call is answered before all of it has arrived."""
    error = failure(unary(channel, "other"), b"", timeout=30)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "unknown method /test.Service/other")


def test_gzip_from_the_client(channel):
    message = b"a" * 1_000_000
    assert unary(channel, "echo")(message, compression=grpc.Compression.Gzip, timeout=30) == message


def test_a_message_over_the_limit():
    with (
        h2corn(GrpcApp(METHODS, max_message=1000)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        error = failure(unary(channel, "echo"), bytes(2_000_000), timeout=30)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "the message has 2000000 bytes; the limit is 1000"


def test_a_cancelled_call_is_cancelled_in_its_handler(channel):
    cancelled.clear()
    call = unary(channel, "wait").future(b"")
    unary(channel, "echo")(b"", timeout=30)  # the server has seen the call before it
    call.cancel()
    assert cancelled.wait(30)


def test_a_passed_deadline_ends_its_handler(channel):
    cancelled.clear()
    failure(unary(channel, "wait"), b"", timeout=0.1)
    assert cancelled.wait(30)


def test_a_reader_that_leaves_ends_a_stream(channel):
    streaming_stopped.clear()
    call = stream(channel, "endless")(iter([]), timeout=60)
    next(call)
    call.cancel()
    assert streaming_stopped.wait(30)


def test_many_calls_at_once(channel):
    calls = [unary(channel, "echo").future(str(i).encode(), timeout=60) for i in range(500)]
    assert [int(call.result()) for call in calls] == list(range(500))


def test_a_very_long_error_message_reaches_the_client():
    async def verbose(_message, _rpc):
        raise UpstreamError("模" * 50_000, Code.ABORTED)

    with h2corn(GrpcApp({"/test.Service/verbose": verbose})) as address, grpc.insecure_channel(address) as channel:
        error = failure(unary(channel, "verbose"), b"", timeout=30)
    assert error.code() == grpc.StatusCode.ABORTED
    assert error.details().startswith("模模模")


# -------------------------------------------------------------------------------------- the V2 service on one port


@pytest.fixture(scope="module")
def v2():
    service = Echo()
    app = one_port(GrpcApp(v2_methods(service)), rest_app(v2_routes(service), max_body=1_000_000))
    with h2corn(app) as address, grpc.insecure_channel(address) as channel:
        yield address, channel


def ask(channel, method, request, response):
    call = channel.unary_unary(SERVICE + method, type(request).SerializeToString, response.FromString)
    return call(request, timeout=30)


def inference(model="echo"):
    request = ModelInferRequest(model_name=model, id="7")
    add_inputs(request, {"x": np.array([[1.5, np.nan]], np.float32)}, raw=True)
    return request


def test_v2_over_grpc(v2):
    _, channel = v2
    assert ask(channel, "ServerLive", ServerLiveRequest(), ServerLiveResponse).live
    assert ask(channel, "ModelReady", ModelReadyRequest(name="echo"), ModelReadyResponse).ready
    assert len(ask(channel, "RepositoryIndex", RepositoryIndexRequest(), RepositoryIndexResponse).models) == 1
    ask(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="echo"), RepositoryModelLoadResponse)
    response = ask(channel, "ModelInfer", inference(), ModelInferResponse)
    assert response.id == "7"
    np.testing.assert_array_equal(outputs_of(response)["x"], np.array([[1.5, np.nan]], np.float32))
    error = failure(ask, channel, "ModelInfer", inference("nobody"), ModelInferResponse)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "there is no model 'nobody'")


def test_the_repository_has_its_older_service_too(v2):
    """As MLServer's has: deprecated for years, and served."""
    _, channel = v2
    index = channel.unary_unary(REPOSITORY_SERVICE + "RepositoryIndex")(b"", timeout=30)
    assert [each.name for each in RepositoryIndexResponse.FromString(index).models] == ["echo"]
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        call = channel.unary_unary(REPOSITORY_SERVICE + method)
        request = RepositoryModelLoadRequest(model_name="nobody").SerializeToString()
        assert failure(call, request, timeout=30).code() == grpc.StatusCode.NOT_FOUND


def test_whether_a_model_is_ready_is_a_yes_or_no_even_for_one_that_is_not_there(v2):
    """Triton's clients take anything else for a failure."""
    _, channel = v2
    assert not ask(channel, "ModelReady", ModelReadyRequest(name="nobody"), ModelReadyResponse).ready


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics", "TraceSetting"])
def test_methods_of_triton_that_are_not_served_are_unimplemented(v2, method):
    _, channel = v2
    error = failure(channel.unary_unary(SERVICE + method), b"", timeout=30)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, f"unknown method {SERVICE}{method}")


def test_a_model_is_not_configured_by_a_request_where_nobody_says_how(v2):
    _, channel = v2
    request = RepositoryModelLoadRequest(model_name="echo")
    request.parameters["config"].string_param = "{}"
    error = failure(ask, channel, "RepositoryModelLoad", request, RepositoryModelLoadResponse)
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert error.details().startswith("parameter 'config' is not supported here")


def test_v2_streams_one_response_a_request(v2):
    _, channel = v2
    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
    )
    responses = list(call(iter([inference(), inference()]), timeout=30))
    assert [response.id for response in responses] == ["7", "7"]


def test_v2_over_rest_on_the_same_port(v2):
    address, _ = v2
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, None]}]}).encode()
    with httpx.Client(base_url=f"http://{address}") as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        for content, headers in ((body, {}), (gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"})):
            response = client.post("/v2/models/echo/infer", content=content, headers=headers)
            assert response.json()["outputs"][0]["data"] == [1.5, None]
            assert response.headers["croupier-decision"] == "d-1"
        assert client.get("/nowhere").json() == {"error": "there is no /nowhere here"}
        response = client.post("/v2/models/echo/infer", content=bytes(5_000_000))
        assert (response.status_code, list(response.json())) == (413, ["error"])


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_grpc_from_a_client_that_takes_no_trailers_is_refused_in_words(v2, version):
    """A status could not reach it."""
    address, _ = v2
    command = ["curl", "-s", "-H", "content-type: application/grpc", "--data-binary", "x"]
    command += ["--http2-prior-knowledge"] if version == "2" else []
    command += ["-w", "%{http_code}", f"http://{address}{SERVICE}ServerLive"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "gRPC needs HTTP/2 and the header te: trailers\n400"
