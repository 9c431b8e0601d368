"""Endpoints that models written for MLServer have of their own: methods marked by its `custom_handler`."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from collections import Counter
from contextlib import asynccontextmanager
from textwrap import dedent
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from protos.errors import FailedPrecondition
from runtime.endpoints import Endpoints
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Found, Repository
from runtime.server import RuntimeService, application
from runtime.settings import FILE
from runtime.transports import Transports
from tests.process import Runtime, until

pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")

SECONDS = 60

DESK = """
    from __future__ import annotations

    import asyncio
    from typing import Any
    from fastapi import HTTPException, Request
    from fastapi.responses import StreamingResponse
    from mlserver import MLModel, errors
    from mlserver.handlers import custom_handler
    from pydantic import BaseModel
    from tests.runtime import test_custom_handlers

    class Order(BaseModel):
        name: str
        count: int = 1

    class Model(MLModel):
        async def load(self):
            self.lock = asyncio.Lock()  # of the loop that it is first waited for in
            return True

        @custom_handler(rest_path="/sum")
        async def sum(self, values: list[float]) -> float:
            async with self.lock:
                await asyncio.sleep(0)
                return sum(values)

        @custom_handler(rest_path="/orders/{customer}/", rest_method="put")
        def order(self, customer: str, order: Order, fast: bool = False) -> dict[str, Any]:
            return {"model": self.name, "customer": customer, "order": order, "fast": fast}

        @custom_handler(rest_path="/orders/{customer}", rest_method="GET")
        def ask(self, customer: str) -> str:
            return customer

        @custom_handler(rest_path="/size")
        async def size(self, request: Request) -> dict[str, Any]:
            return {"size": len(await request.body()), "told": request.headers["content-length"]}

        @custom_handler(rest_path="/fail")
        async def fail(self, how: str) -> None:
            known = {"refuse": errors.InferenceError("wrong columns"), "status": HTTPException(418, "a teapot")}
            raise {**known, "exit": SystemExit(3)}[how]

        @custom_handler(rest_path="/count", rest_method="GET")
        async def count(self) -> StreamingResponse:
            async def each():
                for number in range(1_000_000):
                    test_custom_handlers.seen.made += 1
                    yield f"{number}\\n" * 1000

            return StreamingResponse(each(), media_type="text/plain")

        @custom_handler(rest_path="/wait")
        async def wait(self) -> str:
            test_custom_handlers.seen.entered.release()
            while not test_custom_handlers.seen.open.is_set():
                await asyncio.sleep(0.001)
            return "waited"
"""

ONE = """
    from mlserver import MLModel
    from mlserver.handlers import custom_handler

    class Model(MLModel):
        @custom_handler(rest_path="{path}", rest_method="{method}")
        async def one(self):
            return "{says}"
