from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import NotFound
from runtime import __main__ as command
from runtime import process
from runtime.devices import lost
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

    async def serve(listener, *, started, stopping, drain_seconds):
        started(["127.0.0.1:1"])
        for then in (stopping, list):
            health = [await get(listener.app, f"/v2/health/{each}") for each in ("live", "ready")]
            statuses.append([each.status_code for each in health])
            then()

    monkeypatch.setattr(process, "serve", serve)
    assert command.main([str(tmp_path)]) == 0
    assert statuses == [[200, 200], [200, 503]]


def test_a_server_that_has_lost_its_gpu_is_not_live(tmp_path, monkeypatch):
    """So that whoever watches it starts it anew, which alone brings the GPU back."""
    monkeypatch.setitem(lost, "cuda:0", "an illegal access")
    service = RuntimeService(Engine(Repository(tmp_path), Metrics(CollectorRegistry())))
    assert not asyncio.run(service.live())


def test_the_server_says_who_it_is(tmp_path):
    async def scenario():
        service = RuntimeService(Engine(Repository(tmp_path), Metrics(CollectorRegistry())))
        told = await service.server_metadata()
        assert told.name == "croupier"
        assert list(told.extensions) == [
            "binary_tensor_data",
            "model_configuration",
            "model_repository",
            "parameters",
            "statistics",
        ]
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


def test_no_name_is_the_name_of_no_model(tmp_path):
    """And not of all of them, as it is where statistics are asked for."""
    put(tmp_path, "m")

    async def scenario():
        engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()), load=fake)
        service = RuntimeService(engine)
        await service.load("m")
        for change in (service.load, service.unload):
            with pytest.raises(NotFound, match="the repository has no model ''"):
                await change("")
        assert await service.model_ready("m", "")
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


def test_all_that_is_served_is_described(tmp_path):
    put(tmp_path, "m")
    registry = CollectorRegistry()
    engine = Engine(Repository(tmp_path), Metrics(registry), load=fake)
    app = application(RuntimeService(engine), registry)

    async def scenario():
        await engine.load_all()
        told = (await get(app, "/v2/docs/dataplane.json")).json()
        assert {"/v2/models/{model}/infer", "/v2/models/{model}/config", "/metrics"} <= set(told["paths"])
        for path in ("/v2/docs", "/v2/models/m/docs"):
            assert (await get(app, path)).text.startswith("<!doctype html>")
        model = (await get(app, "/v2/models/m/docs/dataplane.json")).json()
        assert model["info"]["title"] == "croupier: m"
        await engine.close()

    asyncio.run(scenario())


def test_what_triton_asks_beside_v2_has_its_paths(tmp_path):
    put(tmp_path, "m", version="2")
    registry = CollectorRegistry()
    engine = Engine(Repository(tmp_path), Metrics(registry), load=fake)
    app = application(RuntimeService(engine), registry)

    async def scenario():
        await engine.load_all()
        for model in ("/v2/models/m", "/v2/models/m/versions/2"):
            config = (await get(app, f"{model}/config")).json()
            assert (config["name"], config["input"][0]["data_type"]) == ("m", "TYPE_FP64")
            stats = (await get(app, f"{model}/stats")).json()
            assert stats == (await get(app, "/v2/models/stats")).json()
            assert stats["model_stats"][0]["inference_stats"]["success"] == {"count": 0, "ns": 0}
        for unknown in ("/v2/models/nobody/config", "/v2/models/m/versions/3/stats"):
            assert (await get(app, unknown)).status_code == 404
        await engine.close()

    asyncio.run(scenario())
