"""What models written for MLServer know of the calls that reach them: headers, texts and whole streams."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from contextlib import aclosing, asynccontextmanager
from textwrap import dedent

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import Code, Internal, InvalidArgument, NotFound
from protos.grpc import Rpc
from protos.infer_json import parameters_of
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.server import RuntimeService
from runtime.settings import FILE
from tests import plain_http
from tests.process import Runtime, until

pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")

SECONDS = 60

TELLS = """
    import json
    from fastapi import HTTPException
    from mlserver import MLModel
    from mlserver.codecs import StringCodec
    from mlserver.types import InferenceResponse, Parameters

    class Model(MLModel):
        async def predict(self, payload):
            headers = payload.parameters.headers
            if "x-refused" in headers:
                raise HTTPException(401, "no", json.loads(headers["x-refused"]))
            told = {
                "id": payload.id,
                "kind": type(payload.inputs[0].data[0]).__name__,
                "headers": {name: value for name, value in headers.items() if name.startswith("x-")},
                "of gRPC": [name for name in headers if name.startswith("grpc-") or name in ("te", "content-type")],
            }
            output = StringCodec.encode_output("told", [json.dumps(told)])
            answers = json.loads(headers.get("x-answers", "{}"))
            parameters = Parameters(headers=answers, text="t")
            return InferenceResponse(model_name=self.name, outputs=[output], parameters=parameters)
"""

SUMS = """
    from mlserver import MLModel
    from mlserver.types import InferenceResponse, Parameters, ResponseOutput
    from tests.runtime import test_hosted_calls

    class Model(MLModel):
        async def predict_stream(self, payloads):
            total = 0
            try:
                async for payload in payloads:
                    for value in payload.inputs[0].data:
                        total += value
                        if total < 0:
                            raise ValueError("overdrawn")
                        test_hosted_calls.seen.made += 1
                        output = ResponseOutput(name="y", shape=[1], datatype="FP64", data=[total])
                        parameters = Parameters(headers={"x-total": str(total)})
                        yield InferenceResponse(model_name=self.name, outputs=[output], parameters=parameters)
            finally:
                test_hosted_calls.seen.ended.set()
"""

KEEPS = """
    import mlserver
    from mlserver import MLModel
    from mlserver.logging import logger
    from mlserver.types import InferenceResponse
    from prometheus_client import Counter

    asked = Counter("asked", "A model's own.")

    class Model(MLModel):
        async def load(self):
            mlserver.register("quality", "A model's own, by MLServer.")
            logger.info("%s loads", self.name)
            return True

        async def predict(self, payload):
            mlserver.log(quality=34)
            asked.inc()
            return InferenceResponse(model_name=self.name, outputs=[])