"""


class Seen:
    """What a model did and what it waits for; the models of these tests find it by importing this module."""

    def __init__(self):
        self.made = 0
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()


seen = Seen()


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(f"{__name__}.seen", Seen())


def written(root, code, path="m", **settings):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"implementation": "models.Model", **settings}))
    (folder / "models.py").write_text(dedent(code))


def one(root, path, name="m", method="GET", says="", **settings):
    written(root, ONE.format(path=path, method=method, says=says), name, **settings)


@asynccontextmanager
async def serving(root):
    """An engine of what is there now, the application around it, and a client of that."""
    registry = CollectorRegistry()
    engine = Engine(Repository(root), Metrics(registry))
    app = application(RuntimeService(engine), registry, transports=Transports(registry))
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=SECONDS) as client:
            await engine.load_all()
            yield SimpleNamespace(engine=engine, client=client, app=app, registry=registry)
    finally:
        await engine.close()


def served(root, scenario):
    async def whole():
        async with serving(root) as server:
            await asyncio.wait_for(scenario(server), SECONDS)

    asyncio.run(whole())


async def reason(server, name="m"):
    """Why a model was not loaded, or was not loaded again."""
    (found,) = [entry for entry in await server.engine.index() if entry.name == name]
    return found.reason


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A client of a real server whose workers each have the model."""
    root = tmp_path_factory.mktemp("models")
    written(root, DESK, parameters={"extra": {"max_queue": 2}})
    with (
        Runtime(root, tmp_path_factory.mktemp("server"), "--workers", "2") as process,
        httpx.Client(base_url=f"http://{process.address}", timeout=SECONDS) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "expected"),
    [
        ("POST", "/sum", {"json": [1, 2.5]}, 200, 3.5),
        ("POST", "/sum/", {"json": [1, 2.5]}, 200, 3.5),
        ("POST", "/sum", {"json": ["a"]}, 422, {"error": "body.0: Input should be a valid number, unable to parse "}),
        ("POST", "/sum", {}, 422, {"error": "body: Field required"}),
        ("POST", "/sum", {"content": b"[1,"}, 422, {"error": "body.3: JSON decode error"}),
        ("GET", "/sum", {}, 405, {"error": "/sum does not take GET; it takes POST"}),
        (
            "PUT",
            "/orders/ann?fast=true",
            {"json": {"name": "x"}},
            200,
            {"model": "m", "customer": "ann", "order": {"name": "x", "count": 1}, "fast": True},
        ),
        ("PUT", "/orders/ann", {"json": {}}, 422, {"error": "body.name: Field required"}),
        ("GET", "/orders/ann", {}, 200, "ann"),
        ("POST", "/size", {"content": b"a" * 99}, 200, {"size": 99, "told": "99"}),
        ("POST", "/fail?how=refuse", {}, 422, {"error": "wrong columns"}),
        ("POST", "/fail?how=status", {}, 418, {"detail": "a teapot"}),
        ("POST", "/fail?how=other", {}, 500, {"error": "model 'm' failed: KeyError: 'other'"}),
        ("POST", "/fail?how=exit", {}, 500, {"error": "model 'm' failed: SystemExit: 3"}),
    ],
)
def test_a_method_takes_and_answers_what_fastapi_makes_of_it(desk, method, path, sent, status, expected):
    response = desk.request(method, path, **sent)
    assert response.status_code == status
    found = response.json()
    if "error" in dict(found if isinstance(found, dict) else {}):
        assert found["error"].startswith(expected["error"])
    else:
        assert found == expected


def test_a_body_may_be_packed_and_no_longer_than_others(desk):
    packed = gzip.compress(b"a" * 99)
    headers = {"content-encoding": "gzip"}
    assert desk.post("/size", content=packed, headers=headers).json() == {"size": 99, "told": "99"}
    refused = desk.post("/size", content=gzip.compress(bytes(1 << 27)), headers=headers)
    assert (refused.status_code, refused.json()["error"][:22]) == (413, "the body has more than")


def test_head_is_get_without_the_content(desk):
    response = desk.head("/orders/ann")
    assert (response.status_code, response.content) == (200, b"")


def test_every_worker_mounts_and_unmounts_them(desk):
    def statuses():
        alone = httpx.Limits(max_keepalive_connections=0)  # so that another worker may answer each
        with httpx.Client(base_url=desk.base_url, limits=alone, timeout=SECONDS) as client:
            return {client.get("/orders/ann").status_code for _ in range(24)}

    assert statuses() == {200}
    desk.post("/v2/repository/models/m/unload").raise_for_status()
    assert statuses() == {404}
    desk.post("/v2/repository/models/m/load").raise_for_status()
    assert statuses() == {200}


def test_an_answer_is_made_as_it_is_taken_and_no_longer_when_its_reader_leaves(tmp_path):
    written(tmp_path, DESK)

    async def scenario(server):
        events: asyncio.Queue = asyncio.Queue(1)
        gone = asyncio.Event()
        body = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive():
            if body:
                return body.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/count",
            "headers": [],
            "query_string": b"",
            "extensions": {},
        }
        call = asyncio.create_task(server.app(scope, receive, events.put))
        assert (await events.get())["status"] == 200
        assert (await events.get())["body"] == b"0\n" * 1000
        assert seen.made < 10  # of a million
        gone.set()
        while not call.done():
            await asyncio.wait([call, asyncio.ensure_future(events.get())], return_when=asyncio.FIRST_COMPLETED)
        assert seen.made < 1000

    served(tmp_path, scenario)


