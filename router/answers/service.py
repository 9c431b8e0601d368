"""What people ask about routes: Report, Explain, Evaluate and Events, over gRPC and REST."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

from prometheus_client.registry import Collector

from protos.errors import InvalidArgument
from protos.grpc import Methods, Rpc
from protos.messages import (
    EvaluateRequest,
    Evaluation,
    EventsRequest,
    ExplainRequest,
    Explanation,
    ReportRequest,
    RouteEvents,
    RouteReport,
    parse,
)
from router.answers.candidate import with_policy
from router.answers.evaluate import evaluation
from router.answers.explain import explain
from router.answers.from_log import FromLog, from_log
from router.answers.history import history
from router.answers.reading import give_way, read_study
from router.answers.report import Histogram, Known, report
from router.answers.study import Study
from router.config import Route as Settings
from router.errors import Damaged, StoreAway, UnknownRoute
from router.learning.steward import subject_of
from router.learning.versions import Versions, has_log, last_settings
from router.learning.warm_start import taught
from router.metrics import SECONDS
from router.route import Route, Routes
from router.safety import switches
from router.safety.review import agreed
from router.stores import InStore, Malformed, Store, StoreError
from router.wire import SERVICE

T = TypeVar("T")

ALPHA = 0.05

REPORTED = 20_000
"""Decisions of the log that a report reads: about a second of a thread that shares its processor with requests."""

EVALUATED = 50_000
"""Decisions that an evaluation reads at most. For longer ones there is `croupier evaluate --config`."""

FRESH_SECONDS = 10.0
"""For so long, reports are made from what was read of the log before."""

LONGEST_POLICY = 10_000
"""Characters of a policy's settings."""

_log = logging.getLogger(__name__)


