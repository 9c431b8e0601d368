"""Stand-ins for what a router meets, and a whole router without sockets, models or disks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from bandits import sampler
from protos.errors import CallError, DeadlineExceeded, InvalidArgument, NotFound
from protos.grpc import Rpc
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from protos.tensors import add_inputs, add_outputs, inputs_of
from router.builder import Builder
from router.call import Batch, Call, Decision, Document, Event, Fit, Layer, Outcome, Reply, Vector
from router.config import Arm as ArmSettings
from router.config import Config, parse_config, read_config
from router.config import Route as Settings
from router.context.encoder import Encoder
from router.context.lookups import Lookups
from router.context.rules import Rules
from router.edge.readiness import Readiness, StoreState, readiness, ready_upstreams
from router.edge.service import RouterService
from router.errors import ConfigError
from router.ids import DecisionIds
from router.layers.limit import limited
from router.layers.log import logged
from router.learning.learner import Learner
from router.metrics import ArmMetrics, Metrics
from router.route import Arm, DecisionLog, Route, Routes, drawn_ever
from router.safety.guard import Guard
from router.stamp import Stamp
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from router.table import Table
from router.upstreams.connections import Connections

NOW = 1_700_000_000.0
SOON = 30.0  # seconds for what happens at once; only a broken test waits so long


class FakeClock:
    """Seconds that pass when told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Held:
    """A call that an upstream keeps back: wait until it has `arrived`, then `release` it."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        self.arrived.set()
        await self._released.wait()


class FakeUpstream:
    """A model that doubles its input "x" into "y", unless it is told to fail, or to wait, in the next calls."""

    def __init__(self, model: str = "double", inputs: Iterable[tuple[str, str, list[int]]] = (("x", "FP64", [-1]),)):
        self.model = model
        self.inputs = list(inputs)
        self.calls: list[Call] = []
        self.is_ready = True
        self.is_closed = False
        self.away: CallError | None = None  # what its metadata raise
        self._script: deque[Exception | Held] = deque()

    def fail(self, error: Exception, times: int = 1) -> None:
        """The next calls raise `error`."""
        self._script.extend([error] * times)

    def hold(self) -> Held:
        """The next call waits."""
        held = Held()
        self._script.append(held)
        return held

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.deadline is not None and call.deadline <= asyncio.get_running_loop().time():
            raise DeadlineExceeded("too late")
        step = self._script.popleft() if self._script else None
        if isinstance(step, Held):
            await step.wait()
        elif step is not None:
            raise step
        return Reply(doubled(call.request, self.model).SerializeToString())

    async def metadata(self) -> ModelMetadataResponse:
        if self.away is not None:
            raise self.away
        told = ModelMetadataResponse(name=self.model, platform="fake")
        for name, datatype, shape in self.inputs:
            told.inputs.add(name=name, datatype=datatype, shape=shape)
        told.outputs.add(name="y", datatype="FP64", shape=[-1])
        return told

    async def ready(self) -> bool:
        return self.is_ready

    async def close(self) -> None:
        self.is_closed = True


def doubled(request: ModelInferRequest, model: str) -> ModelInferResponse:
    """What a model answers that takes "x" and gives "y", twice as much."""
    arrays = inputs_of(request)
    if list(arrays) != ["x"] or arrays["x"].dtype != np.float64 or arrays["x"].ndim != 1:
        raise InvalidArgument("input 'x' must be there, FP64 and of one dimension, and no other")
    response = ModelInferResponse(model_name=model, model_version="7", id=request.id)
    add_outputs(response, {"y": 2 * arrays["x"]}, raw=True)
    return response


def infer_request(route: str, x: Sequence[float] = (1.0, 2.0), *, id: str = "") -> ModelInferRequest:
    request = ModelInferRequest(model_name=route, id=id)
    add_inputs(request, {"x": np.array(x, np.float64)}, raw=True)
    return request


def call_of(route: str, *, unit: str = "", **more: Any) -> Call:
    request = infer_request(route, **more)
    return Call(route, request, request.SerializeToString(), unit)


class FakeModels:
    """The models of this process: those in `upstreams`, each opened when an arm first asks for it."""

    def __init__(self) -> None:
        self.upstreams: dict[str, FakeUpstream] = {}
        self.opened: list[str] = []
        self.fault: Exception | None = None

    async def upstream(self, model: str, version: str) -> Any:
        await asyncio.sleep(0)  # as loading takes time, others have their turn
        if self.fault is not None:
            raise self.fault
        if model not in self.upstreams:
            raise NotFound(f"no model {model!r}")
        self.opened.append(model)
        self.upstreams[model].is_closed = False
        return self.upstreams[model]


class FlakyStore:
    """A store that does not answer while it is `down`. It counts its commits, and keeps what was `committed`."""

    def __init__(self, inner: Store | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.down = False
        self.commits = 0
        self.committed: list[Decision] = []
        self.asked = 0  # for sums

    def _answer(self) -> Store:
        if self.down:
            raise StoreError("the disk is full")
        return self.inner

    def commit(self, batch: Batch) -> list[bool]:
        claims = self._answer().commit(batch)
        self.commits += 1
        self.committed += batch.decisions
        return claims

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        return self._answer().find(ids)

    def outcomes(self, ids: Iterable[str]) -> dict[str, dict[str, Outcome]]:
        return self._answer().outcomes(ids)

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        self.asked += 1
        return self._answer().sums(route)

    def version(self) -> int:
        return self._answer().version()

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._answer().log(route, after=after)

    def newest(self, route: str) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._answer().newest(route)

    def fit(self, route: str, version: str) -> Fit | None:
        return self._answer().fit(route, version)

    def events(self, route: str, *, after: str = "") -> list[Event]:
        return self._answer().events(route, after=after)

    def documents(self, kind: str, *, after: int = 0) -> dict[str, Document]:
        return self._answer().documents(kind, after=after)

    def put(self, kind: str, bodies: Mapping[str, bytes], **more: Any) -> bool:
        return self._answer().put(kind, bodies, **more)

    def prune(self, route: str, **told: Any) -> int:
        return self._answer().prune(route, **told)

    def drop(self, route: str, layouts: Collection[str]) -> None:
        self._answer().drop(route, layouts)

    def close(self) -> None:
        self.inner.close()


class HeldStore(FlakyStore):
    """Keeps the calls of one method back: `keep`, wait until one is `kept`, then set them `free`."""

    def __init__(self, method: Literal["commit", "sums"]) -> None:
        super().__init__()
        self.method = method
        self.kept = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def keep(self) -> None:
        self.kept.clear()
        self.free.clear()

    def _hold(self, method: str) -> None:
        if method == self.method and not self.free.is_set():
            self.kept.set()
            assert self.free.wait(SOON)

    def commit(self, batch: Batch) -> list[bool]:
        self._hold("commit")
        return super().commit(batch)

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        self._hold("sums")
        return super().sums(route)


class FakeLog:
    """Keeps decisions in a list; those that must be committed wait until `durable` is set."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.durable = asyncio.Event()
        self.fault: CallError | None = None

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    async def committed(self, decision: Decision) -> None:
        self.record(decision)
        await self.durable.wait()
        if self.fault is not None:
            raise self.fault


