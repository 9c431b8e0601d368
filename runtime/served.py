"""One version of a model in service, of whatever kind: answered, counted, and in the end closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, runtime_checkable

from starlette.routing import Route

from protos.errors import CallError, Code, ResourceExhausted
from protos.grpc import Rpc
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse, ModelMetadataResponse
from runtime.metrics import ModelMetrics
from runtime.outcome import code_of
from runtime.settings import ModelSettings


@runtime_checkable
class Servable(Protocol):
    """What answers V2 requests: a model behind its batcher, an ensemble, a model of another server's kind."""

    @property
    def memory(self) -> int:
        """Bytes that it holds of its own; 0 where that cannot be known."""

    @property
    def shares_runs(self) -> bool:
        """Whether the rows of several calls may go into one run."""

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait: that can be asked before a request is parsed."""

    async def infer(self, request: InferRequest, deadline: float | None, rpc: Rpc | None = None) -> ModelInferResponse:
        """Answers one request; raises a CallError. `deadline` is on the loop's clock.

        Few care for the `rpc` that it came by: they may read its headers, and add to those of its answer.
        """

    def metadata(self) -> ModelMetadataResponse:
        """Inputs and outputs as declared; `versions` is left to whoever knows the others."""

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of memory and devices."""


@runtime_checkable
class Streaming(Servable, Protocol):
    """What answers a stream of requests as a whole, with as many answers as it likes."""

    def infer_stream(
        self, first: InferRequest, others: AsyncIterator[InferRequest], rpc: Rpc
    ) -> AsyncGenerator[ModelInferResponse, None]:
        """The answers to a request and to those that follow it; raises a CallError."""


@runtime_checkable
class Routed(Servable, Protocol):
    """What also answers HTTP requests that are none of V2's, at paths of its own."""

    @property
    def routes(self) -> Sequence[Route]:
        """Where; their endpoints may raise a CallError."""


@dataclass(frozen=True, slots=True)
class Served:
    """A servable with its numbers, and what its files and settings were when it was loaded."""

    servable: Servable
    metrics: ModelMetrics
    fingerprint: str
    settings: ModelSettings

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait, and counts the refusal."""
        try:
            self.servable.admit()
        except CallError as error:
            self.metrics.answered(error.code, 0.0)
            raise

    def hindrance(self) -> str:
        """Why it can answer nothing now, as a model that it is made of is gone or is another; else nothing."""
        try:
            self.servable.admit()
        except ResourceExhausted:
            return ""  # it answers others
        except CallError as error:
            return error.message
        return ""

    async def infer(self, request: InferRequest, deadline: float | None, rpc: Rpc | None = None) -> ModelInferResponse:
        """Answers one request and counts it; raises a CallError."""
        self.admit()
        metrics = self.metrics
        metrics.in_flight += 1
        started = perf_counter()
        code = Code.OK
        try:
            return await self.servable.infer(request, deadline, rpc)
        except BaseException as error:
            code = code_of(error, deadline)
            raise
        finally:
            metrics.in_flight -= 1
            metrics.answered(code, perf_counter() - started)

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of memory and devices: all of that, though it be cancelled."""
        closing = asyncio.ensure_future(self.servable.close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    async def counted(
        self, answers: AsyncGenerator[ModelInferResponse, None], deadline: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The answers of a stream, serialized; it counts as one request."""
        metrics = self.metrics
        metrics.in_flight += 1
        started = perf_counter()
        code = Code.OK
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer.SerializeToString()
        except BaseException as error:
            code = code_of(error, deadline)
            raise
        finally:
            metrics.in_flight -= 1
            metrics.answered(code, perf_counter() - started)
