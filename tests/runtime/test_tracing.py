"""Spans of a real process, as a collector of another make gets them."""

from __future__ import annotations

import httpx
import pytest

from tests.collector import Collector, said
from tests.process import _ENVIRONMENT, Runtime
from tests.runtime.models import Times, put, tensor

pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def test_a_call_is_a_span_under_its_callers(tmp_path, monkeypatch):
    put(tmp_path / "models", "times", Times(2), version="3", outputs=[tensor("y", "FP32", -1, 4)])
    with Collector() as collector:
        monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_TRACING_SERVER", collector.address)
        monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_SERVER_NAME", "risk")
        with Runtime(tmp_path / "models", tmp_path / "said") as server:
            url = f"http://{server.address}/v2/models"
            x = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8}
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            httpx.post(f"{url}/times/infer", json={"inputs": [x]}, headers=parent).raise_for_status()
            assert httpx.post(f"{url}/times/infer", json={"inputs": [x | {"name": "z"}]}).status_code == 422
            assert server.stop() == 0
        good, bad = collector.spans()
    assert {said(each.resource.attributes)["service.name"] for each in collector.resources} == {"risk"}
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = said(good.attributes)
    (run,) = good.events
    for told in (attributes, said(run.attributes)):
        assert (
            0
            <= told["queue.seconds"] + told["run.seconds"]
            <= (good.end_time_unix_nano - good.start_time_unix_nano) / 1e9
        )
    assert said(run.attributes)["batch.rows"] == 2
    assert {name: value for name, value in attributes.items() if "seconds" not in name} == {
        "model.name": "times",
        "model.version": "3",
        "request.rows": 2,
        "rpc.grpc.status_code": 0,
    }
    assert bad.trace_id.hex() != TRACE
    assert said(bad.attributes)["rpc.grpc.status_code"] == 3
