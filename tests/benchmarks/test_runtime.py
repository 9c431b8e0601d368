"""The benchmark of the runtime: equal answers, figures of what was asked, and promises that can be broken."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from benchmarks import first, triton
from benchmarks.pace import Rounds
from benchmarks.runtime import CASES, CPU_US, Figure, Round, answer, broken, figure, once, table
from benchmarks.servers import MLSERVER, OURS, SERVERS, TRITON

h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: nghttp2-client has it")


def mlp(server, cpu_us, concurrent=32):
    return Figure(server, "mlp", concurrent, cpu_us, 1000.0, 1.0, 2.0, 3.0, 3, 3)


def test_promises_that_are_kept_say_nothing():
    assert broken([mlp(OURS, 60.0), mlp(MLSERVER, 700.0), mlp(TRITON, 100.0)]) == []


def test_nothing_is_promised_of_one_call_at_a_time():
    assert broken([mlp(OURS, 300.0, 1), mlp(MLSERVER, 700.0, 1), mlp(TRITON, 100.0, 1)]) == []


def test_each_broken_promise_is_said():
    assert len(broken([mlp(OURS, CPU_US + 1)])) == 1
    assert len(broken([mlp(OURS, 70.0), mlp(MLSERVER, 600.0)])) == 1
    assert len(broken([mlp(OURS, 70.0), mlp(TRITON, 60.0)])) == 1


def test_the_table_has_a_line_for_each_figure():
    assert len(table([mlp(OURS, 60.0), mlp(MLSERVER, 700.0)]).splitlines()) == 3


@h2load
@pytest.mark.parametrize("name", [OURS, MLSERVER])
def test_a_server_answers_every_case_and_is_measured(name, tmp_path):
    with SERVERS[name](tmp_path) as target:
        for case in CASES:
            y = answer(target, case)
            assert y.shape == (case.rows, 1)
            assert np.isfinite(y).all()
        seen = once(target, CASES[0], 8, 0.05)
    assert seen.cpu_us > 0
    assert seen.per_second > 0
    assert (seen.seconds > 0).all()


def test_a_figure_is_of_all_requests_in_the_rounds_that_count():
    rounds = [Round(cpu, 1000.0, np.full(100, ms * 1e-3)) for cpu, ms in ((50.0, 1.0), (60.0, 2.0), (70.0, 3.0))]
    seen = figure(OURS, "mlp", 32, Rounds([*rounds, Round(900.0, 1.0, np.ones(100))], rounds, rounds))
    assert (seen.cpu_us, seen.p50_ms, seen.p99_ms, seen.p999_ms) == pytest.approx((60.0, 2.0, 3.0, 3.0))
    assert (seen.rounds, seen.calm) == (4, 3)


@pytest.mark.parametrize("state", [first.COLD, first.WARM])
def test_the_first_calls_of_a_model_are_timed(tmp_path, monkeypatch, state):
    monkeypatch.setattr(first, "CALLS", 20)
    first.write(tmp_path)
    seen = first.run(tmp_path, "mlp", state)
    assert seen.first > 0
    assert 0 < seen.p50 <= seen.p999
    assert first.table({"mlp": {state: seen}}).splitlines()[1].split()[:2] == ["mlp", state]


def test_a_model_folder_for_triton_says_what_the_model_takes(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"archive")
    triton.write_model(tmp_path / "models", "net", tmp_path / "net.pt", [10, 33], [1])
    config = (tmp_path / "models" / "net" / "config.pbtxt").read_text()
    assert 'input [{ name: "x" data_type: TYPE_FP32 dims: [10, 33] }]' in config
    assert (tmp_path / "models" / "net" / "1" / "model.pt").read_bytes() == b"archive"
