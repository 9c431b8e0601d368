"""What only a real GPU can show; on other machines these are skipped. See test_cuda.py for all else."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from protos.errors import Internal, ResourceExhausted
from protos.tensors import outputs_of
from runtime.formats import load
from runtime.warmup import warm_up
from tests.process import ROOT
from tests.runtime.contract import ModelContract
from tests.runtime.models import MLP_BYTES, Choosy, InPlace, Mlp, load_from, put, tensor
from tests.runtime.test_cuda import GRAPHS, PAIRS, PLAIN, exported
from tests.runtime.test_engine import request, running

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


class TestOnAGpuThroughPinnedMemory(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        put(folder, "m", Mlp(), **PLAIN)
        return load_from(folder)


class TestOnAGpuReplayed(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        put(folder, "m", Mlp(), **GRAPHS)
        return load_from(folder)


class TestOnAGpuReplayedThoughItWritesToItsInputs(ModelContract):
    def make(self, folder):
        put(folder, "m", InPlace(), **PAIRS, **GRAPHS)
        return load_from(folder)


class TestOnAGpuReplayedExportedProgram(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return load_from(exported(folder, GRAPHS))


class Sequence(torch.nn.Module):
    """y [n, 1] = a recurrent network of x [n, 10, 33], whose kernels cuDNN brings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = torch.nn.LSTM(33, 64, batch_first=True)
        self.head = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells, _ = self.cells(x)
        y: torch.Tensor = self.head(cells[:, -1])
        return y


NETWORKS = {
    "mlp": (Mlp, {}),
    "lstm": (Sequence, {"inputs": [tensor("x", "FP32", -1, 10, 33)]}),
}


def captured(model) -> bool:
    return bool(model._gpu._buckets)


@pytest.mark.parametrize("how", [PLAIN, GRAPHS])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_gpu_answers_as_the_cpu_does(tmp_path, network, how, caplog):
    make, declared = NETWORKS[network]
    put(tmp_path, "m", make(), **declared, **how)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # whose 10 bits are PyTorch's choice for an LSTM
        model = load_from(tmp_path)
        warm_up(model, max_rows=8)
        assert captured(model) == (how is GRAPHS), caplog.text
        rng = np.random.default_rng(0)
        for rows in (1, 2, 3, 5, 8, 9, 100, 4, 0):
            x = rng.random((rows, *model.inputs[0].shape[1:]), np.float32)
            with torch.no_grad():
                expected = make()(torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=1e-3, atol=1e-4)
        model.close()


@pytest.mark.parametrize("how", [PLAIN, GRAPHS])
def test_models_on_a_gpu_run_beside_each_other_and_beside_captures(tmp_path, how):
    """More than there are streams, so that some share one."""
    put(tmp_path, "m", Mlp(), **how)
    x = np.random.default_rng(0).random((20, 4), np.float32)
    with torch.no_grad():
        expected = Mlp()(torch.from_numpy(x)).numpy()
    kept: list = []

    def work(number: int) -> None:
        model = load_from(tmp_path)
        for rows in (1, 3, 8, 20) * 5:
            np.testing.assert_allclose(model.run({"x": x[:rows]})["y"], expected[:rows], rtol=1e-3, atol=1e-4)
        assert captured(model) == (how is GRAPHS)
        if number % 2:
            model.close()
        else:
            kept.append(model)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(40)))
    for model in kept:
        model.run({"x": np.ones((3, 4), np.float32)})
        model.close()


def test_a_model_on_a_gpu_that_cannot_be_captured_runs_without(tmp_path, caplog):
    """It asks for a value while it runs; and it leaves the next model's capture alone."""
    put(tmp_path, "m", Choosy(), **PAIRS, **GRAPHS)
    with caplog.at_level(logging.WARNING):
        model = load_from(tmp_path)
    assert "model 'm' runs without CUDA graphs: " in caplog.text
    assert "captur" in caplog.messages[-1]
    assert not captured(model)
    assert model.run({"x": np.ones((3, 2), np.float32)})["y"].tolist() == [[2, 2]] * 3
    with pytest.raises(Internal, match="too large"):
        model.run({"x": np.full((3, 2), 2, np.float32)})
    assert model.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]
    put(tmp_path, "n", Mlp(), **GRAPHS)
    assert captured(load_from(tmp_path, "n"))


