"""Every client that people have gets an inference through a route, and its reward is counted once."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess

import grpc
import numpy as np
import pytest

from protos.errors import Code
from protos.messages import FeedbackRequest, FeedbackResponse, ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE as V2
from router import AsyncClient, Client
from router.wire import SERVICE
from tests import plain_http
from tests.e2e.calls import ROWS, refusal
from tests.e2e.models import FACTORS
from tests.process import Process

ROUTE = "multiply"


@pytest.mark.parametrize("raw", [True, False])
def test_grpcio_with_our_stubs(server, raw):
    """The decision is in the response's parameters and, the same, in the trailing metadata."""
    request = ModelInferRequest(model_name=ROUTE, id="7")
    add_inputs(request, {"x": ROWS}, raw=raw)
    with grpc.insecure_channel(server.address) as channel:
        infer = channel.unary_unary(
            V2 + "ModelInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
        )
        response, call = infer.with_call(request, timeout=30)
        parameters = response.parameters
        decision, arm = parameters["decision_id"].string_param, parameters["arm"].string_param
        propensity = parameters["propensity"].double_param

        assert (response.model_name, response.id) == (ROUTE, "7")
        assert outputs_of(response)["y"].tolist() == (ROWS * FACTORS[arm]).tolist()
        assert bool(response.raw_output_contents) == raw
        assert 0.0 < propensity < 1.0
        trailing = dict(call.trailing_metadata())
        assert trailing["croupier-decision"] == decision
        assert trailing["croupier-arm"] == arm
        assert float(trailing["croupier-propensity"]) == propensity

        reward = channel.unary_unary(
            SERVICE + "Feedback", FeedbackRequest.SerializeToString, FeedbackResponse.FromString
        )
        feedback = FeedbackRequest(decision_id=decision, reward=1.0, metrics={"profit": -3.5}, truth=0.0)
        assert reward(feedback, timeout=30) == FeedbackResponse(
            route=ROUTE, arm=arm, counted=["reward", "profit", "truth"]
        )
        with pytest.raises(grpc.RpcError) as second:
            reward(feedback, timeout=30)
        assert refusal(second.value).code is Code.ALREADY_EXISTS
        assert decision in refusal(second.value).sentence


def test_our_client(server):
    with Client(server.address) as client:
        assert client.ready()
        assert ROUTE in client.routes()
        before = tally(client.describe(ROUTE))
        answer = client.infer(ROUTE, {"x": ROWS}, unit="ann")
        assert answer.outputs["y"].tolist() == (ROWS * FACTORS[answer.arm]).tolist()
        assert 0.0 < answer.propensity < 1.0
        assert client.reward(answer.decision, 0.25, metrics={"profit": 2.0}).arm == answer.arm
        with pytest.raises(grpc.RpcError) as second:
            client.reward(answer.decision, 1.0)
        assert refusal(second.value).code is Code.ALREADY_EXISTS
        after = tally(client.describe(ROUTE))
    # The server is this test's alone while it runs.
    assert after == pytest.approx(np.add(before, [1, 0.25, 1, 2.0]))


def tally(described):
    """Rewards and their sum, values of the metric and their sum, over all arms."""
    rows = [(arm.reward, arm.metrics["profit"]) for arm in described.arms]
    return np.sum([(reward.n, reward.sum, profit.n, profit.sum) for reward, profit in rows], axis=0)


def test_our_client_for_asyncio(server):
    async def talk():
        async with AsyncClient(server.address) as client:
            assert await client.ready()
            assert ROUTE in await client.routes()
            answers = await asyncio.gather(*(client.infer(ROUTE, {"x": ROWS}) for _ in range(20)))
            assert len({answer.decision for answer in answers}) == 20
            for answer in answers:
                assert answer.outputs["y"].tolist() == (ROWS * FACTORS[answer.arm]).tolist()
            acknowledged = await asyncio.gather(*(client.reward(answer.decision, 1.0) for answer in answers))
            assert [each.arm for each in acknowledged] == [answer.arm for answer in answers]
            with pytest.raises(grpc.aio.AioRpcError) as second:
                await client.reward(answers[0].decision, 1.0)
            assert refusal(second.value).code is Code.ALREADY_EXISTS

    asyncio.run(talk())


def test_a_client_that_calls_the_model_itself(server):
    """It asks for a decision alone, and reports its reward like any other."""
    with Client(server.address) as client:
        decision = client.decide(ROUTE, unit="ann")
        assert (decision.route, decision.model, decision.target) == (ROUTE, decision.arm, "")
        assert client.reward(decision.decision_id, 1.0).arm == decision.arm


