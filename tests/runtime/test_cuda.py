from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.errors import FailedPrecondition, Internal, ResourceExhausted, Unavailable
from protos.tensors import DATATYPES
from runtime.formats import cuda
from runtime.formats.cuda import Cuda
from runtime.formats.gpu import OnGpu, Staging, buckets
from runtime.formats.pytorch import device_of
from runtime.model import TensorSpec
from runtime.repository import Repository
from runtime.warmup import warm_up
from tests.runtime.contract import ModelContract
from tests.runtime.models import MLP_BYTES, Both, InPlace, Mlp, load_from, put, tensor

PLAIN = {"parameters": {"extra": {"device": "cuda"}}}
GRAPHS = {"parameters": {"extra": {"device": "cuda", "cuda_graphs": "true"}}, "max_batch_size": 8}
DENIED = "operation not permitted when stream is capturing"
ASSERT = "CUDA error: device-side assert triggered"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB."
PAIRS = {"inputs": [tensor("x", "FP32", -1, 2)], "outputs": [tensor("y", "FP32", -1, 2)]}
BOTH = {
    "inputs": [tensor("a", "FP32", -1, 2), tensor("b", "FP32", -1, 2)],
    "outputs": [tensor("sum", "FP32", -1, 2), tensor("difference", "FP32", -1, 2)],
}


class Pretended(Cuda):
    """A queue on the CPU, with the interface of `Cuda`.

    What is copied back is not there before the queue was waited for, and a graph reads and writes at fixed addresses.
    """

    def __init__(self, *, captures: bool = True) -> None:
        self.device = torch.device("cpu")
        self.captures = captures
        self.inside = False
        self.queued: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.host: list[torch.Tensor] = []
        self.replays = 0
        self.released = 0
        self.is_lost = False

    def __enter__(self) -> None:
        assert not self.inside
        self.inside = True

    def __exit__(self, *error) -> None:
        for into, value in self.queued:
            into.copy_(value)
        self.queued.clear()
        self.inside = False

    def pinned(self, size: int) -> torch.Tensor:
        self.host.append(torch.full((size,), 0x7F, dtype=torch.uint8))
        return self.host[-1]

    def copy(self, into: torch.Tensor, value: torch.Tensor) -> None:
        assert self.inside
        back = any(into.untyped_storage().data_ptr() == each.data_ptr() for each in self.host)
        if back:
            self.queued.append((into, value))
        else:
            into.copy_(value)

    def capture(self, work):
        assert self.inside
        if not self.captures:
            try:
                raise RuntimeError(f"{DENIED}. This is advice.\nframe #0")
            finally:
                raise RuntimeError("the capture could not be ended")
        outputs = work()

        def replay() -> None:
            assert self.inside
            self.replays += 1
            for name, value in work().items():
                outputs[name].copy_(value)

        return SimpleNamespace(replay=replay), outputs

    def release(self) -> None:
        assert not self.is_lost
        self.released += 1

    def lost(self) -> bool:
        assert not self.inside
        return self.is_lost


@contextmanager
def pretending(**how) -> Iterator[list[Pretended]]:
    """Has models that are loaded meanwhile run as on a GPU, on the CPU; yields the queues that they got."""
    made: list[Pretended] = []

    def on_gpu(name, forward, inputs, device, reason):
        made.append(Pretended(**how))
        return OnGpu(name, forward, inputs, made[-1], reason)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("torchscript", "exported"):
            patch.setattr(f"runtime.formats.{module}.device_of", lambda _: torch.device("cpu"))
            patch.setattr(f"runtime.formats.{module}.on_gpu", on_gpu)
        yield made


def pretended(root, module, how=GRAPHS, **declared):
    """A model with its queue, that runs as if it were on a GPU."""
    put(root, "m", module, **declared, **how)
    with pretending() as made:
        model = load_from(root)
    return model, made[0]


