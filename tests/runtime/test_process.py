"""End to end: a real process, asked by clients that are not ours."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.abc import MetaPathFinder
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from protos.messages import (
    ModelInferRequest,
    ModelInferResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE
from runtime.__main__ import main
from tests import plain_http
from tests.process import _ENVIRONMENT, ROOT, Process, Runtime, until
from tests.runtime.models import BLOCKS, Mlp, Slow, Times, put, tensor

TIMES: dict[str, Any] = {"outputs": [tensor("y", "FP32", -1, 4)]}
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW: dict[str, Any] = {"inputs": [tensor("x", "FP32", -1)], "outputs": [tensor("y", "FP32", -1)]}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A version 2 and a version 10 of "times", "mlp" and "slow"."""
    root = tmp_path_factory.mktemp("models")
    put(root, "times", Times(2), version="2", **TIMES)
    put(root, "times", Times(10), version="10", **TIMES)
    put(root, "mlp", Mlp())
    put(root, "slow", Slow(), **SLOW)
    return root


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    with Runtime(repository, tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def call(channel, method, request, **options):
    return channel.unary_unary(SERVICE + method)(request.SerializeToString(), **{"timeout": 60, **options})


def infer(channel, name, x, **options):
    request = ModelInferRequest(model_name=name, id="r-1")
    add_inputs(request, {"x": np.array(x, np.float32)}, raw=True)
    return ModelInferResponse.FromString(call(channel, "ModelInfer", request, **options))


def states(channel):
    index = RepositoryIndexResponse.FromString(call(channel, "RepositoryIndex", RepositoryIndexRequest()))
    return {(each.name, each.version): (each.state, each.reason) for each in index.models}


def test_it_says_where_it_is_and_what_to_try(server):
    assert server.welcome.startswith(f"serving mlp, slow, times on {server.address}, gRPC and REST; try: curl http://")
    command = server.welcome.partition("try: ")[2].split()
    answered = subprocess.run([*command, "--silent", "--show-error"], check=True, capture_output=True, text=True)
    assert json.loads(answered.stdout)["name"] == "mlp"


def test_grpcio_is_answered(channel):
    response = infer(channel, "times", [[1, 2, 3, 4]])
    assert (response.model_name, response.model_version, response.id) == ("times", "10", "r-1")
    assert outputs_of(response)["y"].tolist() == [[10, 20, 30, 40]]


def test_many_callers_at_once_each_get_their_own_answer(channel):
    method = channel.unary_unary(SERVICE + "ModelInfer")
    calls = {}
    for i in range(500):
        request = ModelInferRequest(model_name="times")
        add_inputs(request, {"x": np.full((1 + i % 3, 4), i, np.float32)}, raw=bool(i % 2))
        calls[i] = method.future(request.SerializeToString(), timeout=60)
    for i, future in calls.items():
        y = outputs_of(ModelInferResponse.FromString(future.result()))["y"]
        np.testing.assert_array_equal(y, np.full((1 + i % 3, 4), 10 * i))


def test_tritons_clients_are_answered(server):
    command = [sys.executable, "-m", "tests.runtime.triton", server.address]
    asked = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=100)
    assert asked.returncode == 0, asked.stderr


def test_curl_is_answered_in_json(server):
    body = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    url = f"http://{server.address}/v2/models/times/versions/2/infer"
    command = ["curl", "--silent", "--show-error", "--fail-with-body", url, "--json", json.dumps(body)]
    answered = subprocess.run(command, check=True, capture_output=True, text=True)
    response = json.loads(answered.stdout)
    assert (response["model_name"], response["model_version"], response["id"]) == ("times", "2", "7")
    (y,) = response["outputs"]
    assert (y["name"], y["datatype"], y["shape"], y["data"]) == ("y", "FP32", [1, 4], [2, 4, 6, 8])


def test_rest_says_what_is_wrong(server):
    with httpx.Client(base_url=f"http://{server.address}") as client:
        x = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        wrong = client.post("/v2/models/times/infer", json={"inputs": [x]})
        assert wrong.status_code == 422
        assert wrong.json() == {"error": "input 'x' is declared FP32 [-1, 4]; the request has FP32 [1, 3]"}
        unknown = client.get("/v2/models/nobody")
        assert unknown.status_code == 404
        assert "there is no model 'nobody'; loaded are " in unknown.json()["error"]