def test_a_unit_is_the_same_in_a_header_and_in_a_parameter(server):
    """Also when its name is not ASCII: it keeps its arm, however it is sent."""
    units = [f"Zoë {n}" for n in range(20)]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    url = f"http://{server.address}/v2/models/split/infer"
    by_header = [plain_http.post(url, json=body, headers={b"croupier-unit": unit.encode()}) for unit in units]
    by_parameter = [plain_http.post(url, json=body | {"parameters": {"unit": unit}}) for unit in units]
    arms = [[answer.json()["parameters"]["arm"] for answer in answers] for answers in (by_header, by_parameter)]
    assert arms[0] == arms[1]
    assert set(arms[0]) == set(FACTORS)
    assert plain_http.post(url, json=body, headers={b"croupier-unit": b"\xff"}).status_code == 422


@pytest.mark.parametrize(("how", "again"), [("grpc", "ALREADY_EXISTS"), ("http", 409)])
def test_tritonclient(server, tmp_path, how, again):
    """NVIDIA's client takes a route for a model."""
    with Process("tests.e2e.triton", how, server.address, ROUTE, folder=tmp_path) as client:
        assert client.wait() == 0, client.complained
        told = json.loads(client.printed)
    assert told["live"]
    assert told["ready"]
    assert told["model_ready"]
    metadata = told["metadata"]
    assert metadata["name"] == ROUTE
    (x,), (y,) = metadata["inputs"], metadata["outputs"]
    assert (x["name"], x["datatype"], [int(size) for size in x["shape"]]) == ("x", "FP32", [-1, 2])
    assert (y["name"], y["datatype"], [int(size) for size in y["shape"]]) == ("y", "FP32", [-1, 2])
    assert {each["name"]: each["state"] for each in told["index"]} == dict.fromkeys(
        [ROUTE, "product", "split"], "READY"
    )
    assert (told["name"], told["id"]) == (ROUTE, "7")
    factor = FACTORS[told["arm"]]
    assert told["y"] == [[factor, 2 * factor], [3 * factor, 4 * factor]]
    assert len(told["decision"]) == 32
    assert 0.0 < told["propensity"] < 1.0
    assert told["rewarded"] == told["arm"]
    assert told["again"] == again


def test_curl(server):
    """The decision is in the body and, the same, in the headers."""
    status, headers, answer = curl(
        f"{server.address}/v2/models/{ROUTE}/infer",
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
    )
    assert status == 200, answer
    parameters = answer["parameters"]
    factor = FACTORS[parameters["arm"]]
    assert answer["model_name"] == ROUTE
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [factor, 2 * factor]}]
    assert headers["croupier-decision"] == parameters["decision_id"]
    assert headers["croupier-arm"] == parameters["arm"]
    assert float(headers["croupier-propensity"]) == parameters["propensity"]

    feedback = {"decision_id": parameters["decision_id"], "reward": 1}
    status, _, answer = curl(f"{server.address}/v1/feedback", feedback)
    assert (status, answer) == (200, {"route": ROUTE, "arm": parameters["arm"], "counted": ["reward"]})
    status, _, answer = curl(f"{server.address}/v1/feedback", feedback)
    assert status == 409
    assert parameters["decision_id"] in answer["error"]


def test_bytes_behind_the_json(server):
    """Where the tensors are bytes, the decision is in the JSON before them."""
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": ROWS.nbytes}}
    head = json.dumps({"inputs": [x], "parameters": {"binary_data_output": True, "unit": "ann"}}).encode()
    answer = plain_http.post(
        f"http://{server.address}/v2/models/{ROUTE}/infer",
        content=head + ROWS.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    size = int(answer.headers["inference-header-content-length"])
    parameters = json.loads(answer.content[:size])["parameters"]
    y = np.frombuffer(answer.content[size:], np.float32)
    assert y.tolist() == (ROWS[0] * FACTORS[parameters["arm"]]).tolist()
    assert answer.headers["croupier-decision"] == parameters["decision_id"]


def curl(url, body):
    """Status, headers by lower-case name, and the JSON of the body."""
    program = shutil.which("curl")
    assert program, "this test needs curl, which every user of REST has"
    command = [program, "--silent", "--show-error", "--include", "--max-time", "30", "--data", json.dumps(body), url]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    head, _, text = answer.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(text)
