"""What each transport has counted, under MLServer's names, for the dashboards that people have.

Labels are methods and routes as the code has them, never a client's words: what is asked for in vain is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import wraps
from time import perf_counter

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.errors import CallError, Code
from protos.grpc import Methods, Rpc, Stream, Unary
from protos.metrics import Histogram
from runtime.metrics import SECONDS
from runtime.outcome import code_of

_APP = "mlserver"  # whose dashboards ask for it
_UNCOUNTED = {"/v2/health/live", "/v2/health/ready"}
_REST = ("method", "path", "status_code", "app_name")
_GRPC = ("grpc_type", "grpc_service", "grpc_method")


class _Method:
    """The numbers of one gRPC method."""

    __slots__ = ("codes", "labels", "received", "seconds", "sent", "started")

    def __init__(self, path: str, kind: str) -> None:
        _, service, method = path.split("/")
        self.labels = (kind, service, method)
        self.started = 0
        self.received = 0  # messages of streams, as those sent
        self.sent = 0
        self.codes = dict.fromkeys(Code, 0)
        self.seconds = Histogram(SECONDS)

    def ended(self, code: Code, begun: float) -> None:
        self.codes[code] += 1
        self.seconds.observe(perf_counter() - begun)


class Transports(Collector):
    """Counts what goes through gRPC methods and REST routes, as one collector of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._methods: dict[str, _Method] = {}
        self._routes: dict[tuple[str, str, int], Histogram] = {}  # by method, path and status
        self._in_progress: Counter[str] = Counter()
        registry.register(self)

    def grpc(self, methods: Methods) -> Methods:
        """The same methods, counted."""
        return {path: self._counted(path, method) for path, method in methods.items()}

    def rest(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes, counted, but for those that ask after the server's health."""
        return [each if each.path in _UNCOUNTED else self._route(each) for each in routes]

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client asks for them."""
        yield from self._rest()
        yield from self._grpc()

    def _counted(self, path: str, method: Unary | Stream) -> Unary | Stream:
        if isinstance(method, Stream):
            return _stream(method, self._methods.setdefault(path, _Method(path, "BIDI_STREAMING")))
        return _unary(method, self._methods.setdefault(path, _Method(path, "UNARY")))

    def _route(self, route: Route) -> Route:
        path = route.path.replace("{model}", "{model_name}").replace("{version}", "{model_version}")
        endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint
        routes, in_progress = self._routes, self._in_progress

        @wraps(endpoint)
        async def counted(request: Request) -> Response:
            method, begun = request.method, perf_counter()
            in_progress[method] += 1
            try:
                response = await endpoint(request)
                status = response.status_code
            except BaseException as error:
                status = error.http if isinstance(error, CallError) else code_of(error, None).http
                raise
            finally:
                in_progress[method] -= 1
                seconds = routes.get((method, path, status))
                if seconds is None:
                    seconds = routes[method, path, status] = Histogram(SECONDS)
                seconds.observe(perf_counter() - begun)
            return response

        return Route(route.path, counted, methods=[*(route.methods or ())], name=route.name)

    def _rest(self) -> Iterator[Metric]:
        total = CounterMetricFamily("rest_server_requests", "Requests answered.", labels=_REST)
        took = HistogramMetricFamily("rest_server_request_duration_seconds", "Until the answer is made.", labels=_REST)
        flight = GaugeMetricFamily("rest_server_requests_in_progress", "Not yet answered.", labels=("method", _REST[3]))
        for (method, path, status), seconds in self._routes.items():
            labels = (method, path, str(status), _APP)
            total.add_metric(labels, seconds.count)
            seconds.add_to(took, labels)
        for method, count in self._in_progress.items():
            flight.add_metric((method, _APP), count)
        yield from (total, took, flight)

    def _grpc(self) -> Iterator[Metric]:
        started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=_GRPC)
        handled = CounterMetricFamily("grpc_server_handled", "Calls ended.", labels=(*_GRPC, "grpc_code"))
        took = HistogramMetricFamily("grpc_server_handling_seconds", "From the received message on.", labels=_GRPC)
        received = CounterMetricFamily("grpc_server_msg_received", "Messages of streams received.", labels=_GRPC)
        sent = CounterMetricFamily("grpc_server_msg_sent", "Messages of streams sent.", labels=_GRPC)
        for method in self._methods.values():
            if not method.started:
                continue
            started.add_metric(method.labels, method.started)
            for code, count in method.codes.items():
                if count:
                    handled.add_metric((*method.labels, code.name), count)
            method.seconds.add_to(took, method.labels)
            if method.labels[0] != "UNARY":
                received.add_metric(method.labels, method.received)
                sent.add_metric(method.labels, method.sent)
        yield from (started, handled, took, received, sent)


def _unary(method: Unary, numbers: _Method) -> Unary:
    async def counted(body: bytes, rpc: Rpc) -> bytes:
        numbers.started += 1
        begun = perf_counter()
        try:
            reply = await method(body, rpc)
        except BaseException as error:
            numbers.ended(code_of(error, rpc.deadline), begun)
            raise
        numbers.ended(Code.OK, begun)
        return reply

    return counted


def _stream(method: Stream, numbers: _Method) -> Stream:
    async def counted(bodies: AsyncIterator[bytes], rpc: Rpc) -> AsyncGenerator[bytes, None]:
        async def received() -> AsyncGenerator[bytes, None]:
            async for body in bodies:
                numbers.received += 1
                yield body

        numbers.started += 1
        begun = perf_counter()
        try:
            async with aclosing(method.handler(received(), rpc)) as answers:
                async for answer in answers:
                    numbers.sent += 1
                    yield answer
        except BaseException as error:
            numbers.ended(code_of(error, rpc.deadline), begun)
            raise
        numbers.ended(Code.OK, begun)

    return Stream(counted)