"""


class Seen:
    """What a model did; the models of these tests find it by importing this module."""

    def __init__(self):
        self.made = 0
        self.ended = threading.Event()


seen = Seen()


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(f"{__name__}.seen", Seen())


def written(root, name, code, **settings):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps({"implementation": "models.Model", **settings}))
    (folder / "models.py").write_text(dedent(code))


def request(model, x):
    made = ModelInferRequest(model_name=model, id="7")
    add_inputs(made, {"x": np.array(x, np.object_ if isinstance(x[0], bytes) else np.float64)}, raw=True)
    return made


# ------------------------------------------------------------------------------------------------ real clients


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    written(root, "tells", TELLS)
    written(root, "sums", SUMS)
    with Runtime(root, tmp_path_factory.mktemp("server")) as process:
        yield process.address


def post(address, model, *, path="infer", datatype="BYTES", data=("a",), **headers):
    tensor = {"name": "x", "datatype": datatype, "shape": [len(data)], "data": list(data)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://{address}/v2/models/{model}/{path}"
    return plain_http.post(url, json={"inputs": [tensor]}, headers=named, timeout=SECONDS)


def by_grpc(address, asked, metadata=()):
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(SERVICE + "ModelInfer").with_call
        reply, ended = call(asked.SerializeToString(), metadata=metadata, timeout=SECONDS)
    return ModelInferResponse.FromString(reply), dict(ended.trailing_metadata())


def test_texts_in_json_are_texts(address):
    told = json.loads(post(address, "tells", data=["zwölf"]).json()["outputs"][0]["data"][0])
    assert told["kind"] == "str"


def test_a_call_by_rest_without_an_id_is_given_one_that_its_answer_does_not_tell(address):
    answered = [post(address, "tells").json() for _ in range(2)]
    one, other = (json.loads(each["outputs"][0]["data"][0])["id"] for each in answered)
    assert one
    assert other not in ("", one)
    assert not any("id" in each for each in answered)


def test_bytes_stay_bytes(address):
    response, _ = by_grpc(address, request("tells", [b"\xff"]))
    assert json.loads(outputs_of(response)["told"].ravel()[0])["kind"] == "bytes"


def test_bytes_behind_the_json_stay_bytes(address):
    raw = b"\x01\x00\x00\x00\xff"
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    body = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(body))}
    url = f"http://{address}/v2/models/tells/infer"
    answered = plain_http.post(url, content=body + raw, headers=headers, timeout=SECONDS)
    assert json.loads(answered.json()["outputs"][0]["data"][0])["kind"] == "bytes"


def test_headers_reach_a_model_and_come_from_it(address):
    answered = post(address, "tells", x_one="1", x_answers='{"X-Two": "2"}')
    told = json.loads(answered.json()["outputs"][0]["data"][0])
    assert told["headers"] == {"x-one": "1", "x-answers": '{"X-Two": "2"}'}
    assert answered.headers["x-two"] == "2"
    assert answered.json()["parameters"] == {"text": "t"}


def test_so_does_metadata(address):
    response, trailing = by_grpc(address, request("tells", [b"a"]), [("x-one", "1"), ("x-answers", '{"X-Two": "2"}')])
    told = json.loads(outputs_of(response)["told"].ravel()[0])
    assert told["headers"] == {"x-one": "1", "x-answers": '{"X-Two": "2"}'}
    assert told["of gRPC"] == []
    assert trailing["x-two"] == "2"


def test_a_refusal_of_a_model_has_its_headers(address):
    told = json.dumps({"WWW-Authenticate": "Basic", "Retry-After": "3"})
    refused = post(address, "tells", x_refused=told)
    assert (refused.status_code, refused.json()) == (401, {"error": "no"})
    assert refused.headers.get_list("www-authenticate") == ["Basic"]  # and not what ours would be
    assert refused.headers["retry-after"] == "3"
    with pytest.raises(grpc.RpcError) as failed:
        by_grpc(address, request("tells", [b"a"]), [("x-refused", told)])
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_headers_that_no_trailer_may_be_are_told_over_http_alone(address):
    told = json.dumps({"Cache-Control": "no-store", "X-Two": " 2 "})
    assert post(address, "tells", x_answers=told).headers["cache-control"] == "no-store"
    assert post(address, "tells", x_answers=told).headers["x-two"] == "2"
    _, trailing = by_grpc(address, request("tells", [b"a"]), [("x-answers", told)])
    assert trailing["x-two"] == "2"
    assert "cache-control" not in trailing


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Content-Length": "3"}, "header 'content-length' of the model: it is the server's to write"),
        ({"grpc-status": "0"}, "header 'grpc-status' of the model: it is the server's to write"),
        ({"x-a": "b\r\nx-c: d"}, "header 'x-a' of the model: it cannot be sent"),
        ({"x a": "b"}, "header 'x a' of the model: it cannot be sent"),
        ({"x-a": "ü"}, "header 'x-a' of the model: it cannot be sent"),
        ({"x-a": 1}, "header 'x-a' of the model: it cannot be sent"),
    ],
)
def test_headers_that_no_answer_can_have_are_the_models_fault_and_a_refusal_goes_without(address, headers, says):
    answered = post(address, "tells", x_answers=json.dumps(headers))
    assert answered.status_code == 500
    assert says in answered.json()["error"]
    refused = post(address, "tells", x_refused=json.dumps(headers | {"x-b": "c"}))
    assert (refused.status_code, refused.json()["error"], refused.headers["x-b"]) == (401, "no", "c")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_model_counts_is_scraped_and_what_it_logs_is_written(tmp_path, workers):
    written(tmp_path / "models", "keeps", KEEPS, parameters={"version": "3"})
    with Runtime(tmp_path / "models", tmp_path / "server", "--workers", str(workers)) as process:
        for _ in range(3):
            assert post(process.address, "keeps").status_code == 200
        told = plain_http.get(f"http://{process.address}/metrics").text
    assert 'quality_sum{model_name="keeps",model_version="3"} 102.0' in told
    assert "asked_total 3.0" in told
    assert told.count("# TYPE process_open_fds") == 1
    assert process.complained.count("INFO mlserver: keeps loads") == workers


def test_several_answers_are_as_many_events(address):
    answered = post(address, "sums", path="infer_stream", datatype="FP64", data=[1, 2, 3])
    assert answered.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(each.removeprefix("data: ")) for each in answered.text.strip().split("\n\n")]
    assert [each["outputs"][0]["data"] for each in events] == [[1], [3], [6]]


def test_what_fails_at_once_is_the_status_and_later_an_event(address):
    refused = post(address, "sums", path="infer_stream", datatype="FP64", data=[-1])
    assert (refused.status_code, refused.json()) == (500, {"error": "model 'sums' failed: ValueError: overdrawn"})
    broken = post(address, "sums", path="infer_stream", datatype="FP64", data=[1, -2])
    *_, last = broken.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: ")) == {"error": "model 'sums' failed: ValueError: overdrawn"}


def test_a_stream_goes_both_ways(address):
    """The model sees all of the requests, each when it comes, and its last headers end the stream."""
    more = threading.Event()

    def requests():
        yield request("sums", [1, 2]).SerializeToString()
        more.wait(SECONDS)
        yield request("sums", [3]).SerializeToString()

    with grpc.insecure_channel(address) as channel:
        answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(requests(), timeout=SECONDS)
        totals = []
        for each in answers:
            response = ModelInferResponse.FromString(each)
            assert response.id == "7"
            totals += outputs_of(response)["y"].tolist()
            if len(totals) == 2:
                more.set()
        assert totals == [1, 3, 6]
        assert dict(answers.trailing_metadata())["x-total"] == "6.0"


def test_a_reader_who_leaves_ends_the_stream(address):
    def cancelled():
        told = plain_http.get(f"http://{address}/metrics", timeout=SECONDS).text
        found = re.search(r'^runtime_requests_total{code="CANCELLED",model="sums".*} (\d+)', told, re.MULTILINE)
        return int(found[1]) if found else 0

    many = [1.0] * 100_000
    before = cancelled()
    tensor = {"name": "x", "datatype": "FP64", "shape": [len(many)], "data": many}
    url = f"http://{address}/v2/models/sums/infer_stream"
    with httpx.stream("POST", url, json={"inputs": [tensor]}, timeout=SECONDS) as answered:
        assert next(answered.iter_lines()).startswith("data: ")
    until(lambda: cancelled() == before + 1)
    with grpc.insecure_channel(address) as channel:
        asked = iter([request("sums", many).SerializeToString()])
        answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(asked, timeout=SECONDS)
        next(answers)
        answers.cancel()
    until(lambda: cancelled() == before + 2)


# --------------------------------------------------------------------------------------------------- in process


@asynccontextmanager
async def serving(root):
    metrics = Metrics(CollectorRegistry())
    engine = Engine(Repository(root), metrics)
    try:
        failed = await engine.load_all()
        assert not failed, failed[0].reason
        yield RuntimeService(engine), engine, metrics
    finally:
        await engine.close()


@pytest.fixture
def run(tmp_path):
    """Runs a scenario with a service of "sums"."""
    written(tmp_path, "sums", SUMS)

    def within(scenario):
        async def whole():
            async with serving(tmp_path) as (service, engine, metrics):
                await asyncio.wait_for(scenario(service, engine, metrics.of("sums", "")), SECONDS)

        asyncio.run(whole())

    return within


async def sent(*requests):
    for each in requests:
        yield each.SerializeToString()


async def total_of(answers):
    return outputs_of(ModelInferResponse.FromString(await anext(answers)))["y"].tolist()


def test_a_model_makes_no_more_answers_than_are_taken(run):
    async def scenario(service, _engine, metrics):
        answers = service.infer_stream(sent(request("sums", range(1, 1000))), Rpc([]))
        assert await total_of(answers) == [1]
        assert await total_of(answers) == [3]
        assert seen.made <= 3
        assert metrics.in_flight == 1
        await answers.aclose()
        assert await asyncio.to_thread(seen.ended.wait, SECONDS)
        assert seen.made <= 3
        assert (metrics.in_flight, metrics.codes[Code.CANCELLED]) == (0, 1)

    run(scenario)


def test_a_stream_counts_once(run):
    async def scenario(service, _engine, metrics):
        answers = [each async for each in service.infer_stream(sent(request("sums", [1, 2])), Rpc([]))]
        assert len(answers) == 2
        assert (sum(metrics.codes.values()), metrics.codes[Code.OK]) == (1, 1)
        with pytest.raises(Internal, match="overdrawn"):
            await total_of(service.infer_stream(sent(request("sums", [-1])), Rpc([])))
        assert metrics.codes[Code.INTERNAL] == 1

    run(scenario)


def test_unloading_ends_a_stream_of_which_no_more_comes(run):
    async def scenario(service, engine, metrics):
        silent = asyncio.Event()

        async def requests():
            yield request("sums", [1]).SerializeToString()
            await silent.wait()

        answers = service.infer_stream(requests(), Rpc([]))
        assert await total_of(answers) == [1]
        reading = asyncio.create_task(anext(answers, None))
        await engine.unload("sums")
        assert await reading is None
        assert metrics.codes[Code.OK] == 1

    run(scenario)


def test_one_stream_asks_one_model(run):
    async def scenario(service, _engine, _metrics):
        answers = service.infer_stream(sent(request("sums", [1]), request("other", [1])), Rpc([]))
        assert await total_of(answers) == [1]
        with pytest.raises(InvalidArgument, match="model 'sums' answers this stream, which asks for another one, too"):
            await anext(answers)

    run(scenario)


def test_a_stream_for_nobody_is_refused_and_an_empty_one_is_over(run):
    async def scenario(service, _engine, _metrics):
        with pytest.raises(NotFound):
            await anext(service.infer_stream(sent(request("nobody", [1])), Rpc([])))
        async with aclosing(service.infer_stream(sent(), Rpc([]))) as answers:
            assert [each async for each in answers] == []

    run(scenario)


def test_what_is_declared_is_told(tmp_path):
    x = {"name": "x", "datatype": "FP32", "shape": [-1], "parameters": {"content_type": "np", "unit": "bp", "of": []}}
    written(tmp_path, "m", SUMS, inputs=[x], parameters={"content_type": "str"})

    async def scenario():
        async with serving(tmp_path) as (service, _, _):
            return await service.model_metadata("m", "")

    told = asyncio.run(scenario())
    assert parameters_of(told.inputs[0].parameters) == {"content_type": "np", "unit": "bp"}
    assert parameters_of(told.parameters) == {"content_type": "str"}