def test_a_broken_model_is_reported_and_keeps_the_server_from_ready(tmp_path):
    put(tmp_path / "models", "good", Mlp())
    put(tmp_path / "models", "bad", b"junk")
    with Runtime(tmp_path / "models", tmp_path / "said") as server:
        assert server.welcome.startswith("serving good on ")
        with httpx.Client(base_url=f"http://{server.address}") as client:
            assert client.get("/v2/health/live").status_code == 200
            assert client.get("/v2/health/ready").status_code == 503
            index = client.post("/v2/repository/index").json()
            (bad,) = [each for each in index if each["name"] == "bad"]
            assert bad["state"] == "UNAVAILABLE"
            assert "model.pt is not a TorchScript archive" in bad["reason"]
            refused = client.post("/v2/repository/models/bad/load")
            assert refused.status_code == 422
            assert refused.json() == {"error": bad["reason"]}
            assert client.post("/v2/repository/models/bad/unload").status_code == 200
            assert client.get("/v2/health/ready").status_code == 200
        assert server.stop() == 0
        assert "model 'bad' is not served: " in server.complained


def test_it_says_that_it_serves_though_the_folder_is_gone_by_then(tmp_path):
    models = tmp_path / "models"
    folder = put(models, "m", implementation="models.Model", **SLOW)
    (folder / "models.py").write_text(f"import shutil; shutil.rmtree({str(models)!r})")
    with Runtime(models, tmp_path / "said") as server:
        assert server.welcome.startswith("serving no models on ")
        assert server.stop() == 0
        assert "model 'm' is not served: " in server.complained


def test_models_are_loaded_reloaded_and_unloaded(tmp_path):
    put(tmp_path / "models", "m", Times(2), **TIMES)
    with (
        Runtime(tmp_path / "models", tmp_path / "said", "--load", "none") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert server.welcome.startswith("serving no models on ")
        assert states(channel) == {("m", ""): ("UNAVAILABLE", "not loaded")}
        with pytest.raises(grpc.RpcError) as unknown:
            infer(channel, "m", [[1, 2, 3, 4]])
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        for factor in (2, 3):
            put(tmp_path / "models", "m", Times(factor), **TIMES)
            call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="m"))
            assert outputs_of(infer(channel, "m", [[1, 0, 0, 0]]))["y"][0, 0] == factor
        assert states(channel) == {("m", ""): ("READY", "")}
        call(channel, "RepositoryModelUnload", RepositoryModelUnloadRequest(model_name="m"))
        assert states(channel) == {("m", ""): ("UNAVAILABLE", "unloaded")}
        with pytest.raises(grpc.RpcError) as refused:
            call(channel, "RepositoryModelUnload", RepositoryModelUnloadRequest(model_name="nobody"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_metrics_name_models_of_the_repository_only(server, channel):
    infer(channel, "times", [[1, 2, 3, 4]])
    with pytest.raises(grpc.RpcError):
        infer(channel, "secret", [[1, 2, 3, 4]])
    scraped = plain_http.get(f"http://{server.address}/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    assert 'runtime_requests_total{code="OK",model="times",version="10"}' in scraped.text
    assert "runtime_unknown_model_requests_total" in scraped.text
    assert "secret" not in scraped.text


def test_each_protocol_may_have_a_port_of_its_own_and_answers_nowhere_else(repository, tmp_path):
    ports = [argument for protocol in ("http", "grpc", "metrics") for argument in (f"--{protocol}-port", "0")]
    with Process("runtime", repository, *ports, folder=tmp_path) as server:
        welcome = server.says(r"^serving .* on (\S+:\d+), REST; gRPC on (\S+:\d+); metrics on (\S+:\d+); try: ")
        http, rpc, metrics = welcome.groups()
        with grpc.insecure_channel(rpc) as channel:
            assert outputs_of(infer(channel, "times", [[1, 2, 3, 4]]))["y"].tolist() == [[10, 20, 30, 40]]
        assert plain_http.get(f"http://{http}/v2/models/times").status_code == 200
        assert "runtime_requests_total" in plain_http.get(f"http://{metrics}/metrics").text
        for wrong in (f"{http}/metrics", f"{metrics}/v2", f"{rpc}/v2", f"{rpc}/metrics"):
            assert plain_http.get(f"http://{wrong}").status_code == 404
        for wrong in (http, metrics):
            with grpc.insecure_channel(wrong) as channel, pytest.raises(grpc.RpcError) as refused:
                states(channel)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.stop() == 0


def test_settings_of_mlserver_are_obeyed(repository, tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(repository)
    monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_MODELS_DIR", str(tmp_path))
    monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_LOAD_MODELS_AT_STARTUP", "false")
    monkeypatch.setitem(_ENVIRONMENT, "MLSERVER_ROOT_PATH", "/risk/")
    settings = {
        "http_port": 0,
        "grpc_port": 0,
        "metrics_port": 0,
        "metrics_endpoint": "/numbers/",
        "server_name": "ours",
    }
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "kafka_enabled": True}))
    with Process("runtime", folder=tmp_path / "said") as server:
        welcome = server.says(r"^serving no models on (\S+:\d+), REST; gRPC on \S+:\d+; metrics on (\S+:\d+); try: ")
        http, metrics = welcome.groups()
        for path in ("/v2", "/risk/v2"):
            assert plain_http.get(f"http://{http}{path}").json()["name"] == "ours"
        assert plain_http.get(f"http://{metrics}/numbers").status_code == 200
        assert plain_http.get(f"http://{metrics}/metrics").status_code == 404
        assert "kafka_enabled is not supported here" in server.complained


def test_settings_that_cannot_be_obeyed_are_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path), "--port", "1", "--http-port", "2"]) == 1
    assert main([str(tmp_path), "--grpc-port", "-1"]) == 1
    assert main([str(tmp_path), "--workers", "-1"]) == 1
    assert main([str(tmp_path), "--workers", "2", "--host", ""]) == 1
    (tmp_path / "settings.json").write_text('{"grpc_port": "soon"}')
    assert main([str(tmp_path)]) == 1
    first, *of_options, last = capsys.readouterr().err.splitlines()
    assert first == "--port is one for all protocols: leave it out, or http_port"
    assert of_options == [
        "--grpc-port: Expected `int` >= 0",
        "--workers: Expected `int` >= 0",
        "--host: '' is no host; write an address of this machine, or 0.0.0.0 for all",
    ]
    assert last == f"{tmp_path}/settings.json: grpc_port: Expected `int | null`, got `str`"


