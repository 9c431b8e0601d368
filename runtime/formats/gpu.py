"""How a model runs on a GPU: its tensors travel through pinned memory, and its launches may be replayed from a graph.

A small network is many short kernels, and to launch them takes longer than to run them. A CUDA graph launches all with
one call, but for one shape and at fixed addresses: so there is one for each of a few numbers of rows, the buckets, and
a batch is filled up with zeros to the next.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from protos.errors import CallError, FailedPrecondition, Internal, ResourceExhausted, Unavailable
from protos.tensors import DATATYPES
from runtime import devices
from runtime.formats.cuda import Cuda
from runtime.formats.pytorch import array_of, is_full, tensor_of
from runtime.model import Arrays, TensorSpec
from runtime.options import FormatOptions
from runtime.settings import ModelSettings

RUNS = 3  # before a capture: in the first ones PyTorch compiles, and its libraries choose kernels and take memory

Forward = Callable[[list[Tensor]], Mapping[str, Any]]  # inputs in the order of their specs; outputs by name

_log = logging.getLogger(__name__)

_abandoned: list[OnGpu] = []  # closed on a GPU that was lost: to free pinned memory there would end the process


def wants_graphs(settings: ModelSettings) -> bool:
    """Whether `parameters.extra.cuda_graphs` is set. Raises FailedPrecondition where such a model can have none."""
    options, where = settings.options, "parameters.extra.cuda_graphs"
    if not isinstance(options, FormatOptions) or not options.cuda_graphs:
        return False
    if not options.gpu:
        raise FailedPrecondition(f"{where}: the device is {options.device!r}; set parameters.extra.device to cuda")
    for spec in (*settings.inputs, *settings.outputs):
        if not spec.counts_rows:
            raise FailedPrecondition(f"{where}: {spec.name!r} is {spec}; its first dimension must count rows: -1")
    for spec in settings.inputs:
        if -1 in spec.shape[1:]:
            raise FailedPrecondition(
                f"{where}: input {spec.name!r} is {spec}; a graph has fixed shapes, so only the first may be free"
            )
    return True


def buckets(max_rows: int) -> list[int]:
    """The numbers of rows that have a graph: powers of two, so that most of a run is no filling, and `max_rows`."""
    return [*(1 << power for power in range((max_rows - 1).bit_length())), max_rows]


class Staging:
    """Memory for one tensor's transfers: kept from run to run, and grown when a run needs more."""

    def __init__(self, allocate: Callable[[int], Tensor]) -> None:
        self._allocate = allocate  # bytes
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The memory as a tensor with whatever lies there. Good until the next one is asked for."""
        size = prod(shape) * dtype.itemsize
        if size > len(self._bytes):
            self._bytes = self._allocate(max(size, 2 * len(self._bytes)))
        return self._bytes[:size].view(dtype).view(tuple(shape))


class _Bucket(NamedTuple):
    """A graph, and where it finds its inputs and leaves its outputs."""

    rows: int
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: Mapping[str, Tensor]


def on_gpu(
    name: str, forward: Forward, inputs: Sequence[TensorSpec], device: torch.device, reason: Callable[[Exception], str]
) -> OnGpu | None:
    """What runs `forward` on a GPU; None on a CPU, where it runs as it is."""
    return None if device.type == "cpu" else OnGpu(name, forward, inputs, Cuda(device), reason)


class OnGpu:
    """The `forward` of a model on a GPU. `reason` says in a sentence what went wrong in it.

    One thread at a time runs it. Arrays that it returned are the caller's: no later run writes to them.
    """

    def __init__(
        self, name: str, forward: Forward, inputs: Sequence[TensorSpec], gpu: Cuda, reason: Callable[[Exception], str]
    ) -> None:
        self._name = name
        self._forward = forward
        self._inputs = inputs
        self._fixed = {spec.name: (DATATYPES[spec.datatype], spec.shape[1:]) for spec in inputs}
        self._gpu = gpu
        self._reason = reason
        self._sent = defaultdict[str, Staging](lambda: Staging(gpu.pinned))
        self._fetched = defaultdict[str, Staging](lambda: Staging(gpu.pinned))
        self._buckets: list[_Bucket] = []  # the smallest first
        self._inference = torch.inference_mode()
        self._lost = ""  # why the GPU can be used no more

    def run(self, arrays: Arrays) -> Arrays:
        """All outputs for all inputs, by name.

        Raises Internal with what PyTorch says, ResourceExhausted where the GPU has no memory left, and Unavailable,
        from then on, once it does nothing more for this process.
        """
        if self._lost:
            raise Unavailable(self._lost)
        try:
            with self._inference, self._gpu:
                bucket = self._bucket(arrays)
                outputs = self._run(arrays) if bucket is None else self._replay(bucket, arrays)
                fetched = {name: self._fetch(name, value) for name, value in outputs.items()}
        except CallError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        return {name: array_of(name, value).copy() for name, value in fetched.items()}

    def capture(self, max_rows: int, fewest: int = 1) -> None:
        """Has runs of up to `max_rows` rows replayed, or none, with a line in the log, where PyTorch cannot.

        `fewest` are the rows that `forward` takes.
        """
        try:
            with self._inference, self._gpu:
                whole = [self._zeros(spec, max_rows) for spec in self._inputs]
                for rows in reversed(buckets(max_rows)):  # the others fit into the memory of the largest
                    if rows >= fewest:
                        self._buckets.insert(0, self._captured([each[:rows] for each in whole], rows))
        except Exception as error:  # noqa: BLE001 - whatever it is, the model runs without
            self._buckets.clear()
            _log.warning("model %r runs without CUDA graphs: %s", self._name, self._reason(_first(error)))
        self._gpu.release()

    def close(self) -> None:
        """Gives graphs and memory back; it is not run again. May be called twice."""
        if self._gpu.lost():
            _abandoned.append(self)
            return
        for held in (self._buckets, self._sent, self._fetched):
            held.clear()
        self._gpu.release()

    def _bucket(self, arrays: Arrays) -> _Bucket | None:
        """The smallest into which these arrays go, if they are as declared and there is one so large."""
        if not self._buckets:
            return None
        rows = max(map(len, arrays.values()))
        for name, array in arrays.items():
            if (len(array), array.dtype, array.shape[1:]) != (rows, *self._fixed[name]):
                return None
        return next((each for each in self._buckets if each.rows >= rows), None)

    def _run(self, arrays: Arrays) -> Mapping[str, Any]:
        given = []
        for spec in self._inputs:
            tensor = tensor_of(arrays[spec.name], None, writes=False)
            staged = self._sent[spec.name].tensor(tensor.shape, tensor.dtype).copy_(tensor)
            given.append(torch.empty_like(staged, device=self._gpu.device))
            self._gpu.copy(given[-1], staged)
        return self._forward(given)

    def _replay(self, bucket: _Bucket, arrays: Arrays) -> Mapping[str, Any]:
        rows = 0
        for name, into in bucket.inputs.items():
            rows = len(arrays[name])
            staged = self._sent[name].tensor(into.shape, into.dtype)
            staged[:rows].copy_(tensor_of(arrays[name], None, writes=False))
            staged[rows:].zero_()  # nobody's rows run in another's company
            self._gpu.copy(into, staged)
        bucket.graph.replay()
        return {name: value[:rows] for name, value in bucket.outputs.items()}

    def _fetch(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value  # which `array_of` refuses
        staged = self._fetched[name].tensor(value.shape, value.dtype)
        self._gpu.copy(staged, value)
        return staged

    def _failure(self, error: Exception) -> CallError:
        says = self._reason(error)
        if self._gpu.lost():
            self._lost = f"{self._gpu.device} does nothing more for this process, which must be started anew: {says}"
            devices.lost[str(self._gpu.device)] = self._lost
            _log.error("model %r: %s", self._name, self._lost)
            return Unavailable(self._lost)
        if is_full(error):
            return ResourceExhausted(f"{self._gpu.device} has no memory left for this run: {says.partition('. ')[0]}")
        return Internal(says)

    def _zeros(self, spec: TensorSpec, rows: int) -> Tensor:
        dtype = tensor_of(np.empty(0, DATATYPES[spec.datatype]), None, writes=False).dtype
        return torch.zeros(rows, *spec.shape[1:], dtype=dtype, device=self._gpu.device)

    def _captured(self, given: list[Tensor], rows: int) -> _Bucket:
        # A list of its own for each run: compiled packages empty it.
        for _ in range(RUNS):
            self._forward(list(given))
        graph, outputs = self._gpu.capture(lambda: self._forward(list(given)))
        for name, value in outputs.items():
            there = isinstance(value, Tensor) and value.device.type == self._gpu.device.type
            if not there or value.shape[:1] != (rows,):
                raise Internal(f"output {name!r} is no tensor of {rows} rows on the GPU")
        return _Bucket(rows, graph, {spec.name: each for spec, each in zip(self._inputs, given, strict=True)}, outputs)


def _first(error: Exception) -> Exception:
    """What went wrong first: PyTorch then says, too, that the capture in which it did cannot be ended."""
    while isinstance(error.__context__, Exception):
        error = error.__context__
    return error