@pytest.mark.parametrize("how", [PLAIN, GRAPHS])
def test_a_closed_model_gives_the_gpus_memory_back(tmp_path, how):
    declared = {"inputs": [tensor("input", "INT64", -1)], "outputs": [tensor("y", "FP32", -1, 16)]}
    put(tmp_path, "m", torch.nn.Embedding(1 << 20, 16), **declared, **how)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    model = load_from(tmp_path)
    warm_up(model, max_rows=8)
    assert torch.cuda.memory_reserved() >= before + (1 << 26)
    model.close()
    del model
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


class Greedy(torch.nn.Module):
    """y = x, by way of a terabyte for each row but the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            x = x.repeat(1, 1 << 37)[:, : x.shape[1]]
        return x


def test_a_run_too_large_for_the_gpu_is_refused_and_the_next_is_not(tmp_path):
    put(tmp_path, "m", Greedy(), **PAIRS, **PLAIN)
    model = load_from(tmp_path)
    with pytest.raises(ResourceExhausted, match=r"cuda:0 has no memory left for this run: .*CUDA out of memory$"):
        model.run({"x": np.ones((2, 2), np.float32)})
    assert model.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[1, 1]]


LOSE = """
import sys
from pathlib import Path
import numpy as np
from protos.errors import Unavailable
from tests.runtime.models import load_from

model = load_from(Path(sys.argv[1]))
for place in (1, 1 << 20, 1):
    try:
        print(model.run({"input": np.array([place])})["y"].shape, flush=True)
    except Unavailable:
        print("unavailable", flush=True)
model.close()
print("closed", flush=True)
"""


@pytest.mark.parametrize("how", [PLAIN, GRAPHS])
def test_a_model_says_that_the_gpu_is_lost(tmp_path, how):
    """As it is after a place beyond the end of a table; in a process of its own, which can use it no more."""
    declared = {"inputs": [tensor("input", "INT64", -1)], "outputs": [tensor("y", "FP32", -1, 2)]}
    put(tmp_path, "m", torch.nn.Embedding(4, 2), **declared, **how)
    command = [sys.executable, "-c", LOSE, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert told.stdout.split("\n")[:4] == ["(1, 2)", "unavailable", "unavailable", "closed"], told.stderr


@pytest.mark.parametrize(("extra", "both"), [({}, False), ({"overlap": "true"}, True)])
def test_a_reload_has_both_models_on_the_gpu_only_if_that_is_asked_for(tmp_path, extra, both):
    """Which two differ in their first number, and are 64 MiB each."""
    size = 1 << 26
    declared = {"inputs": [tensor("x", "INT64", -1)], "outputs": [tensor("y", "FP32", -1, 16)]}
    how = {"parameters": {"extra": {"device": "cuda", **extra}}}

    def keep(first):
        table = torch.nn.Embedding(size // 64, 16)
        table.weight.data[0] = first
        put(tmp_path, "m", table, **declared, **how)

    async def scenario():
        asked = request(x=np.zeros(1, np.int64))
        async with running(tmp_path, load) as engine:
            keep(1)
            await engine.load("m")
            keep(2)
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
            answers: list[float] = []

            async def ask():
                while answers[-3:] != [2] * 3:
                    answers.append(outputs_of(await engine.infer(asked))["y"][0, 0])

            asking = asyncio.create_task(ask())
            await engine.load("m")
            await asking
            assert answers == sorted(answers)
            return torch.cuda.max_memory_allocated()

    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    most = asyncio.run(scenario()) - before
    assert (most >= 2 * size) == both
    assert most < (2.5 if both else 1.5) * size
