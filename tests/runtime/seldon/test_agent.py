"""The runtime under Seldon's agent: real processes, the agent's calls, statuses and files."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from protos.messages import (
    ModelInferRequest,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelUnloadRequest,
)
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE
from tests import plain_http
from tests.process import Runtime, until
from tests.runtime.models import Slow, Times, put, tensor
from tests.runtime.seldon.agent import Agent, Sent
from tests.runtime.seldon.model_folder import rewritten, snapshot

TIMES = {"outputs": [tensor("y", "FP32", -1, 4)]}
SLOW = {"inputs": [tensor("x", "FP32", -1)], "outputs": [tensor("y", "FP32", -1)]}
NAMES = [f"m{number}" for number in range(8)]
LONG = 2000.0  # half a second or so of `Slow`
LOADS = 'runtime_loads_total{outcome="%s"}'
IN_FLIGHT = 'runtime_requests_in_flight{model="slow_1"'


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """ "m0" to "m7", that multiply by 0 to 7, and "slow"; none of them in a folder that a server reads."""
    root = tmp_path_factory.mktemp("sources")
    folders = {name: put(root, name, Times(factor), **TIMES) for factor, name in enumerate(NAMES)}
    return folders | {"slow": put(root, "slow", Slow(), **SLOW)}


@contextmanager
def pod(root, **options):
    """A server that has loaded nothing, and the agent beside it."""
    (root / "models").mkdir(exist_ok=True)
    with (
        Runtime(root / "models", root / "said", "--load", "none") as server,
        Agent(root, server.address, **options) as agent,
    ):
        agent.start()
        yield server, agent


@pytest.fixture(scope="module")
def shared(tmp_path_factory, sources):
    """A pod with all models, for tests that leave them as they are."""
    with pod(tmp_path_factory.mktemp("pod")) as (server, agent):
        agent.load_all(sources)
        yield server, agent


@pytest.fixture(scope="module")
def emptied(tmp_path_factory):
    """Where a server runs whose agents come and go, and the server."""
    root = tmp_path_factory.mktemp("emptied")
    with pod(root) as (server, _):
        yield root, server


@pytest.fixture
def empty(emptied):
    """A pod for tests that leave the server running. Each has an agent of its own, and no models at first."""
    root, server = emptied

    @contextmanager
    def beside(**options):
        with Agent(root, server.address, **options) as agent:
            agent.start()
            yield server, agent
            agent.drain()
            assert ready(server) == set()

    return beside


@pytest.fixture
def agent(shared):
    _, agent = shared
    agent.sent.clear()
    return agent


def rows(*values):
    request = ModelInferRequest(model_name="whatever", model_version="7", id="r-1")
    add_inputs(request, {"x": np.array(values, np.float32)}, raw=True)
    return request


def rest(*values):
    data = np.array(values, np.float32)
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": data.shape, "data": data.ravel().tolist()}]}


ONES = rows([1, 1, 1, 1])


def factor(agent, name):
    """What a model multiplies by."""
    return outputs_of(agent.infer(name, ONES).response)["y"][0, 0]


def call(server, method, request):
    with grpc.insecure_channel(server.address) as channel:
        return channel.unary_unary(SERVICE + method)(request.SerializeToString(), timeout=60)


def ready(server):
    index = RepositoryIndexResponse.FromString(call(server, "RepositoryIndex", RepositoryIndexRequest()))
    return {each.name for each in index.models if each.state == "READY"}


def metric(server, line):
    found = [
        each for each in plain_http.get(f"http://{server.address}/metrics").text.splitlines() if each.startswith(line)
    ]
    return float(found[0].split()[-1]) if found else 0.0


def test_the_agent_keeps_what_it_knows_of_a_settings_file_and_writes_strings():
    """That the simulator loses what the agent loses: or the tests below show nothing."""
    settings = {
        "name": "iris",
        "implementation": "runtime.TorchScriptModel",
        "max_batch_size": 8,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "parameters": {"content_type": "np"}}],
        "parameters": {"uri": "./model.pt", "version": "v3", "device": "cpu", "extra": {"threads": 2}},
    }
    assert rewritten(settings, "iris_4", {"max_queue": "9"}) == {
        "name": "iris_4",
        "implementation": "runtime.TorchScriptModel",
        "inputs": [tensor("x", "FP32", -1, 4)],
        "parameters": {"uri": "./model.pt", "version": "1", "extra": {"threads": 2, "max_queue": "9"}},
    }


def test_the_agent_starts_with_an_empty_server(tmp_path, sources):
    for name in ("left_1", "over_3"):
        put(tmp_path / "models", name, Times(2), version="1", **TIMES)
    with Runtime(tmp_path / "models", tmp_path / "said") as server, Agent(tmp_path, server.address) as agent:
        assert until(lambda: ready(server)) == {"left_1", "over_3"}
        agent.start()
        assert ready(server) == set()
        assert [each for each in agent.sent if each.method == "RepositoryModelUnload"] == [
            Sent("RepositoryModelUnload", "left_1"),
            Sent("RepositoryModelUnload", "over_3"),
        ]


def test_models_loaded_at_once_answer_under_their_internal_names(shared, agent):
    for number, name in enumerate(NAMES):
        answer = agent.infer(name, ONES, metadata={"x-customer": "7"})
        assert (answer.response.model_name, answer.response.model_version) == (f"{name}_1", "1")
        assert answer.response.id == "r-1"
        assert outputs_of(answer.response)["y"].tolist() == [[number] * 4]
        answered = agent.infer_rest(f"/v2/models/{name}/versions/3/infer", rest([1, 1, 1, 1]))
        assert answered.json()["outputs"][0]["data"] == [number] * 4
    assert len(agent.sent) == 2 * len(NAMES)


def test_the_server_writes_nothing_into_the_models_folder(tmp_path, sources):
    with pod(tmp_path) as (server, agent):
        agent.load_all({name: sources[name] for name in NAMES[:3]})
        before = snapshot(agent.models)
        for name in NAMES[:3]:
            agent.infer(name, ONES)
            call(server, "RepositoryModelUnload", RepositoryModelUnloadRequest(model_name=f"{name}_1"))
            agent.infer(name, ONES)
        assert server.stop() == 0
        assert before
        assert snapshot(agent.models) == before


def test_bad_input_is_asked_once_over_grpc_and_rest(agent):
    with pytest.raises(grpc.RpcError) as wrong:
        agent.infer("m2", rows([1, 2, 3]))
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert agent.infer_rest("/v2/models/m2/infer", rest([1, 2, 3])).status_code == 422
    assert agent.infer_rest("/v2/models/m2/infer", {"inputs": "none"}).status_code == 422
    methods = Counter(each.method for each in agent.sent)
    assert methods == {"ModelInfer": 1, "/v2/models/m2_1/infer": 2}


@pytest.mark.parametrize("over", ["grpc", "rest"])
def test_a_model_that_the_server_lost_is_loaded_by_the_call_that_misses_it(shared, agent, over):
    server, _ = shared
    call(server, "RepositoryModelUnload", RepositoryModelUnloadRequest(model_name="m3_1"))
    if over == "grpc":
        assert factor(agent, "m3") == 3
        infer = "ModelInfer"
    else:
        assert agent.infer_rest("/v2/models/m3/infer", rest([1, 1, 1, 1])).status_code == 200
        infer = "/v2/models/m3_1/infer"
    assert [each.method for each in agent.sent] == [infer, "RepositoryModelLoad", infer]


def test_a_server_that_was_killed_is_healed_by_the_calls_that_come(tmp_path, sources):
    with pod(tmp_path) as (server, agent):
        agent.load_all({name: sources[name] for name in NAMES})
        port = int(server.address.rpartition(":")[2])
        server.kill()
        with pytest.raises(grpc.RpcError) as down:
            agent.infer("m1", ONES)
        assert down.value.code() is grpc.StatusCode.UNAVAILABLE
        with Runtime(agent.models, tmp_path / "again", "--load", "none", port=port) as again:
            assert ready(again) == set()
            with ThreadPoolExecutor(len(NAMES)) as callers:
                assert list(callers.map(lambda name: factor(agent, name), NAMES)) == list(range(len(NAMES)))
            assert ready(again) == {f"{name}_1" for name in NAMES}


def test_a_load_that_changes_nothing_loads_nothing(empty, tmp_path, sources):
    five = put(tmp_path, "five", Times(5), **TIMES) / "model.pt"
    with empty() as (server, agent):
        agent.load("m2", sources["m2"])
        archive = agent.models / "m2_1" / "1" / "model.pt"
        archive.write_bytes(archive.read_bytes())
        before = {outcome: metric(server, LOADS % outcome) for outcome in ("loaded", "unchanged")}
        with ThreadPoolExecutor(4) as loaders:
            list(loaders.map(agent._load, ["m2_1"] * 20))
        assert metric(server, LOADS % "unchanged") == before["unchanged"] + 20
        assert metric(server, LOADS % "loaded") == before["loaded"]
        archive.write_bytes(five.read_bytes())
        agent._load("m2_1")
        assert factor(agent, "m2") == 5


def test_overload_is_tried_again_and_loads_nothing(empty, sources):
    """The limit comes as the Model resource has it: a string."""
    with empty() as (server, agent), ThreadPoolExecutor(3) as callers:
        agent.load("slow", sources["slow"], max_queue="1", max_batch_size="1")
        agent.sent.clear()
        calls = []
        for _ in range(2):
            calls.append(callers.submit(agent.infer, "slow", rows(LONG)))
            until(lambda: metric(server, IN_FLIGHT) == len(calls))
        refused = agent.infer_rest("/v2/models/slow/infer", rest(0))
        assert refused.status_code == 429
        calls.append(callers.submit(agent.infer, "slow", rows(0)))
        until(lambda: len(agent.sent) >= 5)  # two that wait, one over REST, and two tries of the last
        assert {each.method for each in agent.sent} == {"ModelInfer", "/v2/models/slow_1/infer"}
        for each in calls[:2]:
            assert each.result().response.model_name == "slow_1"
        heard = calls[2].exception()  # none, where one of its five tries found room
        assert heard is None or (isinstance(heard, grpc.RpcError) and heard.code().name == "RESOURCE_EXHAUSTED")
        assert "RepositoryModelLoad" not in {each.method for each in agent.sent}


def test_the_least_recently_used_model_makes_room_and_comes_back(empty, sources):
    with empty(memory=3, overcommit=100) as (server, agent):
        agent.load_all({name: sources[name] for name in NAMES[:6]})
        assert len(ready(server)) == 3
        with pytest.raises(RuntimeError, match="no memory for m6_1"):
            agent.load("m6", sources["m6"])
        for _ in range(2):
            assert [factor(agent, name) for name in NAMES[:6]] == [0, 1, 2, 3, 4, 5]
            assert ready(server) == {"m3_1", "m4_1", "m5_1"}


def test_a_rolling_update_loses_no_call(empty, sources):
    seen = []
    stop = threading.Event()
    with empty(grace=0.3) as (server, agent):
        agent.load("m", sources["m2"])

        def client():
            while not stop.is_set():
                seen.append(factor(agent, "m"))

        with ThreadPoolExecutor(4) as clients:
            calling = [clients.submit(client) for _ in range(4)]
            until(lambda: len(seen) > 20)
            assert agent.load("m", sources["m3"]) == "m_2"
            assert agent.load("m", sources["m4"]) == "m_3"
            many = len(seen) + 20
            until(lambda: len(seen) > many)
            stop.set()
            for each in calling:
                each.result()
        assert ready(server) == {"m_3"}
        assert set(seen) == {2, 3, 4}
        assert [path.name for path in agent.models.iterdir()] == ["m_3"]
        loads = [each.model for each in agent.sent if each.method == "RepositoryModelLoad"]
        assert loads == ["m_1", "m_2", "m_3"]  # and none to heal a call


def test_a_generation_that_does_not_load_leaves_the_one_before(empty, tmp_path, sources):
    broken = put(tmp_path, "broken", b"junk", **TIMES)
    with empty() as (server, agent):
        agent.load("m", sources["m2"])
        with pytest.raises(grpc.RpcError) as refused:
            agent.load("m", broken)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert factor(agent, "m") == 2
        assert ready(server) == {"m_1"}
        assert 'model="m_2"' not in plain_http.get(f"http://{server.address}/metrics").text


def test_a_drain_answers_the_calls_in_flight_and_leaves_nothing(tmp_path, sources):
    with pod(tmp_path) as (server, agent), ThreadPoolExecutor(1) as callers:
        agent.load_all({name: sources[name] for name in ("m1", "slow")})
        answer = callers.submit(agent.infer, "slow", rows(LONG))
        until(lambda: metric(server, IN_FLIGHT) == 1)
        agent.drain()
        assert answer.result().response.model_name == "slow_1"
        assert ready(server) == set()
        assert list(agent.models.iterdir()) == []
        agent._unload("m1_1")  # of a model that is unknown by now: tolerated
        assert server.stop() == 0


def test_the_folder_of_a_model_may_go_before_it_is_unloaded(empty, sources):
    with empty() as (server, agent):
        agent.load("m", sources["m2"])
        for path in sorted((agent.models / "m_1").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert factor(agent, "m") == 2
        agent.unload("m")
        assert ready(server) == set()
