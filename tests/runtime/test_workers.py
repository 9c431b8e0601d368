"""Several processes that serve the same models on one port, as clients see them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.messages import RepositoryModelLoadRequest, RepositoryModelUnloadRequest
from protos.tensors import outputs_of
from protos.workers.supervisor import Supervisor
from runtime.__main__ import main
from runtime.process import STOP_SECONDS
from runtime.server_settings import ServerSettings
from runtime.supervisor import supervise
from tests import plain_http
from tests.process import ROOT, Runtime, until
from tests.runtime.models import Slow, Times, put
from tests.runtime.test_process import SLOW, TIMES, call, infer, states

WORKERS = 2
ALONE = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each channel
CONNECTIONS = 24  # so many never all end in one process: once in 2^23 runs


def written(root):
    """A folder with "m" and "slow"."""
    put(root, "m", Times(2), **TIMES)
    put(root, "slow", Slow(), **SLOW)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return written(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    """For tests that leave "m" and "slow" as they are, and the server running."""
    with Runtime(models, tmp_path_factory.mktemp("said"), "--workers", str(WORKERS)) as server:
        assert server.welcome.startswith("serving m, slow on ")
        yield server


def answers(server, name="m"):
    """What each of many connections gets from a model: its factor, or a status."""

    def ask(_):
        with grpc.insecure_channel(server.address, ALONE) as channel:
            try:
                return outputs_of(infer(channel, name, [[1, 0, 0, 0]]))["y"][0, 0]
            except grpc.RpcError as error:
                return error.code()

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(ask, range(CONNECTIONS)))


def replaced(server, victim):
    return len(set(server.children()) - {victim}) == WORKERS


def metric(server, name, **labels):
    text = plain_http.get(f"http://{server.address}/metrics").raise_for_status().text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_all_share_the_port_and_count_together(server):
    assert len(server.children()) == WORKERS
    for times in (1, 2):
        assert answers(server) == {2: CONNECTIONS}
        assert metric(server, "runtime_requests_total", model="m", code="OK") == times * CONNECTIONS
    assert metric(server, "runtime_request_seconds_count", model="m") == 2 * CONNECTIONS
    assert metric(server, "model_infer_request_success_total", model="m") == 2 * CONNECTIONS


def test_a_model_is_loaded_and_unloaded_everywhere_before_that_is_acknowledged(server, models):
    with grpc.insecure_channel(server.address) as channel:
        for factor in (3, 4):
            put(models, "changing", Times(factor), **TIMES)
            call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="changing"))
            assert answers(server, "changing") == {factor: CONNECTIONS}
        call(channel, "RepositoryModelUnload", RepositoryModelUnloadRequest(model_name="changing"))
        assert answers(server, "changing") == {grpc.StatusCode.NOT_FOUND: CONNECTIONS}
        assert states(channel)["changing", ""] == ("UNAVAILABLE", "unloaded")
        with pytest.raises(grpc.RpcError) as unknown:
            call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="nobody"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        put(models, "changing", b"junk")
        with pytest.raises(grpc.RpcError) as broken:
            call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="changing"))
        assert broken.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "model.pt is not a TorchScript archive" in broken.value.details()


def test_the_successor_of_one_that_died_knows_what_was_loaded_and_counters_never_fall(server, models):
    put(models, "late", Times(5), **TIMES)
    put(models, "gone", Times(6), **TIMES)
    put(models, "part", Times(8), **TIMES)
    made: dict[str, Any] = {"implementation": "runtime.Chain", "parameters": {"extra": {"steps": ["part"]}}}
    put(models, "whole", inputs=None, outputs=None, **made)
    with httpx.Client(base_url=f"http://{server.address}", timeout=60) as client:
        for name in ("late", "gone"):
            client.post(f"/v2/repository/models/{name}/load").raise_for_status()
        wrong = client.post("/v2/repository/models/late/load", json={"parameters": {"config": "junk"}})
        assert wrong.status_code == 422
        client.post("/v2/repository/models/gone/unload").raise_for_status()
        client.post("/v2/repository/models/slow/unload").raise_for_status()
        client.post("/v2/repository/models/slow/load").raise_for_status()
        for name, change in (("whole", "load"), ("part", "unload"), ("whole", "load")):
            client.post(f"/v2/repository/models/{name}/{change}").raise_for_status()
    put(models, "gone", Times(7), **TIMES)  # which nobody asked for
    assert answers(server, "late") == {5: CONNECTIONS}
    assert metric(server, "model_infer_request_success_total", model="late") == CONNECTIONS
    for victim in server.children():
        os.kill(victim, signal.SIGKILL)
        until(partial(replaced, server, victim))
        until(lambda: metric(server, "runtime_model_loaded", model="late") == WORKERS)
    assert metric(server, "model_infer_request_success_total", model="late") == CONNECTIONS
    assert answers(server, "late") == {5: CONNECTIONS}
    assert metric(server, "model_infer_request_success_total", model="late") == 2 * CONNECTIONS
    assert answers(server, "gone") == {grpc.StatusCode.NOT_FOUND: CONNECTIONS}
    assert answers(server, "whole") == answers(server, "part") == {8: CONNECTIONS}
    assert server.complained.count("another takes its place") == WORKERS


def test_the_successor_of_one_that_died_leaves_calls_to_the_others_where_it_finds_other_files(server, models):
    put(models, "drifts", Times(5), **TIMES)
    with grpc.insecure_channel(server.address) as channel:
        call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="drifts"))
    put(models, "drifts", Times(6), **TIMES)  # which nobody asked for
    victim = server.children()[0]
    os.kill(victim, signal.SIGKILL)
    until(partial(replaced, server, victim))
    until(lambda: metric(server, "runtime_workers_held_back") == 1)
    assert answers(server, "drifts") == {5: CONNECTIONS}
    assert answers(server) == {2: CONNECTIONS}
    assert "takes no connections, as it has not loaded what the others serve of 'drifts'" in server.complained
    with grpc.insecure_channel(server.address) as channel:
        assert states(channel)["drifts", ""] == (
            "READY",
            "its files changed, and not all processes have loaded the same; load it again",
        )
        call(channel, "RepositoryModelLoad", RepositoryModelLoadRequest(model_name="drifts"))
        assert states(channel)["drifts", ""] == ("READY", "")
    assert answers(server, "drifts") == {6: CONNECTIONS}
    until(lambda: metric(server, "runtime_workers_held_back") == 0)


def test_sigterm_lets_every_call_in_flight_finish(tmp_path):
    def ask(address, together):
        with grpc.insecure_channel(address, ALONE) as channel:
            infer(channel, "m", [[1, 0, 0, 0]])
            together.wait()
            return outputs_of(infer(channel, "slow", [400]))["y"].tolist()

    together = threading.Barrier(CONNECTIONS)
    models = written(tmp_path / "models")
    with Runtime(models, tmp_path, "--workers", str(WORKERS)) as server, ThreadPoolExecutor(CONNECTIONS) as pool:
        calls = [pool.submit(ask, server.address, together) for _ in range(CONNECTIONS)]
        until(lambda: metric(server, "runtime_requests_in_flight", model="slow") == CONNECTIONS)
        server.signal(signal.SIGTERM)
        assert [call.result() for call in calls] == [[400]] * CONNECTIONS
        assert server.wait() == 0
        assert server.children() == []
        assert "runtime" not in server.complained  # its loggers have nothing to say


def test_no_worker_outlives_its_supervisor(tmp_path):
    (tmp_path / "models").mkdir()
    with Runtime(tmp_path / "models", tmp_path / "said", "--workers", str(WORKERS)) as server:
        assert server.welcome.startswith("serving no models on ")
        workers = server.children()
        assert len(workers) == WORKERS
        server.kill()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_another_servers_port_is_not_shared(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "runtime", str(tmp_path), "--port", str(port), "--workers", "2"]
        ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 1
    assert ran.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_workers_that_cannot_start_end_the_server(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert main([str(tmp_path), "--port", "0", "--workers", "2"]) == 1
    assert "a worker ended with status 1 before all were up" in caplog.text


def test_a_worker_has_as_long_to_stop_as_a_server_that_is_alone(tmp_path, monkeypatch):
    """Or its supervisor would kill it in the middle of a call that it may still answer."""
    given = []

    async def run(supervisor):
        given.append(supervisor.stop_seconds)
        return True

    monkeypatch.setattr(Supervisor, "run", run)
    assert asyncio.run(supervise(tmp_path, ServerSettings(parallel_workers=2), lambda _started: None))
    assert given == [STOP_SECONDS]