class AnswerService:
    """Answers from what all replicas know; the guard is that of this process, latency that of all its workers."""

    def __init__(
        self,
        routes: Routes,
        in_store: InStore,
        in_log: InStore,
        scrape: Callable[[], Awaitable[Collector]],
        clock: Callable[[], float],
    ) -> None:
        """`in_store` is for what takes milliseconds, `in_log` for what takes long; `clock` gives seconds since 1970.

        `scrape` gives metrics of this process and those that serve beside it, those of `router.metrics` among them.
        """
        self._routes = routes
        self._in_store = in_store
        self._in_log = in_log
        self._scrape = scrape
        self._clock = clock
        self._versions = Versions()  # this and the next are used in `in_log` only
        self._studies: dict[str, tuple[float, Settings, Study]] = {}
        self._told: dict[str, tuple[Study, float, FromLog]] = {}

    async def report(self, request: ReportRequest) -> RouteReport:
        """What is known about a route now. Raises NotFound, InvalidArgument, and StoreAway."""
        route = self._route(request.route)
        alpha = _alpha(request)
        latency = latencies(await self._scrape(), route.name)
        # In that thread too: of a long log it takes a tenth of a second, for which no request shall wait.
        return await self._from(self._in_log, lambda store: self._report(store, route, alpha, latency))

    async def explain(self, request: ExplainRequest) -> Explanation:
        """Why a request went where it went. Raises NotFound, and StoreAway."""
        return await self._from(
            self._in_store, lambda store: explain(store, request.decision_id, show_unit=request.show_unit)
        )

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """What another policy would have earned, also on a route that is served no more.

        Raises NotFound, InvalidArgument, and StoreAway.
        """
        name, route = request.route, self._routes.current.get(request.route)
        alpha = _alpha(request)
        if len(request.policy) > LONGEST_POLICY:
            raise InvalidArgument(f"policy: at most {LONGEST_POLICY} characters, got {len(request.policy)}")
        if request.most > EVALUATED:
            raise InvalidArgument(f"most: this server reads {EVALUATED} decisions at most; see evaluate --config")

        def evaluated(store: Store) -> Evaluation:
            served = last_settings(store, name) if route is None else route.settings
            if served is None:
                raise UnknownRoute(name, self._routes.current)
            settings = with_policy(served, request.policy)
            read = read_study(store, name, settings, self._versions, most=request.most or EVALUATED)
            warm = partial(taught, store, settings, most=EVALUATED, pause=give_way)
            return evaluation(read, name, settings, alpha=alpha, warm=warm)

        return await self._from(self._in_log, evaluated)

    async def events(self, request: EventsRequest) -> RouteEvents:
        """What was done to a route, also to one that is served no more. Raises NotFound, and StoreAway."""
        name, served = request.route, self._routes.current

        def told(store: Store) -> RouteEvents:
            events = store.events(name, after=request.after)
            if not (events or name in served or has_log(store, name)):
                raise UnknownRoute(name, served)
            return history(name, events, after=request.after, most=request.most)

        return await self._from(self._in_store, told)

    def _report(self, store: Store, route: Route, alpha: float, latency: Mapping[str, Histogram]) -> RouteReport:
        known = self._known(store, route, latency)
        told = self._told.get(route.name)
        if told is None or told[:2] != (known.study, alpha):
            told = self._told[route.name] = known.study, alpha, from_log(route, known.study, alpha=alpha)
        return report(route, known, alpha=alpha, told_by_log=told[2])

    def _known(self, store: Store, route: Route, latency: Mapping[str, Histogram]) -> Known:
        state, _ = agreed(store, subject_of(route))
        return Known(
            sums=store.sums(route.name),
            study=self._fresh(store, route),
            now=self._clock(),
            switches=switches.decode(store.documents(switches.kind(route.name))),
            canary=state,
            latency=latency,
        )

    def _fresh(self, store: Store, route: Route) -> Study:
        """What the log says, read again when it is old, or the route has other settings."""
        read = self._studies.get(route.name)
        now = self._clock()
        if read is None or read[1] is not route.settings or not 0.0 <= now - read[0] < FRESH_SECONDS:
            read = self._studies[route.name] = now, route.settings, self._read(store, route)
        return read[2]

    def _read(self, store: Store, route: Route) -> Study:
        return read_study(store, route.name, route.settings, self._versions, most=REPORTED)

    def _route(self, name: str) -> Route:
        route = self._routes.current.get(name)
        if route is None:
            raise UnknownRoute(name, self._routes.current)
        return route

    async def _from(self, run: InStore, work: Callable[[Store], T]) -> T:
        try:
            return await run(work)
        except Malformed as error:
            raise Damaged(str(error)) from None
        except StoreError as error:
            _log.error("a question cannot be answered: %s", error)
            raise StoreAway from None


def latencies(scraped: Collector, route: str) -> dict[str, Histogram]:
    """The calls to the arms of a route, by arm: how many took no longer than each edge."""
    histograms: dict[str, list[tuple[float, float]]] = {}
    for metric in scraped.collect():
        for sample in metric.samples if metric.name == SECONDS else ():
            if sample.name.endswith("_bucket") and sample.labels["route"] == route:
                histograms.setdefault(sample.labels["arm"], []).append((float(sample.labels["le"]), sample.value))
    return dict(histograms)


def answer_methods(service: AnswerService) -> Methods:
    """The gRPC methods, by path."""

    async def report(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.report(parse(ReportRequest, body))).SerializeToString()

    async def explain(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.explain(parse(ExplainRequest, body))).SerializeToString()

    async def evaluate(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.evaluate(parse(EvaluateRequest, body))).SerializeToString()

    async def events(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.events(parse(EventsRequest, body))).SerializeToString()

    return {
        SERVICE + "Report": report,
        SERVICE + "Explain": explain,
        SERVICE + "Evaluate": evaluate,
        SERVICE + "Events": events,
    }


def _alpha(request: ReportRequest | EvaluateRequest) -> float:
    if not request.HasField("alpha"):
        return ALPHA
    if not 0.0 < request.alpha < 0.5:  # noqa: PLR2004  # above, a coin would be evidence
        raise InvalidArgument(f"alpha: must be above 0 and below 0.5, got {request.alpha}")
    return request.alpha