class TestThroughPinnedMemory(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return pretended(folder, Mlp(), PLAIN)[0]


class TestReplayed(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return pretended(folder, Mlp())[0]


class TestReplayedWithTwoInputsAndOutputs(ModelContract):
    def make(self, folder):
        return pretended(folder, Both(), **BOTH)[0]


class TestReplayedThoughItWritesToItsInputs(ModelContract):
    def make(self, folder):
        return pretended(folder, InPlace(), **PAIRS)[0]


def exported(folder, how):
    """The network as an exported program that takes two rows or more."""
    put(folder, "m", None, **{"implementation": "runtime.ExportedModel", **how})
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(Mlp().eval(), (torch.zeros(3, 4),), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "m" / "model.pt2")
    return folder


class TestReplayedExportedProgram(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        with pretending():
            return load_from(exported(folder, GRAPHS))


def test_a_graph_is_replayed_for_each_number_of_rows_up_to_the_most(tmp_path):
    model, queue = pretended(tmp_path, Mlp())
    for rows in range(9):
        model.run({"x": np.ones((rows, 4), np.float32)})
    assert queue.replays == 9
    assert model.run({"x": np.ones((9, 4), np.float32)})["y"].shape == (9, 1)
    assert queue.replays == 9


def test_without_the_option_nothing_is_captured(tmp_path):
    model, queue = pretended(tmp_path, Mlp(), PLAIN)
    model.run({"x": np.ones((1, 4), np.float32)})
    assert queue.replays == 0


@given(st.integers(1, 5000))
def test_a_bucket_is_less_than_twice_the_rows(most):
    sizes = buckets(most)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, most)
    for rows in {1, most // 3 + 1, most}:
        assert next(size for size in sizes if size >= rows) < 2 * rows


SHAPES = st.lists(st.integers(0, 6), max_size=3).map(tuple)


@given(st.lists(st.tuples(SHAPES, st.sampled_from([torch.float32, torch.bool, torch.bfloat16, torch.int64]))))
def test_memory_for_transfers_grows_and_is_kept(asked):
    sizes: list[int] = []

    def allocate(size: int) -> torch.Tensor:
        sizes.append(size)
        return torch.empty(size, dtype=torch.uint8)

    staging = Staging(allocate)
    most = 0
    for shape, dtype in asked:
        held = staging.tensor(shape, dtype)
        assert (held.shape, held.dtype) == (shape, dtype)
        most = max(most, held.nbytes)
    assert all(2 * a <= b for a, b in pairwise(sizes))
    assert most <= (sizes or [0])[-1] < 2 * most + 1


class Scaled:
    """Forward of x [n, 3] FP32 and i [n] INT64: each row's sum times its i, and x again."""

    inputs = (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("i", "INT64", (-1,)))

    def __call__(self, tensors):
        x, i = tensors
        if bool((i < 0).any()):
            raise ValueError("negative")
        return {"y": x.sum(dim=1) * i, "again": x}


def said(error: Exception) -> str:
    return str(error).partition(".")[0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 3)), min_size=1, max_size=12), st.booleans())
def test_each_run_gets_its_own_answer_and_keeps_it(runs, graphs):
    """Whatever ran before, whatever failed, whatever runs later in the same memory."""
    on_gpu = OnGpu("m", Scaled(), Scaled.inputs, Pretended(), said)
    if graphs:
        on_gpu.capture(8)
    answers = []
    for number, (rows, i) in enumerate(runs):
        x = np.full((rows, 3), number + 1, np.float32)
        arrays = {"i": np.full(rows, i), "x": x}
        if i < 0 and rows:
            with pytest.raises(Internal, match="negative"):
                on_gpu.run(arrays)
        else:
            answers.append((x, i, on_gpu.run(arrays)))
    for x, i, answer in answers:
        assert answer["y"].tolist() == (x.sum(axis=1) * i).tolist()
        assert answer["again"].tolist() == x.tolist()


def test_what_a_batch_is_filled_up_with_is_nobodys():
    seen = []

    def forward(tensors):
        seen.append(tensors[0].clone())
        return {"y": tensors[0]}

    on_gpu = OnGpu("m", forward, [TensorSpec("x", "FP32", (-1, 1))], Pretended(), said)
    on_gpu.capture(4)
    on_gpu.run({"x": np.full((4, 1), 7, np.float32)})
    on_gpu.run({"x": np.full((3, 1), 5, np.float32)})
    assert seen[-1].flatten().tolist() == [5, 5, 5, 0]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES"}))
def test_every_datatype_but_bytes_is_replayed(tmp_path, datatype):
    declared = {"inputs": [tensor("input", datatype, -1)], "outputs": [tensor("y", datatype, -1)]}
    model, queue = pretended(tmp_path, torch.nn.Identity(), **declared)
    x = np.array([0, 1, 1], DATATYPES[datatype])
    y = model.run({"input": x})["y"]
    assert (y.dtype, y.tolist(), queue.replays) == (x.dtype, x.tolist(), 1)