def in_flight(address):
    for line in plain_http.get(f"http://{address}/metrics").text.splitlines():
        if line.startswith('runtime_requests_in_flight{model="slow"'):
            return float(line.split()[-1])
    return 0.0


@pytest.fixture
def sighup():
    """SIGHUP, which whoever runs the tests may have ignored, as nohup does, and so what they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield signal.SIGHUP
    signal.signal(signal.SIGHUP, before)


def test_sigterm_under_load_fails_no_call(repository, tmp_path):
    fails_no_call_under_load(signal.SIGTERM, repository, tmp_path)


def test_the_end_of_a_terminal_fails_no_call_either(sighup, repository, tmp_path):
    fails_no_call_under_load(sighup, repository, tmp_path)


def fails_no_call_under_load(number, repository, tmp_path):
    callers = 24
    together = threading.Barrier(callers)
    x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [400]}

    def by_grpc(channel):
        for i in range(20):
            assert outputs_of(infer(channel, "times", [[i, 0, 0, 0]]))["y"][0, 0] == 10 * i
        together.wait()
        return outputs_of(infer(channel, "slow", [400]))["y"].tolist()

    def by_rest(address):
        with httpx.Client(base_url=f"http://{address}", verify=False, timeout=60) as client:
            for _ in range(20):
                assert client.get("/v2/models/times").status_code == 200
            together.wait()
            answered = client.post("/v2/models/slow/infer", json={"inputs": [x]}).raise_for_status()
            return answered.json()["outputs"][0]["data"]

    with Runtime(repository, tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        with ThreadPoolExecutor(callers) as pool:
            calls = [pool.submit(by_grpc, channel) for _ in range(callers - 4)]
            calls += [pool.submit(by_rest, server.address) for _ in range(4)]
            until(lambda: in_flight(server.address) == callers)
            server.signal(number)
            assert [call.result() for call in calls] == [[400]] * callers
        assert server.wait() == 0


@pytest.mark.parametrize("when", ["load", "predict", "close", "beside"])
def test_sigterm_waits_for_no_code_that_blocks_for_ever(tmp_path, when):
    folder = put(tmp_path, "m", implementation="models.Model", parameters={"extra": {"when": when}}, **SLOW)
    (folder / "models.py").write_text(BLOCKS)
    with (
        Process("tests.stops_soon", "runtime", tmp_path, "--port", "0", folder=tmp_path / "said") as server,
        ExitStack() as asked,
    ):
        if when != "load":
            server.says("^serving m on ")
        if when == "predict":
            host, port = server.says(r"^serving m on (\S+):(\d+),").groups()
            body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [91]}]}'
            client = asked.enter_context(socket.create_connection((host, int(port))))
            client.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            client.sendall(body)
        if when == "close":
            server.signal(signal.SIGTERM)
        server.says("^it blocks$")
        if when != "close":
            server.signal(signal.SIGTERM)
        ends = when in ("load", "beside")  # but for what Python would wait for
        assert server.wait() == (not ends)
        said = "what a model's code still does is given up" if ends else "stopping took 1 s; given up: 'm'"
        assert said in server.complained


FORKS = """
import multiprocessing
import time

import numpy as np

