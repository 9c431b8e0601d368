"""An OTLP collector, as tests of another make than ours need one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


class Collector:
    """An OTLP collector: keeps what it is sent."""

    def __init__(self):
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire

        self.resources: list[Any] = []
        self._lock = threading.Lock()

        def export(request, _context):
            with self._lock:
                self.resources += request.resource_spans
            return wire.ExportTraceServiceResponse()

        handler = grpc.unary_unary_rpc_method_handler(
            export, wire.ExportTraceServiceRequest.FromString, wire.ExportTraceServiceResponse.SerializeToString
        )
        self._server = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EXPORT, {"Export": handler}),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def spans(self):
        return [span for resource in self.resources for scope in resource.scope_spans for span in scope.spans]


def said(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
