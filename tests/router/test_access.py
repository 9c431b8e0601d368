from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest

from protos.errors import Code
from router.config import Client
from router.edge.access import Access, guarded, role_for
from router.edge.limits import Limits
from tests.router.fakes import FakeClock

pytestmark = pytest.mark.anyio

INFER = "/inference.GRPCInferenceService/ModelInfer"


def client(key: str, **settings) -> Client:
    return Client(key_sha256=hashlib.sha256(key.encode()).hexdigest(), **settings)


class Bench:
    """An application that says hello to those who are let in."""

    def __init__(self, **clients: Client) -> None:
        self.clock = FakeClock()
        self.access = Access(Limits(self.clock))
        self.access.use(clients)
        self.held: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.app = guarded(self._hello, self.access)

    async def _hello(self, scope, receive, send) -> None:
        self.arrived.set()
        if self.held is not None:
            await self.held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def ask(self, method: str, path: str, *, key: str = "", subject: str = "") -> tuple[int, str]:
        """Status and body of a REST request."""

        async def app(scope, receive, send) -> None:
            await self.app({**scope, "extensions": {"tls": {"client_cert_name": subject or None}}}, receive, send)

        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
            response = await http.request(method, path, headers=headers)
        return response.status_code, response.text

    async def call(self, path: str, *, key: str = "") -> dict[bytes, bytes]:
        """The trailers of a gRPC call that was refused."""
        sent: list[dict] = []

        async def send(message) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/grpc"), (b"authorization", f"Bearer {key}".encode())]

        async def receive() -> dict:
            raise AssertionError("nobody reads a call that is refused")

        await self.app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
        return dict(sent[-1].get("headers", ()))


async def test_without_clients_everybody_may_do_everything():
    assert await Bench().ask("POST", "/reload") == (200, "hello")


async def test_a_stranger_is_told_how_to_say_who_it_is():
    bench = Bench(desk=client("secret"))
    for key in ("", "wrong"):
        status, said = await bench.ask("POST", "/v2/models/r/infer", key=key)
        assert status == 401
        assert "authorization: Bearer KEY" in said
        assert "wrong" not in said
    assert (await bench.call(INFER, key="wrong"))[b"grpc-status"] == str(int(Code.UNAUTHENTICATED)).encode()


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v2/health/ready", None),
        ("POST", "/inference.GRPCInferenceService/ServerLive", None),
        ("GET", "/ready", None),
        ("GET", "/dashboard/page.js", None),
        ("GET", "/", None),
        ("POST", "/v2/models/r/infer", "infer"),
        ("POST", "/v2/models/r/versions/1/infer", "infer"),
        ("POST", INFER, "infer"),
        ("POST", "/inference.GRPCInferenceService/ModelStreamInfer", "infer"),
        ("POST", "/v1/routes/r/decide", "infer"),
        ("POST", "/v1/feedback", "feedback"),
        ("POST", "/v1/feedback/batch", "feedback"),
        ("POST", "/croupier.v1.Croupier/FeedbackBatch", "feedback"),
        ("GET", "/v1/routes/r", "read"),
        ("GET", "/metrics", "read"),
        ("POST", "/v2/repository/index", "read"),
        ("POST", "/inference.GRPCInferenceService/ModelMetadata", "read"),
        ("POST", "/croupier.v1.Croupier/DescribeRoute", "read"),
        ("POST", "/reload", "operate"),
        ("POST", "/v2/repository/models/m/load", "operate"),
        ("POST", "/croupier.v1.Croupier/SwitchArm", "operate"),
        ("POST", "/croupier.v1.Croupier/WhatNobodyThoughtOf", "operate"),
        ("POST", "/v2/models/r/infer/../../../../reload", "operate"),
        ("DELETE", "/v2/health/ready/x", "operate"),
    ],
)
def test_what_each_request_needs(method: str, path: str, role: str | None):
    assert role_for(method, path) == role


async def test_each_client_does_what_its_roles_allow():
    bench = Bench(desk=client("d"), risk=client("r", roles=frozenset({"read"})))
    assert await bench.ask("POST", "/v2/models/r/infer", key="d") == (200, "hello")
    assert await bench.ask("GET", "/v1/routes/r", key="r") == (200, "hello")
    status, said = await bench.ask("POST", "/v2/models/r/infer", key="r")
    assert (status, said) == (403, "{\"error\":\"client 'risk' has no role 'infer', which this needs\"}")
    assert (await bench.call(INFER, key="r"))[b"grpc-status"] == str(int(Code.PERMISSION_DENIED)).encode()
    assert await bench.ask("GET", "/v2/health/live") == (200, "hello")


async def test_a_certificate_says_who_it_is():
    bench = Bench(desk=Client(certificate="CN=desk,O=Bank"))
    assert await bench.ask("POST", "/v1/feedback", subject="CN=desk,O=Bank") == (200, "hello")
    assert (await bench.ask("POST", "/v1/feedback", subject="CN=desk"))[0] == 401
    assert (await bench.ask("POST", "/v1/feedback"))[0] == 401


async def test_a_client_asks_as_often_as_it_may_and_no_more():
    bench = Bench(desk=client("d", requests_per_second=2.0, burst=3), other=client("o"))
    asked = [(await bench.ask("POST", "/v1/feedback", key="d"))[0] for _ in range(5)]
    assert asked == [200, 200, 200, 429, 429]
    assert (await bench.ask("POST", "/v1/feedback", key="o"))[0] == 200
    bench.clock.advance(1.0)
    assert [(await bench.ask("POST", "/v1/feedback", key="d"))[0] for _ in range(3)] == [200, 200, 429]
    bench.clock.advance(1000.0)
    assert [(await bench.ask("POST", "/v1/feedback", key="d"))[0] for _ in range(4)] == [200, 200, 200, 429]


async def test_a_client_has_as_many_requests_in_flight_as_it_may():
    bench = Bench(desk=client("d", max_in_flight=1))
    bench.held = asyncio.Event()
    first = asyncio.create_task(bench.ask("POST", "/v1/feedback", key="d"))
    await bench.arrived.wait()
    assert (await bench.ask("POST", "/v1/feedback", key="d"))[0] == 429
    bench.held.set()
    assert (await first)[0] == 200
    assert (await bench.ask("POST", "/v1/feedback", key="d"))[0] == 200


async def test_other_clients_are_known_after_a_reload_and_those_that_stay_keep_their_count():
    desk = client("d", requests_per_second=1.0, burst=1)
    bench = Bench(desk=desk, old=client("o"))
    assert (await bench.ask("POST", "/v1/feedback", key="d"))[0] == 200
    bench.access.use({"desk": desk, "new": client("n")})
    assert [(await bench.ask("POST", "/v1/feedback", key=key))[0] for key in ("d", "o", "n")] == [429, 401, 200]
