"""The benchmark measures what it says: who stands in the middle passes the echo's answer on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import hop
from benchmarks.envoy import binary, envoy
from benchmarks.h2load import load
from benchmarks.targets import METHOD, check, message
from tests.process import until

REQUESTS = 320


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    with hop.echo(tmp_path_factory.mktemp("echo")) as target:
        yield target


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: nghttp2-client has it")
@pytest.mark.parametrize("name", hop.CLIENTS)
def test_the_router_passes_on_under_load(behind, tmp_path: Path, name: str):
    with hop.router(tmp_path, behind.address, name) as target:
        check(target, message())
        before = behind.process.cpu_seconds()
        assert load(target.address, METHOD, message(), requests=REQUESTS).requests == REQUESTS
        until(lambda: behind.process.cpu_seconds() > before)


if binary() is not None:  # 120 MB, which `make bench` installs, are too much for one test of every run

    def test_envoy_passes_on(behind, tmp_path: Path):
        with envoy(tmp_path, behind.address) as target:
            check(target, message())


@pytest.mark.parametrize(("ratio", "status"), [(2.4, 0), (2.6, 1), (None, 0)])
def test_only_a_ratio_above_the_promise_fails(monkeypatch, capsys, ratio, status):
    row = {"cpu_us": 1.0, "cpu_us_least": 1.0, "requests_per_second": 1.0, "one_at_a_time_ms": 1.0}
    figures = {hop.ECHO: row, hop.ROUTER: row}
    if ratio is not None:
        figures = {hop.ECHO: row, hop.ENVOY: row | {"of_envoy": 1.0}, hop.ROUTER: row | {"of_envoy": ratio}}
    monkeypatch.setattr(hop, "measure", lambda *_: figures)
    monkeypatch.setattr("sys.argv", ["hop", "--quick"])
    assert hop.main() == status
    assert ("no Envoy" in capsys.readouterr().out) == (ratio is None)
