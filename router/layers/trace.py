"""OpenTelemetry spans of requests: where each went, as a child of its client's span and the parent of its upstream's.

Loaded only where tracing is configured. A request that nobody traces costs a look at its headers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from protos.errors import CallError, Code, Fault
from router.call import Call, Handler, Layer, Reply
from router.wire import ARM_HEADER, DECISION_HEADER, PROPENSITY_HEADER

SPAN = "route"

_TRACEPARENT = "traceparent"
_FLAGS = slice(53, 55)  # of "00-TRACE-SPAN-FLAGS", where W3C's Trace Context has them
_SAMPLED = 1
_ATTRIBUTES = {
    DECISION_HEADER.encode(): "croupier.decision",
    ARM_HEADER.encode(): "croupier.arm",
    PROPENSITY_HEADER.encode(): "croupier.propensity",
}


def traced(tracing: TracerProvider, share: float, chance: Callable[[], float]) -> Layer:
    """A span for each request that its client samples, and for a `share` of those whose client does not say.

    `chance` gives a number in [0, 1). Neither tensors nor rewards become attributes, and no unit.
    """
    tracer = tracing.get_tracer(__name__)

    def layer(inner: Handler) -> Handler:
        def handler(call: Call) -> Awaitable[Reply]:
            parent = call.metadata.get(_TRACEPARENT)
            return (spanned if (_is_sampled(parent) if parent else chance() < share) else inner)(call)

        async def spanned(call: Call) -> Reply:
            with tracer.start_as_current_span(
                SPAN, extract(call.metadata), SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ) as span:
                span.set_attribute("croupier.route", call.route)
                call.metadata = passed_on = dict(call.metadata)
                inject(passed_on)
                try:
                    reply = await inner(call)
                except CallError as error:
                    _fail(span, error)
                    raise
                span.set_attribute("rpc.grpc.status_code", Code.OK)
                for name, value in reply.metadata:
                    if name in _ATTRIBUTES:
                        span.set_attribute(_ATTRIBUTES[name], value.decode())
                return reply

        return handler

    return layer


def _is_sampled(traceparent: str) -> bool:
    try:
        return bool(int(traceparent[_FLAGS], 16) & _SAMPLED)
    except ValueError:
        return False


def _fail(span: Span, error: CallError) -> None:
    """The status of a failed call. By OpenTelemetry's rule a server's span is no error where the client is at fault.

    Of the error it tells the kind alone: the words may be a model's, and name what a request holds.
    """
    span.set_attribute("rpc.grpc.status_code", error.code)
    if error.fault is not Fault.CLIENT:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
