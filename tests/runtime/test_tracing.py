"""Spans of a real process, as a collector of another make gets them."""

from __future__ import annotations

import asyncio
import json
import queue
from textwrap import dedent

import grpc
import numpy as np
import pytest

from protos.errors import Code, Internal, InvalidArgument, ResourceExhausted
from protos.grpc import Rpc
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs
from protos.v2 import SERVICE
from tests import plain_http
from tests.collector import Collector, said
from tests.process import _ENVIRONMENT, Runtime, until
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
            plain_http.post(f"{url}/times/infer", json={"inputs": [x]}, headers=parent).raise_for_status()
            assert plain_http.post(f"{url}/times/infer", json={"inputs": [x | {"name": "z"}]}).status_code == 422
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


SUMS = """
    from mlserver import MLModel
    from mlserver.types import InferenceResponse, ResponseOutput

    class Model(MLModel):
        async def predict_stream(self, payloads):
            total = 0
            async for payload in payloads:
                total += payload.inputs[0].data[0]
                if total < 0:
                    raise ValueError("overdrawn")
                output = ResponseOutput(name="y", shape=[1], datatype="FP64", data=[total])
                yield InferenceResponse(model_name=self.name, outputs=[output])
"""


def raising(error):
    def fail():
        raise error

    return fail


def asked(*values):
    for value in values:
        request = ModelInferRequest(model_name="sums")
        add_inputs(request, {"x": np.array([value])}, raw=True)
        yield request.SerializeToString()


def test_a_stream_is_a_span_until_it_ends(tmp_path, monkeypatch):
    pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")
    folder = tmp_path / "models" / "sums"
    folder.mkdir(parents=True)
    settings = {"implementation": "models.Model", "parameters": {"version": "3"}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    (folder / "models.py").write_text(dedent(SUMS))
    with Collector() as collector:
        monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_TRACING_SERVER", collector.address)
        with Runtime(tmp_path / "models", tmp_path / "said") as server:
            with grpc.insecure_channel(server.address) as channel:
                stream = channel.stream_stream(SERVICE + "ModelStreamInfer")
                parent = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
                assert len(list(stream(asked(1.0, 2.0), metadata=parent, timeout=60))) == 2
                failing = stream(asked(1.0, -2.0), timeout=60)
                assert next(failing)
                with pytest.raises(grpc.RpcError, match="overdrawn"):
                    next(failing)
                open_end: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
                left = stream(iter(open_end.get, None), timeout=60)
                open_end.put(*asked(1.0))
                assert next(left)
                left.cancel()
                open_end.put(None)
                until(lambda: 'code="CANCELLED"' in plain_http.get(f"http://{server.address}/metrics").text)
            assert server.stop() == 0
        spans = collector.spans()
    assert {each.name for each in spans} == {"ModelStreamInfer"}
    told = {said(each.attributes)["rpc.grpc.status_code"]: each for each in spans}
    assert sorted(told) == [Code.OK, Code.CANCELLED, Code.INTERNAL]
    good, bad = told[Code.OK], told[Code.INTERNAL]
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE, PARENT)
    assert said(good.attributes) == {
        "model.name": "sums",
        "model.version": "3",
        "request.rows": 1,
        "rpc.grpc.status_code": 0,
        "stream.answers": 2,
    }
    assert said(bad.attributes)["stream.answers"] == 1
    assert bad.status.message == "ValueError"
    assert not good.status.message


def ended(failing):
    """The span of a call which does that."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from runtime.tracing import traced

    kept, tracing = InMemorySpanExporter(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(kept))

    async def infer(_body, _rpc):
        failing()

    async def scenario():
        await asyncio.gather(traced(infer, tracing)(next(asked(1.0)), Rpc([])), return_exceptions=True)

    asyncio.run(scenario())
    (span,) = kept.get_finished_spans()
    assert span.attributes
    return span.attributes["rpc.grpc.status_code"], span.status.status_code.name, span.status.description


def of_a_model():
    try:
        raise ValueError("balance 987654.25 of account 4711")
    except ValueError as error:
        raise Internal(f"model 'm' failed: {error}") from error


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (raising(InvalidArgument("input 'x' is missing")), (Code.INVALID_ARGUMENT, "UNSET", None)),
        (raising(asyncio.CancelledError()), (Code.CANCELLED, "UNSET", None)),
        (raising(ResourceExhausted("4 wait")), (Code.RESOURCE_EXHAUSTED, "ERROR", "ResourceExhausted")),
        (raising(KeyError("account 4711")), (Code.INTERNAL, "ERROR", "KeyError")),
        (of_a_model, (Code.INTERNAL, "ERROR", "ValueError")),
    ],
)
def test_a_failure_is_told_by_its_kind_and_a_clients_is_none(failing, told):
    assert ended(failing) == told
