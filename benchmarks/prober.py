"""What a caller of gRPC sees of a server that others load."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import grpc
from numpy.typing import NDArray

from benchmarks.targets import METHOD
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs

_EVERY = 0.02  # seconds between two calls


class Prober:
    """Calls over gRPC, a few a second, each timed by its status."""

    def __init__(self, address: str, model: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        self.seconds: dict[grpc.StatusCode, list[float]] = {}
        self._address = address
        request = ModelInferRequest(model_name=model)
        add_inputs(request, inputs, raw=True)
        self._message = request.SerializeToString()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _probe(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            infer: Any = channel.unary_unary(METHOD)
            calls = []
            while not self._stop.wait(_EVERY):
                started = time.perf_counter()
                call = infer.future(self._message, timeout=60)
                call.add_done_callback(lambda done, started=started: self._note(done, started))
                calls.append(call)
            for call in calls:
                call.exception()

    def _note(self, call: Any, started: float) -> None:
        self.seconds.setdefault(call.code(), []).append(time.perf_counter() - started)
