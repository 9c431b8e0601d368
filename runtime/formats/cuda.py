"""The calls of torch.cuda that serving a model needs, and no others: what is done with them is in `gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_capturing = Lock()  # one at a time: before each, PyTorch waits for the whole GPU, which would spoil another
_turns: dict[int, Lock] = {}  # by stream: PyTorch has 32 for a GPU, which further models share


class Cuda:
    """A queue of work on a GPU. What is done within `with` is queued there, in order; leaving waits for all of it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))  # on which the weights were loaded
        self._current = torch.cuda.stream(self._stream)
        self._turn = _turns.setdefault(self._stream.cuda_stream, Lock())
        self._pool = torch.cuda.graph_pool_handle()  # graphs of one model never run at once, so they share memory

    def __enter__(self) -> None:
        self._turn.acquire()
        try:
            self._current.__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            self._turn.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stream.synchronize()
        finally:
            self._current.__exit__(kind, error, traceback)
            self._turn.release()

    def pinned(self, size: int) -> Tensor:
        """Bytes of the host's memory that the GPU reads and writes by itself."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def copy(self, into: Tensor, value: Tensor) -> None:
        """Queues a copy, from or to the GPU; the host's side is to be pinned, and let be until the queue is done."""
        into.copy_(value, non_blocking=True)

    def capture(self, work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """A graph of what `work` queues, to be replayed within `with`, and the result, which each replay writes anew.

        Belongs within `with`, too. Raises what PyTorch does where something cannot be captured; then PyTorch 2.13 keeps
        the memory that the graph had taken until the process ends (its pull request 190348).
        """
        graph = torch.cuda.CUDAGraph()
        # What other threads do on streams of their own is no part of it, and no harm to it.
        with (
            _capturing,
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = work()
        return graph, result

    def release(self) -> None:
        """Gives memory that no tensor and no graph holds back to the GPU."""
        with _capturing:  # during which PyTorch may refuse to
            torch.cuda.empty_cache()

    def lost(self) -> bool:
        """Whether the GPU does nothing more for this process, as after an illegal access. Not to be asked in `with`."""
        with self._turn:
            try:
                self._stream.synchronize()  # an error of one run was told at its end; one that is told again stays
            except RuntimeError:
                return True
        return False
