"""Where OpenTelemetry spans go: a collector, by OTLP over gRPC. Imported only where tracing is configured."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def provider(collector: str, name: str) -> TracerProvider:
    """What sends spans to `collector`, HOST:PORT, unencrypted; its `shutdown` sends the last."""
    made = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector, insecure=True)))
    return made
