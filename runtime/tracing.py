"""OpenTelemetry spans of inference calls, sent to a collector by OTLP over gRPC: MLServer's `tracing_server`.

Loaded only where that is set: without it a call knows nothing of spans.
"""

from __future__ import annotations

from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from protos.errors import CallError, Code, Fault
from protos.grpc import Rpc, Unary
from protos.messages import ModelInferRequest, ModelInferResponse, parse
from runtime.batcher import Run, runs

SPAN = "ModelInfer"


def traced(infer: Unary, tracing: TracerProvider) -> Unary:
    """`infer`, with a span for each call: a child of the caller's where the call says which it is."""
    tracer = tracing.get_tracer(__name__)

    async def within_a_span(body: bytes, rpc: Rpc) -> bytes:
        parent = extract(rpc.metadata)
        with tracer.start_as_current_span(SPAN, parent, SpanKind.SERVER, record_exception=False) as span:
            ran: list[Run] = []
            runs.set(ran)
            try:
                _describe(span, parse(ModelInferRequest, body))
                reply = await infer(body, rpc)
            except CallError as error:
                _fail(span, error)
                raise
            finally:
                _add_runs(span, ran)
            span.set_attribute("rpc.grpc.status_code", Code.OK)
            span.set_attribute("model.version", ModelInferResponse.FromString(reply).model_version)
            return reply

    return within_a_span


def _describe(span: Span, request: ModelInferRequest) -> None:
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


def _fail(span: Span, error: CallError) -> None:
    """The status of a failed call. By OpenTelemetry's rule a server's span is no error where the client is at fault."""
    span.set_attribute("rpc.grpc.status_code", error.code)
    if error.fault is not Fault.CLIENT:
        span.set_status(Status(StatusCode.ERROR, error.message))