def test_unloading_waits_for_the_calls_that_are_there_and_takes_no_more(tmp_path):
    written(tmp_path, DESK)

    async def scenario(server):
        call = asyncio.create_task(server.client.post("/wait"))
        await asyncio.to_thread(seen.entered.acquire, timeout=SECONDS)
        unloading = asyncio.create_task(server.engine.unload("m"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await server.client.post("/wait")).status_code == 404
        assert not unloading.done()
        seen.open.set()
        assert (await call).json() == "waited"
        await unloading

    served(tmp_path, scenario)


def test_a_full_queue_refuses(tmp_path):
    written(tmp_path, DESK, parameters={"extra": {"max_queue": 1}})

    async def scenario(server):
        calls = [asyncio.create_task(server.client.post("/wait")) for _ in range(2)]
        for _ in calls:
            await asyncio.to_thread(seen.entered.acquire, timeout=SECONDS)
        assert (await server.client.post("/wait")).status_code == 429
        seen.open.set()
        assert [(await call).status_code for call in calls] == [200, 200]

    served(tmp_path, scenario)


def test_they_are_counted_by_the_paths_of_their_routes(tmp_path):
    written(tmp_path, DESK)

    async def scenario(server):
        await server.client.get("/orders/ann")
        await server.client.get("/orders/bob")
        labels = {"method": "GET", "path": "/orders/{customer}", "status_code": "200", "app_name": "mlserver"}
        assert server.registry.get_sample_value("rest_server_requests_total", labels) == 2

    served(tmp_path, scenario)


def test_a_reload_swaps_them(tmp_path):
    one(tmp_path, "/old", says="old")

    async def scenario(server):
        assert (await server.client.get("/old")).json() == "old"
        one(tmp_path, "/new", says="new")
        await server.engine.load("m")
        assert (await server.client.get("/new")).json() == "new"
        assert (await server.client.get("/old")).status_code == 404
        one(tmp_path, "/new", says="newer still")
        await server.engine.load("m")
        assert (await server.client.get("/new")).json() == "newer still"

    served(tmp_path, scenario)


def test_of_several_versions_the_newest_answers(tmp_path):
    for version in ("9", "10"):
        code = ONE.format(path="/one", method="GET", says=version)
        written(tmp_path, code, f"m/{version}", name="m", parameters={"version": version})

    async def scenario(server):
        assert (await server.client.get("/one")).json() == "10"

    served(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/v2/health/live", "GET /v2/health/live: the server has GET /v2/health/live; give it another"),
        ("GET", "/v2/models/mine", "GET /v2/models/mine: the server has GET /v2/models/{model}; give it another"),
        ("POST", "/v2/models/{m}/infer", "POST /v2/models/{m}/infer: the server has POST /v2/models/{model}/infer"),
        ("GET", "/{rest:path}", "GET /{rest:path}: the server has GET "),
        ("GET", "/metrics", "GET /metrics: the server has GET /metrics"),
        ("GET", "/v2/docs", "GET /v2/docs: the server has GET /v2/docs"),
        ("GET", "mine", "GET mine: Routed paths must start with '/'"),
    ],
)
def test_a_path_that_is_the_servers_is_refused_at_load(tmp_path, method, path, says):
    one(tmp_path, path, method=method)

    async def scenario(server):
        assert f"endpoint {says}" in await reason(server)
        assert (await server.client.get("/v2/health/live")).json() == {"live": True}

    served(tmp_path, scenario)


def test_another_method_at_a_path_of_the_server_is_free(tmp_path):
    one(tmp_path, "/v2/health/live", method="DELETE", says="gone")

    async def scenario(server):
        assert (await server.client.delete("/v2/health/live")).json() == "gone"

    served(tmp_path, scenario)


