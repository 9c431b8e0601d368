"""One version of a model in service, of whatever kind: answered, counted, and in the end closed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, runtime_checkable

from protos.errors import CallError, Code
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from runtime.metrics import ModelMetrics
from runtime.repository import Fingerprint
from runtime.settings import ModelSettings


@runtime_checkable
class Servable(Protocol):
    """What answers V2 requests: a model behind its batcher, an ensemble, a model of another server's kind."""

    async def infer(self, request: ModelInferRequest, deadline: float | None) -> ModelInferResponse:
        """Answers one request; raises a CallError. `deadline` is on the loop's clock."""

    def metadata(self) -> ModelMetadataResponse:
        """Inputs and outputs as declared; `versions` is left to whoever knows the others."""

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of memory and devices."""


@dataclass(frozen=True, slots=True)
class Served:
    """A servable with its numbers, and what its files and settings were when it was loaded."""

    servable: Servable
    metrics: ModelMetrics
    fingerprint: Fingerprint
    settings: ModelSettings

    async def infer(self, request: ModelInferRequest, deadline: float | None) -> ModelInferResponse:
        """Answers one request and counts it; raises a CallError."""
        metrics = self.metrics
        metrics.in_flight += 1
        started = perf_counter()
        code = Code.INTERNAL
        try:
            response = await self.servable.infer(request, deadline)
            code = Code.OK
        except CallError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            late = deadline is not None and deadline <= asyncio.get_running_loop().time()
            code = Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
            raise
        finally:
            metrics.in_flight -= 1
            metrics.answered(code, perf_counter() - started)
        return response