@pytest.mark.parametrize(
    "x", [np.ones((2, 3), np.float32), np.ones((2, 1), np.float32), np.ones((2, 4), ml_dtypes.bfloat16)]
)
def test_what_is_not_as_declared_is_for_the_model_to_refuse(tmp_path, x):
    model, queue = pretended(tmp_path, Mlp())
    with pytest.raises(Internal, match="RuntimeError: "):
        model.run({"x": x})
    assert queue.replays == 0


def test_what_is_no_tensor_is_refused():
    on_gpu = OnGpu("m", lambda _: {"y": 3}, [TensorSpec("x", "FP32", (-1, 1))], Pretended(), said)
    with pytest.raises(Internal, match="output 'y' is int, not a tensor"):
        on_gpu.run({"x": np.ones((1, 1), np.float32)})


def test_a_model_that_cannot_be_captured_runs_without(tmp_path, caplog):
    put(tmp_path, "m", Mlp(), **GRAPHS)
    with pretending(captures=False), caplog.at_level(logging.WARNING):
        model = load_from(tmp_path)
    assert caplog.messages == [f"model 'm' runs without CUDA graphs: {DENIED}"]
    x = np.random.default_rng(0).random((3, 4), np.float32)
    with torch.no_grad():
        np.testing.assert_array_equal(model.run({"x": x})["y"], Mlp()(torch.from_numpy(x)).numpy())


def test_a_model_that_declares_rows_and_returns_one_is_not_captured(caplog):
    """Its rows could not be told from the filling; warm-up then says what is wrong with it."""
    forward = {"y": torch.zeros(1, 1)}
    on_gpu = OnGpu("m", lambda _: forward, [TensorSpec("x", "FP32", (-1, 1))], Pretended(), said)
    on_gpu.capture(4)
    assert "output 'y' is no tensor of 4 rows" in caplog.text


def test_a_closed_model_gives_its_memory_back(tmp_path):
    model, queue = pretended(tmp_path, Mlp())
    before = queue.released
    model.close()
    assert queue.released == before + 1
    gc.collect()
    assert not [each for each in gc.get_objects() if issubclass(type(each), OnGpu)]


def test_a_closed_exported_program_holds_nothing_though_nobody_looks_for_circles(tmp_path):
    def weights():
        return [each for each in gc.get_objects() if issubclass(type(each), torch.nn.Parameter)]

    exported(tmp_path, GRAPHS)
    gc.collect()
    others = set(map(id, weights()))
    with pretending():
        model = load_from(tmp_path)
    ours = [weakref.ref(each) for each in weights() if id(each) not in others]
    model.close()
    assert ours
    assert not [each for each in ours if each() is not None]
    model.close()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(FULL), RuntimeError(f"The script failed.\nRuntimeError: {FULL}")]
)
def test_a_run_for_which_the_gpu_has_no_memory_is_refused(error):
    def forward(tensors):
        if len(tensors[0]) > 1:
            raise error
        return {"y": tensors[0]}

    on_gpu = OnGpu("m", forward, [TensorSpec("x", "FP32", (-1, 1))], Pretended(), lambda _: FULL)
    with pytest.raises(ResourceExhausted, match=r"cpu has no memory left for this run: CUDA out of memory$"):
        on_gpu.run({"x": np.ones((2, 1), np.float32)})
    assert on_gpu.run({"x": np.ones((1, 1), np.float32)})["y"].tolist() == [[1]]


def test_a_gpu_that_is_lost_is_asked_no_more(caplog, monkeypatch):
    lost: dict[str, str] = {}
    monkeypatch.setattr("runtime.devices.lost", lost)
    runs = []

    def forward(tensors):
        runs.append(tensors)
        raise RuntimeError(ASSERT)

    queue = Pretended()
    on_gpu = OnGpu("m", forward, [TensorSpec("x", "FP32", (-1, 1))], queue, said)
    queue.is_lost = True
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"cpu does nothing more for this process, which must be .*: {ASSERT}"):
            on_gpu.run({"x": np.ones((2, 1), np.float32)})
    assert len(runs) == 1
    assert list(lost) == ["cpu"]
    assert [each.levelname for each in caplog.records] == ["ERROR"]


