"""Spans of the router: under the client's, above the upstream's."""

from __future__ import annotations

import pytest

from protos.errors import Code, InvalidArgument, UpstreamError
from router.call import Reply
from tests.router.fakes import call_of

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from router.layers.trace import traced

pytestmark = pytest.mark.anyio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAID = [(b"croupier-decision", b"d1"), (b"croupier-arm", b"a"), (b"croupier-propensity", b"0.25")]
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Bench:
    """A traced handler that keeps the metadata of its calls, and the spans that were made."""

    def __init__(self, *, share: float = 0.0, chance: float = 0.5, error: Exception | None = None) -> None:
        self._spans = InMemorySpanExporter()
        self.seen: list[dict[str, str]] = []
        self._error = error
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self._spans))
        self._handler = traced(tracing, share, lambda: chance)(self._answer)

    async def _answer(self, call) -> Reply:
        self.seen.append(dict(call.metadata))
        if self._error is not None:
            raise self._error
        return Reply(b"", [*SAID, (b"other", b"x")])

    async def ask(self, traceparent: str | None = None):
        call = call_of("credit", unit="jane")
        call.metadata = {} if traceparent is None else {"traceparent": traceparent}
        await self._handler(call)

    @property
    def spans(self):
        return self._spans.get_finished_spans()


async def test_a_sampled_request_is_a_span_under_its_clients_with_the_decision():
    bench = Bench()
    await bench.ask(SAMPLED)
    (span,) = bench.spans
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(span.attributes) == {
        "croupier.route": "credit",
        "croupier.decision": "d1",
        "croupier.arm": "a",
        "croupier.propensity": "0.25",
        "rpc.grpc.status_code": 0,
    }


async def test_the_upstream_is_told_of_the_span_as_its_parent():
    bench = Bench()
    await bench.ask(SAMPLED)
    (span,), (seen,) = bench.spans, bench.seen
    assert seen["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize("traceparent", [UNSAMPLED, "nonsense", f"00-{TRACE}-{PARENT}-zz"])
async def test_what_the_client_does_not_sample_is_passed_on_as_it_came(traceparent: str):
    bench = Bench(share=1.0)
    await bench.ask(traceparent)
    assert not bench.spans
    assert bench.seen == [{"traceparent": traceparent}]


async def test_of_clients_that_do_not_trace_a_share_is():
    for chance, spans in (0.1, 1), (0.2, 0):
        bench = Bench(share=0.2, chance=chance)
        await bench.ask()
        assert len(bench.spans) == spans


@pytest.mark.parametrize(
    ("error", "is_error"),
    [(UpstreamError("it broke", Code.INTERNAL), True), (InvalidArgument("input 'x' is missing"), False)],
)
async def test_a_failure_is_one_of_the_span_unless_it_was_the_clients(error, is_error):
    bench = Bench(error=error)
    with pytest.raises(type(error)):
        await bench.ask(SAMPLED)
    (span,) = bench.spans
    assert span.attributes["rpc.grpc.status_code"] == error.code
    assert (not span.status.is_ok and span.status.is_unset is False) == is_error
    assert not span.events, "no traceback, which may quote tensors"