class Model:
    def predict(self, inputs):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        child.start()
        child.terminate()
        child.join(60)
        return {"y": np.full(len(inputs["x"]), child.exitcode, np.float32)}
"""


def test_what_a_model_forks_can_be_ended_and_does_not_end_the_server(tmp_path):
    folder = put(tmp_path / "models", "m", implementation="models.Model", **SLOW)
    (folder / "models.py").write_text(FORKS)
    x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    with Runtime(tmp_path / "models", tmp_path) as server, httpx.Client(base_url=f"http://{server.address}") as client:
        for _ in range(2):
            answered = client.post("/v2/models/m/infer", json={"inputs": [x]}).raise_for_status()
            assert answered.json()["outputs"][0]["data"] == [-signal.SIGTERM]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("stdout", [">&-", "| true"])
def test_it_ends_though_nobody_reads_what_it_says(stdout):
    code = (
        "import sys, threading, time; from protos.ending import leave; "
        "threading.Thread(target=time.sleep, args=(60,)).start(); sys.stdout and print('said'); leave(0)"
    )
    ran = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {stdout}', sys.executable, code],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},  # so that it breaks where it is flushed
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0


RUNS_ON = """
from protos.ending import leave
import atexit, threading, torch

module = torch.jit.trace(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()), torch.ones(1, 64))
runs = threading.Semaphore(0)

def run():
    while True:
        module(torch.ones(1, 64))
        runs.release()

for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
for _ in range(1000):
    runs.acquire()
atexit.register(print, "what others do at the end is done")
leave(7)
"""


def test_it_ends_with_its_status_though_models_run_in_threads(tmp_path):
    """Their threads come back from PyTorch to a Python that is no more, and C++ would abort the process."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNS_ON],
        cwd=ROOT,
        timeout=100,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "what others do at the end is done\n", "")


def test_sigterm_waits_for_no_disk_that_does_not_answer(tmp_path):
    put(tmp_path / "models", "m", Mlp())
    with Process("tests.stops_soon", "runtime", tmp_path / "models", "--port", "0", folder=tmp_path) as server:
        host, port = server.says(r"^serving m on (\S+):(\d+),").groups()
        silent = tmp_path / "models" / "silent"
        silent.mkdir()
        os.mkfifo(silent / "model-settings.json")

        def read_by_the_server():
            with suppress(OSError):  # nobody reads there yet
                return os.open(silent / "model-settings.json", os.O_WRONLY | os.O_NONBLOCK)

        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            end = until(read_by_the_server)
            server.signal(signal.SIGTERM)
            assert server.wait() == 1
            os.close(end)
    assert "stopping took 1 s; given up: what is left" in server.complained


def test_a_deadline_ends_a_slow_call(channel):
    with pytest.raises(grpc.RpcError) as late:
        infer(channel, "slow", [400], timeout=0.05)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "gone")]) == 1
    assert (
        capsys.readouterr().err == f"there is no folder {tmp_path}/gone; give the one that holds the models' folders\n"
    )


def test_a_folder_that_cannot_be_listed_is_a_sentence(tmp_path, capsys, monkeypatch):
    def scandir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)  # root, as tests may be run, could list any
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"the folder {tmp_path} cannot be listed: Permission denied\n"


def test_spans_without_what_makes_them_are_a_sentence(tmp_path, capsys, monkeypatch):
    class Without(MetaPathFinder):
        def find_spec(self, name, _path=None, _target=None):
            if name.startswith("opentelemetry"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [each for each in sys.modules if each.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    (tmp_path / "settings.json").write_text('{"tracing_server": "127.0.0.1:4317"}')
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("tracing_server: spans need OpenTelemetry, which is not installed")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_a_sentence(tmp_path, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "runtime", str(tmp_path), "--port", str(port), "--workers", workers]
        ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_connections_beyond_what_files_allow_wait_and_end_nothing(tmp_path):
    with Process("tests.few_files", "200", "runtime", tmp_path, "--port", "0", folder=tmp_path / "said") as server:
        host, port = server.says(r"on (\S+):(\d+), gRPC and REST").groups()
        with ExitStack() as open_ones:
            first = open_ones.enter_context(socket.create_connection((host, int(port))))
            for _ in range(300):
                open_ones.enter_context(socket.create_connection((host, int(port))))
            first.sendall(LIVE)
            first.settimeout(60)
            assert first.recv(1024).startswith(b"HTTP/1.1 200")
        with socket.create_connection((host, int(port)), timeout=60) as next_one:
            next_one.sendall(LIVE)
            assert next_one.recv(1024).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0


def test_importing_the_package_imports_no_pytorch():
    """MLServer imports and reloads the module that a settings file names."""
    code = "import importlib, sys, runtime; importlib.reload(runtime); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