def test_what_a_model_has_on_a_gpu_that_is_lost_is_left_alone(monkeypatch):
    kept: list[OnGpu] = []
    monkeypatch.setattr("runtime.formats.gpu._abandoned", kept)
    queue = Pretended()
    on_gpu = OnGpu("m", Scaled(), Scaled.inputs, queue, said)
    queue.is_lost = True
    on_gpu.close()
    assert (kept, queue.released) == ([on_gpu], 0)


def test_a_model_that_does_not_fit_is_not_blamed_on_its_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr("torch.jit.load", fail)
    monkeypatch.setattr("runtime.formats.exported_program.load_pt2", fail)
    put(tmp_path, "script", Mlp())
    for name in ("script", exported(tmp_path, {}) and "m"):
        with pytest.raises(FailedPrecondition, match=r"json: it cannot be put on the GPU: CUDA out of memory$"):
            load_from(tmp_path, name)


@pytest.mark.parametrize(("named", "number"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_has_a_number_whether_it_was_given_one_or_not(tmp_path, named, number, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    put(tmp_path, "m", parameters={"extra": {"device": named}})
    (found,) = Repository(tmp_path).find("m")
    assert found.settings
    assert device_of(found.settings) == torch.device("cuda", number)


class Line:
    """A stream of a GPU that is not there; it tells its errors, one at a time."""

    cuda_stream = 1

    def __init__(self) -> None:
        self.errors: list[str] = []

    def wait_stream(self, other) -> None:
        assert other == "of the weights"

    def synchronize(self) -> None:
        if self.errors:
            raise RuntimeError(self.errors.pop())


@pytest.fixture
def line(monkeypatch) -> Line:
    line = Line()
    monkeypatch.setattr("torch.cuda.Stream", lambda _: line)
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: "of the weights")
    monkeypatch.setattr("torch.cuda.stream", lambda _: nullcontext())
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(cuda, "_turns", {})
    return line


def test_an_error_of_the_queue_is_told_at_its_end_and_the_next_has_its_turn(line):
    queue, other = Cuda(torch.device("cuda:0")), Cuda(torch.device("cuda:0"))
    line.errors = [ASSERT]
    with pytest.raises(RuntimeError, match=ASSERT), queue:
        pass
    assert not queue.lost()
    line.errors = [ASSERT] * 2
    with pytest.raises(RuntimeError, match=ASSERT), other:
        pass
    assert other.lost()
    assert not cuda._turns[line.cuda_stream].locked()


def test_memory_is_not_given_back_while_a_graph_is_captured(line, monkeypatch):
    alone = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: alone.append(cuda._capturing.locked()))
    Cuda(torch.device("cuda:0")).release()
    assert alone == [True]


@pytest.mark.parametrize(
    ("extra", "declared", "says"),
    [
        ({}, {}, "parameters.extra.cuda_graphs: the device is 'cpu'; set parameters.extra.device to cuda"),
        ({"device": "cuda"}, {"inputs": [tensor("x", "FP32", 1, 4)]}, "'x' is FP32 [1, 4]; its first dimension must"),
        ({"device": "cuda"}, {"outputs": [tensor("y", "FP32", 1)]}, "'y' is FP32 [1]; its first dimension must count"),
        ({"device": "cuda:1"}, {"inputs": [tensor("x", "FP32", -1, -1)]}, "input 'x' is FP32 [-1, -1]; a graph has"),
        ({"implementation": "runtime.ExportedModel"}, {}, "the device is 'cpu'"),
    ],
)
def test_a_model_that_can_have_no_graph_is_refused_with_a_sentence(tmp_path, extra, declared, says):
    if "implementation" in extra:
        declared = {**declared, **extra}
        (put(tmp_path, "m") / "model.pt2").write_bytes(b"")
        extra = {}
    put(tmp_path, "m", Mlp(), parameters={"extra": {"cuda_graphs": True, **extra}}, **declared)
    with pytest.raises(FailedPrecondition) as refused:
        load_from(tmp_path)
    assert str(tmp_path / "m") in refused.value.message
    assert says in refused.value.message


def test_warm_up_runs_what_will_be_served(tmp_path):
    model, queue = pretended(tmp_path, Mlp())
    warm_up(model, max_rows=8)
    assert queue.replays > 8