def test_a_path_that_another_model_has_is_refused_until_that_one_is_gone(tmp_path):
    one(tmp_path, "/one/x", "a", says="a")

    async def scenario(server):
        one(tmp_path, "/{any}/x", "b", says="b")
        threads = threading.active_count()
        with pytest.raises(FailedPrecondition, match=r"endpoint GET /{any}/x: model 'a' has GET /one/x; give it"):
            await server.engine.load("b")
        until(lambda: threading.active_count() <= threads + 1)  # a loader may be new; the model's thread has ended
        assert (await server.client.get("/one/x")).json() == "a"
        await server.engine.unload("a")
        await server.engine.load("b")
        assert (await server.client.get("/one/x")).json() == "b"

    served(tmp_path, scenario)


def test_of_two_that_load_at_a_time_one_gets_a_path(tmp_path, monkeypatch):
    both, looked, fingerprint = threading.Barrier(2), Counter[str](), Found.fingerprint

    def side_by_side(found):
        looked[found.name] += 1
        if looked[found.name] == 2:  # once it is loaded
            both.wait(SECONDS)
        return fingerprint(found)

    async def scenario(server):
        for name in ("a", "b"):
            one(tmp_path, "/x", name, says="x")
        monkeypatch.setattr(Found, "fingerprint", side_by_side)
        ends = await asyncio.gather(server.engine.load("a"), server.engine.load("b"), return_exceptions=True)
        refused = [str(end) for end in ends if end is not None]
        assert len(refused) == 1
        assert re.search(r"endpoint GET /x: model '[ab]' has GET /x; give it another rest_path", refused[0])
        assert (await server.client.get("/x")).json() == "x"

    served(tmp_path, scenario)


def test_a_reload_that_is_refused_leaves_the_old_endpoints(tmp_path):
    one(tmp_path, "/a", "a", says="a")
    one(tmp_path, "/b", "b", says="b")

    async def scenario(server):
        one(tmp_path, "/a", "b", says="b")
        with pytest.raises(FailedPrecondition):
            await server.engine.load("b")
        assert [(await server.client.get(path)).json() for path in ("/a", "/b")] == ["a", "b"]

    served(tmp_path, scenario)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            """
            @custom_handler(rest_path="/one")
            async def first(self): ...

            @custom_handler(rest_path="/one")
            async def second(self): ...
            """,
            "endpoint POST /one: two methods of Model are there; only one can answer",
        ),
        (
            """
            @custom_handler(rest_path="/one")
            async def first(self, x: threading.Lock): ...
            """,
            "endpoint POST /one: ",
        ),
    ],
)
def test_a_method_that_cannot_answer_is_refused_at_load(tmp_path, code, says):
    head = """
    import threading
    from mlserver import MLModel
    from mlserver.handlers import custom_handler

    class Model(MLModel):
    """
    written(tmp_path, dedent(head) + "\n".join(f"    {line}" for line in dedent(code).splitlines()))

    async def scenario(server):
        assert says in await reason(server)

    served(tmp_path, scenario)


class Mounted:
    """A servable of which nothing but its routes matters."""

    memory = 0
    shares_runs = False

    def __init__(self, path, method="GET"):
        self.routes = [Route(path, self.infer, methods=[method])]

    def admit(self): ...

    async def infer(self, request, deadline, rpc=None): ...

    def metadata(self): ...

    async def close(self): ...


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("/a", "/a", True),
        ("/a", "/b", False),
        ("/a", "/a/b", False),
        ("/a/{x}", "/a/b", True),
        ("/a/{x}", "/{y}/b", True),
        ("/a/{x}", "/a", False),
        ("/a/{x}/c", "/a/b/d", False),
        ("/a/{x:path}", "/a/b/c/d", True),
        ("/a/{x:path}", "/b/c", False),
        ("/a/{x:int}", "/a/b", True),  # more than is needed, and told at once
    ],
)
def test_paths_meet_where_one_request_could_be_meant_for_both(one, other, meet):
    for mine, theirs in ((one, other), (other, one)):
        endpoints = Endpoints()
        endpoints.behind(Mounted(theirs).routes)
        endpoints.check("m", Mounted(mine, "POST"))
        if meet:
            with pytest.raises(FailedPrecondition, match="the server has GET"):
                endpoints.check("m", Mounted(mine))
        else:
            endpoints.check("m", Mounted(mine))
