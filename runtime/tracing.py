"""OpenTelemetry spans of inference calls, sent to a collector by OTLP over gRPC: MLServer's `tracing_server`.

Loaded only where that is set: without it a call knows nothing of spans.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from protos.errors import CallError, Code, Fault
from protos.grpc import Rpc, Unary
from protos.infer_request import InferRequest, parse_infer
from protos.messages import ModelInferResponse
from runtime.batcher import Run, runs
from runtime.outcome import code_of
from runtime.served import Served

SPAN, STREAM_SPAN = "ModelInfer", "ModelStreamInfer"

Answers = Callable[[Served, InferRequest, AsyncIterator[InferRequest], Rpc], AsyncGenerator[bytes, None]]


def traced(infer: Unary, tracing: TracerProvider) -> Unary:
    """`infer`, with a span for each call: a child of the caller's where the call says which it is."""
    tracer = tracing.get_tracer(__name__)

    async def within_a_span(body: bytes, rpc: Rpc) -> bytes:
        parent = extract(rpc.metadata)
        with tracer.start_as_current_span(
            SPAN, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            ran: list[Run] = []
            runs.set(ran)
            try:
                _describe(span, parse_infer(body))
                reply = await infer(body, rpc)
            except BaseException as error:
                _fail(span, error, rpc)
                raise
            finally:
                _add_runs(span, ran)
            span.set_attribute("rpc.grpc.status_code", Code.OK)
            span.set_attribute("model.version", ModelInferResponse.FromString(reply).model_version)
            return reply

    return within_a_span


def traced_stream(answers: Answers, tracing: TracerProvider) -> Answers:
    """`answers`, with a span for each stream, from its first request until it ends."""
    tracer = tracing.get_tracer(__name__)

    async def within_a_span(
        served: Served, first: InferRequest, others: AsyncIterator[InferRequest], rpc: Rpc
    ) -> AsyncGenerator[bytes, None]:
        # Never the current one: between two answers whoever takes them goes on with what is theirs.
        span = tracer.start_span(STREAM_SPAN, extract(rpc.metadata), SpanKind.SERVER)
        count = 0
        try:
            _describe(span, first)
            span.set_attribute("model.version", served.settings.version)
            async with aclosing(answers(served, first, others, rpc)) as made:
                async for answer in made:
                    count += 1
                    yield answer
            span.set_attribute("rpc.grpc.status_code", Code.OK)
        except BaseException as error:
            _fail(span, error, rpc)
            raise
        finally:
            span.set_attribute("stream.answers", count)
            span.end()

    return within_a_span


def _describe(span: Span, request: InferRequest) -> None:
    span.set_attribute("model.name", request.model_name)
    if request.model_version:
        span.set_attribute("model.version", request.model_version)
    if request.inputs and request.inputs[0].shape:
        span.set_attribute("request.rows", request.inputs[0].shape[0])


def _add_runs(span: Span, ran: list[Run]) -> None:
    """What the call waited and ran, an ensemble's members together, as attributes; and each run as an event."""
    if not ran:
        return
    span.set_attribute("queue.seconds", sum(run.queue_seconds for run in ran))
    span.set_attribute("run.seconds", sum(run.run_seconds for run in ran))
    for model, queued, took, rows in ran:
        span.add_event("run", {"model.name": model, "queue.seconds": queued, "run.seconds": took, "batch.rows": rows})


def _fail(span: Span, error: BaseException, rpc: Rpc) -> None:
    """The status of a failed call. By OpenTelemetry's rule a server's span is no error where the client is at fault.

    Of the error it tells the kind alone: the words may be the model's, and name what a request holds.
    """
    code = code_of(error, rpc.deadline)
    span.set_attribute("rpc.grpc.status_code", code)
    if code is Code.INTERNAL or (isinstance(error, CallError) and error.fault is not Fault.CLIENT):
        span.set_status(Status(StatusCode.ERROR, type(error.__cause__ or error).__name__))
