from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest

from protos.errors import Code
from router.config import Arm, Client, Config, Route, Tls
from router.edge.access import Access, asking, guarded, open_to_all, roles_for
from router.edge.limits import Limits
from router.server import Router
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
        self.asked: list[str] = []  # the clients, as the application knows them
        self.app = guarded(self._hello, self.access)

    async def _hello(self, scope, receive, send) -> None:
        self.arrived.set()
        self.asked.append(asking.get())
        if self.held is not None:
            await self.held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def ask(self, method: str, path: str, **who: str) -> tuple[int, str]:
        """Status and body of a REST request."""
        response = await self.answer(method, path, **who)
        return response.status_code, response.text

    async def answer(
        self, method: str, path: str, *, key: str = "", subject: str = "", scheme: str = "Bearer"
    ) -> httpx.Response:
        """What is answered to a REST request."""

        async def app(scope, receive, send) -> None:
            await self.app({**scope, "extensions": {"tls": {"client_cert_name": subject or None}}}, receive, send)

        headers = {"authorization": f"{scheme} {key}"} if key else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
            return await http.request(method, path, headers=headers)

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
    assert (await bench.answer("POST", "/v2/models/r/infer")).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_scheme_may_be_written_in_any_case_and_is_bearer(scheme: str):
    bench = Bench(desk=client("d"))
    assert (await bench.answer("POST", "/v1/feedback", key="d", scheme=scheme)).status_code == 200
    assert (await bench.answer("POST", "/v1/feedback", key="d", scheme="Basic")).status_code == 401


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
        ("POST", "/inference.GRPCInferenceService/RepositoryIndex", "read"),
        ("POST", "/inference.GRPCInferenceService/ModelMetadata", "infer/read"),
        ("POST", "/inference.GRPCInferenceService/ModelReady", "infer/read"),
        ("GET", "/v2", "infer/read"),
        ("GET", "/v2/models/r", "infer/read"),
        ("GET", "/v2/models/r/versions/1/ready", "infer/read"),
        ("GET", "/v2/models/r/stats", "read"),
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
    assert roles_for(method, path) == (None if role is None else tuple(role.split("/")))


async def test_each_client_does_what_its_roles_allow():
    bench = Bench(desk=client("d"), risk=client("r", roles=frozenset({"read"})))
    assert await bench.ask("POST", "/v2/models/r/infer", key="d") == (200, "hello")
    assert await bench.ask("GET", "/v1/routes/r", key="r") == (200, "hello")
    status, said = await bench.ask("POST", "/v2/models/r/infer", key="r")
    assert (status, said) == (403, "{\"error\":\"client 'risk' has no role 'infer', which this needs\"}")
    assert (await bench.call(INFER, key="r"))[b"grpc-status"] == str(int(Code.PERMISSION_DENIED)).encode()
    assert await bench.ask("GET", "/v2/health/live") == (200, "hello")


async def test_the_application_knows_which_client_asks():
    bench = Bench(desk=client("d"), risk=client("r", roles=frozenset({"read"})))
    await asyncio.gather(bench.ask("POST", "/v1/feedback", key="d"), bench.ask("GET", "/v1/routes/r", key="r"))
    await bench.ask("GET", "/v2/health/live", key="d")
    assert sorted(bench.asked) == ["", "desk", "risk"]
    bench.access.use({})
    await bench.ask("GET", "/v1/routes/r", key="r")
    assert bench.asked[-1] == ""


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


async def test_who_asks_too_often_is_told_when_to_ask_again():
    bench = Bench(desk=client("d", requests_per_second=0.1, burst=1))
    assert (await bench.answer("POST", "/v1/feedback", key="d")).status_code == 200
    bench.clock.advance(3.0)
    wait = (await bench.answer("POST", "/v1/feedback", key="d")).headers["retry-after"]
    assert wait == "7"
    bench.clock.advance(float(wait))
    assert (await bench.answer("POST", "/v1/feedback", key="d")).status_code == 200


async def test_a_client_has_as_many_requests_in_flight_as_it_may():
    bench = Bench(desk=client("d", max_in_flight=1))
    bench.held = asyncio.Event()
    first = asyncio.create_task(bench.ask("POST", "/v1/feedback", key="d"))
    await bench.arrived.wait()
    refused = await bench.answer("POST", "/v1/feedback", key="d")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    bench.held.set()
    assert (await first)[0] == 200
    assert (await bench.ask("POST", "/v1/feedback", key="d"))[0] == 200


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, []),
        ({"admin": "0.0.0.0:8082"}, ["0.0.0.0:8082"]),
        ({"listen": "[::]:8080", "admin": "10.0.0.7:8082"}, ["[::]:8080", "10.0.0.7:8082"]),
        ({"listen": "router.bank:8080", "admin": "[::1]:8082"}, ["router.bank:8080"]),
        ({"listen": "localhost:8080", "admin": "127.1.2.3:8082"}, []),
        ({"admin": "0.0.0.0:8082", "clients": {"desk": client("d")}}, []),
        ({"admin": "0.0.0.0:8082", "admin_tls": Tls(certificate="c", key="k")}, ["0.0.0.0:8082"]),
        ({"admin": "0.0.0.0:8082", "admin_tls": Tls(certificate="c", key="k", client_ca="a")}, []),
    ],
)
def test_it_is_known_where_anybody_may_do_everything(more: dict, found: list[str]):
    routes = {"r": Route(arms={"a": Arm(model="m", target="h:1")})}
    assert open_to_all(Config(routes=routes, **more)) == found


async def test_a_router_that_lets_a_network_do_everything_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    routes = {"r": Route(arms={"a": Arm(model="m", target="h:1")})}
    router = Router(tmp_path / "routes.yaml", Config(routes=routes, store="memory:", admin="0.0.0.0:8082"))
    assert "whoever reaches 0.0.0.0:8082 may do everything there" in caplog.text
    await router.close()


async def test_other_clients_are_known_after_a_reload_and_those_that_stay_keep_their_count():
    desk = client("d", requests_per_second=1.0, burst=1)
    bench = Bench(desk=desk, old=client("o"))
    assert (await bench.ask("POST", "/v1/feedback", key="d"))[0] == 200
    bench.access.use({"desk": desk, "new": client("n")})
    assert [(await bench.ask("POST", "/v1/feedback", key=key))[0] for key in ("d", "o", "n")] == [429, 401, 200]