def make_route(
    routes: Routes,
    log: DecisionLog,
    upstreams: Mapping[str, FakeUpstream],
    *,
    clock: FakeClock,
    name: str = "credit",
    prometheus: Metrics | None = None,
    **settings: Any,
) -> Route:
    """A route over fakes that has learnt nothing, published in `routes`; its guard keeps the time of `clock`."""
    prometheus = prometheus or Metrics(CollectorRegistry())
    told = Settings(**{"arms": {arm: ArmSettings(model=arm) for arm in upstreams}, **settings})
    policy = told.build_policy()
    nothing = np.zeros((len(upstreams), policy.width))
    fitted = policy.fit(nothing)
    guard = Guard(told.guard, len(upstreams), clock)
    all_on = np.ones(len(upstreams), dtype=np.bool_)
    route = Route(
        name=name,
        settings=told,
        in_force=told,
        arms=tuple(
            Arm(arm, upstream, Stamp(name, arm), ArmMetrics(prometheus, name, arm))
            for arm, upstream in upstreams.items()
        ),
        champion=list(upstreams).index(told.the_champion),
        encoder=Encoder(told.context) if told.context else None,
        rules=Rules(told.rules, told.context, list(upstreams), told.timezone) if told.rules else None,
        lookups=Lookups(),
        policy=policy,
        reads_context=policy.features > 0,
        draw=sampler(told.salt or name, list(upstreams)),
        guard=guard,
        log=log,
        new_id=DecisionIds(clock, bytes(6)),
        changed=routes.guard_changed,
        fitted=fitted,
        version="nothing",
        sums=nothing,
        switched_on=all_on,
        drawable=drawn_ever(policy, len(upstreams)),
        allowed=guard.allowed(),
    )
    routes.publish(route)
    return route


