"""A server with answers made up, so that what the page shows can be told in advance; over a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from protos.errors import NotFound
from protos.messages import Explanation, RouteEvents, RouteReport
from protos.rest import rest_app
from protos.serve import Asgi
from router.dashboard import dashboard_routes
from router.edge.readiness import ArmState, Readiness, RouteState, StoreState
from tests.router.serving import serving

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
NOON = 1_790_000_000.0  # seconds since the epoch

METRICS = """\
# HELP croupier_requests_total Inference requests answered, by gRPC status.
# TYPE croupier_requests_total counter
croupier_requests_total{arm="challenger",code="OK",route="credit"} 3950.0
croupier_requests_total{arm="challenger",code="UNAVAILABLE",route="credit"} 12.0
croupier_requests_total{arm="champion",code="OK",route="credit"} 6000.0
croupier_requests_total{arm="champion",code="INTERNAL",route="credit"} 0.0
croupier_requests_total{arm="champion",code="INTERNAL",route="other"} 7.0
croupier_learner_lag_seconds 0.02
croupier_decisions_dropped_total 0.0
"""


def arm(name: str, **more: Any) -> RouteReport.Arm:
    told = {"name": name, "model": name, "allowed": True, "state": "serving", "decisions": 0.0, **more}
    return json_format.ParseDict(told, RouteReport.Arm())


def report() -> RouteReport:
    """A champion, a challenger that is better, one that was ejected, and one of which nothing is known."""
    return RouteReport(
        route="credit",
        policy="thompson, floor 0.02",
        policy_version="5f0c2e77a1b04d19",
        champion="champion",
        alpha=0.05,
        reward_low=0,
        reward_high=1,
        best_by="20,000 draws from the posterior",
        arms=[
            arm(
                "champion",
                probability=0.25,
                decisions=6000,
                share=0.6,
                rewards=5800,
                matured=0.97,
                mean={"value": 0.5, "low": 0.48, "high": 0.52},
                best=0.0004,
                latency=[{"quantile": q, "at_most": s} for q, s in ((0.5, 0.0003), (0.95, 0.002), (0.99, 0.02))],
                metrics=[pnl(6000, 1200.5, 0.2, 0.1, 0.3)],
                cost=0.001,
            ),
            arm(
                "challenger",
                target="10.0.0.7:9000",
                probability=0.75,
                decisions=4000,
                share=0.4,
                rewards=3900,
                matured=0.98,
                mean={"value": 0.56, "low": 0.53, "high": 0.59},
                lift={"value": 0.06, "low": 0.02, "high": 0.1},
                net_lift={"value": 0.057, "low": 0.017, "high": 0.097},
                compared=3900,
                log_e_value=9.21034,
                best=0.9996,
                by_unit={
                    "units": 1500,
                    "decisions": 3900,
                    "design_effect": 16.0,
                    "mean": {"value": 0.56, "low": 0.44, "high": 0.68},
                    "lift": {"value": 0.06, "low": -0.06, "high": 0.18},
                    "net_lift": {"value": 0.057, "low": -0.063, "high": 0.177},
                    "log_e_value": 0.34,
                },
                latency=[{"quantile": 0.5, "at_most": 0.001}, {"quantile": 0.95, "at_most": 0.5}, {"quantile": 0.99}],
                metrics=[pnl(4000, 1600.25, 0.4, 0.25, 0.55)],
                cost=0.004,
            ),
            arm(
                "canary-2",
                allowed=False,
                state="ejected",
                why=f"errors: 5.1 % against 0.5 % {HOSTILE}",
                decisions=300,
                share=0.03,
                rewards=200,
                probability=0,
                mean={"value": 0.4, "low": 0.3, "high": 0.5},
                lift={"value": -0.1, "low": -0.18, "high": -0.02},
                net_lift={"value": -0.099, "low": -0.179, "high": -0.019},
                log_e_value=4.0,
                compared=200,
                best=0,
                by_unit={"units": 60, "decisions": 200, "mean": {"value": 0.4}},
            ),
            arm("newcomer", probability=0, mean={"value": "NaN", "low": "-Infinity", "high": "Infinity"}),
        ],
        mismatch=[
            RouteReport.Mismatch(of="all", n=10_000, log_e_value=-2.3),
            RouteReport.Mismatch(of="rewarded", n=9700, log_e_value=0.1),
        ],
        canary=RouteReport.Canary(arm="challenger", step=2, steps=4, share=0.4, outcome="running", since=NOON),
        against_champion=json_format.ParseDict(
            {
                "decisions": 9700,
                "earned": 0.524,
                "champion": {"value": 0.5, "low": 0.48, "high": 0.52},
                "gain": {"value": 0.024, "low": 0.004, "high": 0.044},
                "total": {"value": 232.8, "low": 38.8, "high": 426.8},
                "cost": 11.7,
                "net": {"value": 221.1, "low": 27.1, "high": 415.1},
                "on_investment": 18.897,
            },
            RouteReport.AgainstChampion(),
        ),
        cost_per_decision=0.0022,
        log={"decisions": 10_000, "whole": True, "first": NOON - 3600, "last": NOON},
        units=RouteReport.Units(units=6000, decisions=10_000, most=212),
        warnings=["Units came back: go by those that count units."],
    )


def pnl(n: float, total: float, value: float, low: float, high: float) -> dict[str, Any]:
    mean = {"value": value, "low": low, "high": high}
    return {"name": "pnl", "unit": "GBP", "better": "higher", "n": n, "total": total, "mean": mean}


def events() -> RouteEvents:
    return RouteEvents(
        route="credit",
        events=[
            RouteEvents.Event(id="1", time=NOON - 60, kind="reloaded", why="the operator's word"),
            RouteEvents.Event(
                id="2",
                time=NOON,
                arm="canary-2",
                kind="ejected",
                why=f"error rate {HOSTILE}",
                numbers={"error_rate": 0.051, "bound": 0.012, "never": float("nan")},
            ),
        ],
    )


def explained() -> Explanation:
    return Explanation(
        decision_id="d-17",
        route="credit",
        time=NOON,
        sticky=True,
        context=[Explanation.Feature(column="volatility", value=0.31)],
        rule="volatility > 0.30",
        arms=[
            Explanation.Arm(name="champion", allowed=True, probability=0.25, again=0.25, score=2.5),
            Explanation.Arm(name="challenger", allowed=True, probability=0.75, again=0.75, score=0.4),
        ],
        arm="challenger",
        propensity=0.75,
        answered=True,
        policy="Thompson",
        policy_version="5f0c2e77a1b04d19",
        settings='{"policy": {"kind": "thompson"}}',
        fitted=NOON - 1,
        outcomes=[Explanation.Outcome(name="reward", value=1, time=NOON + 5)],
        reproduced=True,
    )


def readiness(**more: Any) -> Readiness:
    """Ready, with an arm that is ejected and another that no model stands behind; the other route has none left."""
    up, off, broken = ArmState(True, True, True), ArmState(True, False, False), ArmState(False, True, True)
    credit = RouteState(True, {"champion": up, "challenger": up, "canary-2": off, "newcomer": broken})
    told = {"ready": True, "draining": False, "store": StoreState(0.0, 3), **more}
    return Readiness(routes={"credit": credit, "fraud": RouteState(False, {"only": off})}, **told)


class FakeAnswers:
    """What the server knows, free to be changed while a page looks at it; and what it was asked."""

    def __init__(self) -> None:
        self.report = report()
        self.events = events()
        self.reloads = 0
        self.readiness = readiness()
        self.posted: list[tuple[str, Any]] = []
        self.asked: list[str] = []
        self.refusal = ""  # the answer to whatever is posted

    def routes(self) -> list[Route]:
        return [
            Route("/v1/routes", self._answer(lambda _: {"routes": ["credit", "fraud"]})),
            Route("/v1/routes/{route}/report", self._answer(lambda asked: self._named(self.report, asked))),
            Route("/v1/routes/{route}/events", self._answer(lambda asked: self._named(self.events, asked))),
            Route("/v1/decisions/{id}", self._answer(self._explanation)),
            Route("/v1/routes/{route}/switch", self._post, methods=["POST"]),
            Route("/reload", self._reload, methods=["POST"]),
            Route("/metrics", self._metrics),
            Route("/ready", self._ready),
        ]

    @property
    def app(self) -> Asgi:
        return rest_app([*dashboard_routes(), *self.routes()], max_body=100_000)

    def _answer(self, told: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            self.asked.append(request.url.path)
            said = told(request)
            return JSONResponse(as_json(said) if isinstance(said, Message) else said)

        return endpoint

    @staticmethod
    def _named(message: Any, request: Request) -> Any:
        named = type(message)()
        named.CopyFrom(message)
        named.route = request.path_params["route"]
        return named

    @staticmethod
    def _explanation(request: Request) -> Explanation:
        if request.path_params["id"] != "d-17":
            raise NotFound(f"unknown decision {request.path_params['id']!r}")
        return explained()

    async def _post(self, request: Request) -> Response:
        self.posted.append((request.url.path, await request.json()))
        if self.refusal:
            return JSONResponse({"error": self.refusal}, 422)
        return JSONResponse({"off": [], "frozen": False})

    async def _reload(self, _request: Request) -> Response:
        self.reloads += 1
        return JSONResponse({"changed": ["routes.credit.arms.newcomer.model: forest is now trees"]})

    async def _metrics(self, _request: Request) -> Response:
        return PlainTextResponse(METRICS)

    async def _ready(self, _request: Request) -> Response:
        return Response(msgspec.json.encode(self.readiness), self.readiness.status)


def as_json(message: Message) -> dict[str, Any]:
    """As the REST API writes messages."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@contextmanager
def served(app: Asgi, bind: str = "127.0.0.1:0") -> Iterator[str]:
    """Serves an application in a thread of its own; gives its address."""
    address: list[str] = []
    loop = asyncio.new_event_loop()
    up, down = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(app, bind) as where:
            address.append(where)
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(20)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(20)
        loop.close()
