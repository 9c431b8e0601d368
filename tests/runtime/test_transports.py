"""What is counted of each transport, and that nothing of it is a client's word."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect, Request

from protos.errors import NotFound
from protos.framing import Disconnected
from protos.grpc import Rpc
from protos.messages import ModelInferRequest
from protos.openapi import document
from protos.rest import rest_app, v2_routes
from protos.v2 import SERVICE, v2_methods
from runtime.transports import Transports
from tests.protos.echo import Echo
from tests.protos.http import MAX_BODY, ask_app, tensor

UNARY = {"grpc_type": "UNARY", "grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
STREAM = {**UNARY, "grpc_type": "BIDI_STREAMING", "grpc_method": "ModelStreamInfer"}
POST = {"method": "POST", "path": "/v2/models/{model_name}/infer", "app_name": "mlserver"}


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def transports(registry):
    return Transports(registry)


def counted(registry, name, **labels):
    """A sample's value; None when there is none."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = [each.value for family in families for each in family.samples if (each.name, each.labels) == (name, labels)]
    return found[0] if found else None


def asked(model="echo"):
    return ModelInferRequest(model_name=model).SerializeToString()


def test_a_call_is_counted_by_its_method_and_status(registry, transports):
    infer = transports.grpc(v2_methods(Echo()))[SERVICE + "ModelInfer"]

    async def scenario():
        for _ in range(2):
            await infer(asked(), Rpc([]))
        with pytest.raises(NotFound):
            await infer(asked("nobody"), Rpc([]))

    asyncio.run(scenario())
    assert counted(registry, "grpc_server_started_total", **UNARY) == 3
    assert counted(registry, "grpc_server_handled_total", **UNARY, grpc_code="OK") == 2
    assert counted(registry, "grpc_server_handled_total", **UNARY, grpc_code="NOT_FOUND") == 1
    assert counted(registry, "grpc_server_handling_seconds_count", **UNARY) == 3
    assert "nobody" not in generate_latest(registry).decode()


@pytest.mark.parametrize(("left", "code"), [(60, "CANCELLED"), (0, "DEADLINE_EXCEEDED")])
def test_who_left_and_who_was_late_are_told_apart(registry, transports, left, code):
    class Never(Echo):
        async def infer(self, body, rpc):
            await asyncio.Event().wait()

    infer = transports.grpc(v2_methods(Never()))[SERVICE + "ModelInfer"]

    async def scenario():
        call = asyncio.create_task(infer(asked(), Rpc([], asyncio.get_running_loop().time() + left)))
        await asyncio.sleep(0)
        assert counted(registry, "grpc_server_started_total", **UNARY) == 1
        call.cancel()
        await asyncio.wait([call])

    asyncio.run(scenario())
    assert counted(registry, "grpc_server_handled_total", **UNARY, grpc_code=code) == 1


def test_the_messages_of_streams_are_counted(registry, transports):
    stream = transports.grpc(v2_methods(Echo()))[SERVICE + "ModelStreamInfer"]

    async def bodies():
        for _ in range(3):
            yield asked()

    async def scenario():
        assert len([each async for each in stream.handler(bodies(), Rpc([]))]) == 3

    asyncio.run(scenario())
    assert counted(registry, "grpc_server_msg_received_total", **STREAM) == 3
    assert counted(registry, "grpc_server_msg_sent_total", **STREAM) == 3
    assert counted(registry, "grpc_server_handled_total", **STREAM, grpc_code="OK") == 1


def test_a_request_is_counted_by_its_route_and_status(registry, transports):
    app = rest_app(transports.rest(v2_routes(Echo())), max_body=MAX_BODY)
    body = json.dumps({"inputs": [tensor()]})
    for model in ("echo", "echo", "nobody"):
        ask_app(app, "POST", f"/v2/models/{model}/infer", content=body)
    for path in ("/v2/health/live", "/v2/health/ready", "/secret/path"):
        ask_app(app, "GET", path)
    assert counted(registry, "rest_server_requests_total", **POST, status_code="200") == 2
    assert counted(registry, "rest_server_requests_total", **POST, status_code="404") == 1
    assert counted(registry, "rest_server_request_duration_seconds_count", **POST, status_code="200") == 2
    assert counted(registry, "rest_server_requests_in_progress", method="POST", app_name="mlserver") == 0
    told = generate_latest(registry).decode()
    assert not any(word in told for word in ("nobody", "secret", "health"))


@pytest.mark.parametrize("leaving", [asyncio.CancelledError, ClientDisconnect])
def test_a_request_whose_client_left_is_no_failure_of_the_server(registry, transports, leaving):
    class Left(Echo):
        async def infer(self, body, rpc):
            raise leaving

    infer = transports.rest(v2_routes(Left()))[0].endpoint

    async def scenario():
        async def receive():
            return {"type": "http.request", "body": json.dumps({"inputs": [tensor()]}).encode()}

        scope = {"type": "http", "method": "POST", "headers": [], "path_params": {"model": "echo"}}
        with pytest.raises(leaving):
            await infer(Request(scope, receive))

    asyncio.run(scenario())
    assert counted(registry, "rest_server_requests_total", **POST, status_code="499") == 1


def test_a_stream_whose_client_left_is_cancelled(registry, transports):
    stream = transports.grpc(v2_methods(Echo()))[SERVICE + "ModelStreamInfer"]

    async def bodies():
        yield asked()
        raise Disconnected

    async def scenario():
        with pytest.raises(Disconnected):
            [each async for each in stream.handler(bodies(), Rpc([]))]

    asyncio.run(scenario())
    assert counted(registry, "grpc_server_handled_total", **STREAM, grpc_code="CANCELLED") == 1


def test_what_is_counted_twice_over_adds_up(registry, transports):
    """As where a port of its own speaks the same as another."""
    for _ in range(2):
        infer = transports.grpc(v2_methods(Echo()))[SERVICE + "ModelInfer"]
        asyncio.run(infer(asked(), Rpc([])))
    assert counted(registry, "grpc_server_started_total", **UNARY) == 2


def test_a_counted_route_is_described_as_before(transports):
    routes = v2_routes(Echo())
    assert document("t", "1", transports.rest(routes)) == document("t", "1", routes)