@asynccontextmanager
async def learning(learner: Learner) -> AsyncIterator[Learner]:
    """Runs a learner, and stops it."""
    running = asyncio.create_task(learner.run())
    try:
        yield learner
    finally:
        learner.stop()
        await asyncio.wait_for(running, SOON)


async def settled(learner: Learner) -> None:
    """Returns when all that was recorded so far is committed, and the policies are fitted to it."""
    await learner.journal.feedback([])  # answered by a commit
    await learner.journal.feedback([])  # answered by the next, so that the cycle of the first has ended


class FakeRouter:
    """All of a router but its sockets. Models are fakes, the store forgets."""

    def __init__(self, folder: Path, store: Store | None = None, *, entropy: bytes = bytes(6)) -> None:
        """`entropy` is what its decisions' ids have that no other replica's have."""
        self.path = folder / "routes.yaml"
        self.clock = FakeClock()
        self.store = store or MemoryStore()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.routes = Routes()
        self.models = FakeModels()
        self.connections = Connections(self.models)  # type: ignore[arg-type]  # a fake
        self.learner = Learner(
            self.store, self.routes, self.metrics, self.clock, flush_seconds=0.01, refresh_seconds=0.0
        )
        self.lookups = Lookups()
        new_id = DecisionIds(self.clock, entropy)
        builder = Builder(self.path, self.routes, self.learner, self.connections, self.metrics, self.lookups, new_id)
        self.table = Table(self.path, self.routes, builder, self.connections, self.learner, self.lookups, self._layers)
        self.service = RouterService(
            self.routes, lambda: self.table.handlers, self.learner, self.metrics, self.clock, "1.2.3"
        )

    def _layers(self, name: str, config: Config) -> list[Layer]:
        layers = [limited(config.routes[name].max_in_flight)]
        return [*layers, logged(sys.stdout, self.clock)] if config.request_log else layers

    def has(self, *models: str) -> None:
        """Models that can be served."""
        for model in models:
            self.models.upstreams[model] = FakeUpstream(model)

    def write(self, text: str) -> None:
        """Writes the configuration file: routes, indented or not, after the folder of models."""
        self.path.write_text(f"models: .\n{text}")

    async def load(self, text: str) -> None:
        """Writes the file and serves it."""
        self.write(text)
        await self.table.load(parse_config(yaml.safe_load(self.path.read_text()), self.path))

    async def reload(self) -> list[str]:
        """Serves the file as it is now, as the process does."""
        try:
            changed = await self.table.load(read_config(self.path))
        except ConfigError:
            self.metrics.reloads.labels("refused").inc()
            raise
        self.metrics.reloads.labels("served").inc()
        await self.table.write_down(changed, self.clock())
        return [each.what for each in changed]

    async def scrape(self) -> bytes:
        return generate_latest(self.registry)

    async def readiness(self) -> Readiness:
        routes = self.routes.current
        store = StoreState(self.learner.outage.seconds, self.learner.journal.decisions_waiting)
        return readiness(routes, await ready_upstreams(routes), store, draining=self.service.draining)

    async def infer(self, route: str, *, rpc: Rpc | None = None, **more: Any) -> ModelInferResponse:
        """Asks a route as a client does."""
        body = infer_request(route, **more).SerializeToString()
        return ModelInferResponse.FromString(await self.service.infer(body, rpc or Rpc([])))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def router(folder: Path, text: str, *models: str, store: Store | None = None) -> AsyncIterator[FakeRouter]:
    """A router that serves a configuration and learns, with these models."""
    fake = FakeRouter(folder, store)
    fake.has(*models)
    await fake.load(text)
    async with learning(fake.learner):
        yield fake
    fake.learner.close()
