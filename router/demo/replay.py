"""The held-out days again, in time order: each index's desk asks for forecasts, and is paid when tomorrow is known."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray

from router.client import Answer, AsyncClient, Earned
from router.demo.past import INDEX
from router.demo.routes import PNL, ROUTES
from runtime.finance import Samples, decisions, exposures, results_bps


@dataclass
class Replayed:
    """What came of it on one route, one entry a row of the samples; a row that failed has no arm, and NaN elsewhere."""

    decision: list[str]
    arm: list[str]
    probability: NDArray[np.float64]  # of a high range, as the arm answered
    result_bps: NDArray[np.float64]  # of the position that was taken on it, after costs
    seconds: NDArray[np.float64]  # from request to answer, at the client
    rewards: int = 0  # acknowledged
    errors: Counter[str] = field(default_factory=Counter)  # by gRPC status

    @classmethod
    def nothing(cls, n: int) -> Replayed:
        """Of n rows, before the first is asked for."""
        return cls([""] * n, [""] * n, np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan))

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which rows got an answer."""
        return np.isfinite(self.probability)


class Replay:
    """Three clients: a desk for each index, and the settlement that reports yesterday's rewards.

    A desk asks every route for each of its rows, all of them at once, and keeps a position for each.
    """

    def __init__(self, target: str, samples: Samples) -> None:
        """To be made inside the event loop that runs it."""
        self.samples = samples
        self.done: Mapping[str, Replayed] = {route: Replayed.nothing(len(samples)) for route in ROUTES}
        self.day = samples.day[0]  # the one being replayed
        self._desks = {name: AsyncClient(target) for name in np.unique(samples.index)}
        self._settlement = AsyncClient(target)
        self._exposure: defaultdict[tuple[str, str], float] = defaultdict(float)  # by route and desk, on the eve

    async def run(self) -> Mapping[str, Replayed]:
        """Replays every day; what came of it, by route. A failed call is counted and the replay goes on."""
        due: list[tuple[str, Earned]] = []
        first = np.flatnonzero(np.diff(self.samples.day, prepend=np.datetime64("NaT")) != np.timedelta64(0))
        for rows in np.split(np.arange(len(self.samples)), first[1:]):
            self.day = self.samples.day[rows[0]]
            asked = [self._ask(route, int(row)) for row in rows for route in ROUTES]
            _, *answers = await asyncio.gather(self._settle(due), *asked)
            due = [earned for earned in answers if earned is not None]
        await self._settle(due)
        for client in (*self._desks.values(), self._settlement):
            await client.close()
        return self.done

    async def _ask(self, route: str, row: int) -> tuple[str, Earned] | None:
        """Asks for one row, takes the position, and returns what it will have earned by tomorrow's close."""
        desk, done = str(self.samples.index[row]), self.done[route]
        inputs = {"features": self.samples.features[row : row + 1]}
        start = time.perf_counter()
        try:
            answer = await self._desks[desk].infer(route, inputs, unit=desk, parameters={INDEX: desk})
        except grpc.aio.AioRpcError as error:
            done.errors[error.code().name] += 1
            return None
        done.seconds[row] = time.perf_counter() - start
        return route, self._took(route, row, answer)

    def _took(self, route: str, row: int, answer: Answer) -> Earned:
        done, place = self.done[route], (route, str(self.samples.index[row]))
        probability = float(answer.outputs["probability"].reshape(()))
        high = decisions(np.array([probability]))
        exposure = exposures(high)
        (result,) = results_bps(exposure, self.samples.next_return[row : row + 1], before=self._exposure[place])
        self._exposure[place] = float(exposure[0])
        done.decision[row], done.arm[row] = answer.decision, answer.arm
        done.probability[row], done.result_bps[row] = probability, result
        happened = bool(self.samples.label[row])
        return Earned(answer.decision, float(high[0] == happened), {PNL: float(result)}, truth=float(happened))

    async def _settle(self, due: list[tuple[str, Earned]]) -> None:
        if not due:
            return
        try:
            outcomes = (await self._settlement.rewards([earned for _, earned in due])).outcomes
        except grpc.aio.AioRpcError as error:
            for route, _ in due:
                self.done[route].errors[error.code().name] += 1
            return
        for (route, _), outcome in zip(due, outcomes, strict=True):
            if outcome.code:
                self.done[route].errors[grpc.StatusCode(outcome.code).name] += 1
            else:
                self.done[route].rewards += 1
