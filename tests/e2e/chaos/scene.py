"""What a scenario is played with: routers as processes, their customers, and what the store has in the end."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protos.errors import Code
from router.call import Decision, Outcome, Vector
from router.client import Earned
from router.stores import open_store
from tests import plain_http
from tests.e2e.chaos.customers import ROUTE, Customers, Replica, Told, earned
from tests.e2e.models import FACTORS
from tests.process import Router, Runtime, write_config
from tests.redis_server import free_port

AWAY, WAITING = "croupier_store_away_seconds", "croupier_decisions_waiting"
GUARD = {"failures": 2, "seconds": 0.5, "longest_seconds": 1.0}
SETTINGS = {
    "policy": {"kind": "thompson"},
    "floor": 0.2,  # each arm is asked as long as it lives
    "guard": GUARD,
    "failover": {"attempts": 1},
    "guardrails": {"errors": {"watch": "errors", "most": 0.9}},  # so that calls are counted
}


@dataclass
class Played:
    """A scenario after its end: what customers were told, and what the store says."""

    told: Told = field(default_factory=Told)
    log: dict[str, tuple[Decision, Mapping[str, Outcome]]] = field(default_factory=dict)
    sums: Mapping[tuple[str, str], Vector] = field(default_factory=dict)
    again: Counter[Code] = field(default_factory=Counter)  # what was said to all acknowledged rewards, sent once more
    exits: list[int] = field(default_factory=list)  # of the routers that lived to the end
    complaints: list[str] = field(default_factory=list)  # of all routers
    said: list[Said] = field(default_factory=list)  # by a router that was without its store


class Upstream:
    """A server of models that keeps its address through its lives."""

    def __init__(self, models: Path, names: Sequence[str], folder: Path) -> None:
        for name in names:
            shutil.copytree(models / name, folder / "models" / name)
        self._folder = folder
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self.process = Runtime(self._folder / "models", self._folder / "process", port=self._port)

    async def serving(self) -> None:
        assert await asyncio.to_thread(lambda: self.process.address) == self.address


class Stage:
    """Where all scenarios are played, side by side."""

    def __init__(self, models: Path, folder: Path) -> None:
        """`models` are those of all end-to-end tests."""
        self._models = models
        self.folder = folder
        self.open = asyncio.Event()  # the longest scenario has begun: the others can
        self.steady = self.upstream("steady", *FACTORS)

    def upstream(self, folder: str, *names: str) -> Upstream:
        """A server of these models."""
        return Upstream(self._models, names, self.folder / folder)

    def arms(self, **elsewhere: Upstream) -> dict[str, Any]:
        """An arm for each model: at the steady upstream, unless it is elsewhere."""
        return {
            name: {"model": name, "target": elsewhere.get(name, self.steady).address, "timeout_seconds": 0.5}
            for name in FACTORS
        }


class Scene:
    """The routers of one scenario."""

    def __init__(self, played: Played, folder: Path, arms: Mapping[str, Any]) -> None:
        self.played = played
        self._folder = folder
        self._arms = arms
        self._routers: list[Router] = []
        self.customers = Customers([], seed=len(str(folder)))

    async def replica(self, store: str) -> Replica:
        """One more router, which serves."""
        folder = self._folder / f"router {len(self._routers)}"
        config = write_config(folder, {ROUTE: {**SETTINGS, "arms": self._arms}}, store=store)
        router = Router(config, folder)
        self._routers.append(router)
        return await Replica.of(router)

    async def end(self) -> None:
        """Sends all again, and ends the routers that live."""
        replicas = [replica for replica in self.customers.replicas if not replica.killed]
        decisions = sorted(self.played.told.acknowledged)
        for first in range(0, len(decisions), 500):
            page = [Earned(each, earned(each)) for each in decisions[first : first + 500]]
            outcomes = (await replicas[0].client.rewards(page)).outcomes
            self.played.again.update(Code(outcome.code) for outcome in outcomes)
        for replica in replicas:
            await replica.client.close()
            self.played.exits.append(await asyncio.to_thread(replica.process.stop))

    def clean_up(self) -> None:
        for router in self._routers:
            router.kill()
            self.played.complaints.append(router.complained)


@asynccontextmanager
async def scene(
    stage: Stage, played: Played, name: str, stores: Sequence[str], kept: str, arms: Mapping[str, Any]
) -> AsyncIterator[Scene]:
    """A router on each of `stores`, with customers; in the end all is settled, and read from the store at `kept`."""
    scene = Scene(played, stage.folder / name, arms)
    async with AsyncExitStack() as stack:
        stack.callback(scene.clean_up)
        scene.customers.replicas = list(await asyncio.gather(*(scene.replica(store) for store in stores)))
        played.told = scene.customers.told
        await stage.steady.serving()
        async with scene.customers:
            await scene.customers.more(10)
            yield scene
        await scene.end()
        with closing(open_store(kept)) as store:
            played.log = {decision.id: (decision, outcomes) for decision, outcomes in store.log(ROUTE)}
            played.sums = store.sums(ROUTE)


@dataclass
class Said:
    """What a replica says of its store to operators."""

    status: int  # of its readiness
    away_seconds: float
    waiting: int
    metrics: dict[str, float]


async def said(replica: Replica) -> Said:
    process = replica.process
    ready = await asyncio.to_thread(plain_http.get, f"http://{process.admin}/ready", timeout=10)
    metrics = {name: await asyncio.to_thread(process.metric, name) for name in (AWAY, WAITING)}
    return Said(ready.status_code, **ready.json()["store"], metrics=metrics)
