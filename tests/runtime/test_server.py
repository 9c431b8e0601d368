from __future__ import annotations

import asyncio

import httpx
from prometheus_client import CollectorRegistry

from runtime import __main__ as command
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.server import RuntimeService, application
from tests.runtime.models import Fake, put


def fake(settings, folder):
    return Fake(settings.name, settings.version)


async def get(app, path, **headers):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runtime") as client:
        return await client.get(path, headers=headers)


def test_a_server_that_stops_is_live_and_not_ready(tmp_path, monkeypatch):
    """So that no new work is sent to it while it finishes the old."""
    statuses = []

    async def serve(listener, *, started, stopping):
        started(["127.0.0.1:1"])
        for _ in range(2):
            health = [await get(listener.app, f"/v2/health/{each}") for each in ("live", "ready")]
            statuses.append([each.status_code for each in health])
            stopping()

    monkeypatch.setattr(command, "serve", serve)
    assert command.main([str(tmp_path)]) == 0
    assert statuses == [[200, 200], [200, 503]]


def test_the_server_says_who_it_is(tmp_path):
    async def scenario():
        service = RuntimeService(Engine(Repository(tmp_path), Metrics(CollectorRegistry())))
        told = await service.server_metadata()
        assert (told.name, list(told.extensions)) == ("croupier", ["model_repository"])
        assert told.version

    asyncio.run(scenario())


def test_the_index_has_all_models_or_those_that_are_ready(tmp_path):
    put(tmp_path, "loaded")
    put(tmp_path, "other")

    async def scenario():
        engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()), load=fake)
        service = RuntimeService(engine)
        await service.load("loaded")
        everything = await service.index(ready=False)
        assert [(each.name, each.state) for each in everything.models] == [
            ("loaded", "READY"),
            ("other", "UNAVAILABLE"),
        ]
        assert [each.name for each in (await service.index(ready=True)).models] == ["loaded"]
        await engine.close()

    asyncio.run(scenario())


def test_metrics_come_in_the_format_that_is_asked_for(tmp_path):
    registry = CollectorRegistry()
    service = RuntimeService(Engine(Repository(tmp_path), Metrics(registry)))
    app = application(service, registry)

    async def scenario():
        plain = await get(app, "/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        assert "runtime_unknown_model_requests_total 0.0" in plain.text
        open_metrics = await get(app, "/metrics", accept="application/openmetrics-text")
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")

    asyncio.run(scenario())
