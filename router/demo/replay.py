"""The held-out days again, in time order: each index's desk asks for a forecast, and is paid when tomorrow is known."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray

from router.client import Answer, AsyncClient, Earned
from router.demo.service import PNL, ROUTE
from runtime.finance import Samples, decisions, exposures, results_bps


@dataclass
class Replayed:
    """What came of it, one entry a row of the samples; a row that failed has no arm and is NaN elsewhere."""

    arm: list[str]
    probability: NDArray[np.float64]  # of a high range, as the arm answered
    result_bps: NDArray[np.float64]  # of the position that was taken on it, after costs
    seconds: NDArray[np.float64]  # from request to answer, at the client
    rewards: int = 0  # acknowledged
    errors: Counter[str] = field(default_factory=Counter)  # by gRPC status

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which rows got an answer."""
        return np.isfinite(self.probability)


class Replay:
    """Three clients: a desk for each index, and the settlement that reports yesterday's rewards."""

    def __init__(self, target: str, samples: Samples) -> None:
        """To be made inside the event loop that runs it."""
        n = len(samples)
        self.samples = samples
        self.done = Replayed([""] * n, np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan))
        self.day = samples.day[0]  # the one being replayed
        self._desks = {name: AsyncClient(target) for name in np.unique(samples.index)}
        self._settlement = AsyncClient(target)
        self._exposure = dict.fromkeys(self._desks, 0.0)  # of each desk, on the eve

    async def run(self) -> Replayed:
        """Replays every day. A failed call is counted and the replay goes on."""
        due: list[Earned] = []
        first = np.flatnonzero(np.diff(self.samples.day, prepend=np.datetime64("NaT")) != np.timedelta64(0))
        for rows in np.split(np.arange(len(self.samples)), first[1:]):
            self.day = self.samples.day[rows[0]]
            asked = [self._ask(int(row)) for row in rows]
            _, *answers = await asyncio.gather(self._settle(due), *asked)
            due = [earned for earned in answers if earned is not None]
        await self._settle(due)
        for client in (*self._desks.values(), self._settlement):
            await client.close()
        return self.done

    async def _ask(self, row: int) -> Earned | None:
        """Asks for one row, takes the position, and returns what it will have earned by tomorrow's close."""
        desk = str(self.samples.index[row])
        start = time.perf_counter()
        try:
            answer = await self._desks[desk].infer(ROUTE, {"features": self.samples.features[row : row + 1]}, unit=desk)
        except grpc.aio.AioRpcError as error:
            self.done.errors[error.code().name] += 1
            return None
        self.done.seconds[row] = time.perf_counter() - start
        return self._took(row, desk, answer)

    def _took(self, row: int, desk: str, answer: Answer) -> Earned:
        probability = float(answer.outputs["probability"].reshape(()))
        high = decisions(np.array([probability]))
        exposure = exposures(high)
        (result,) = results_bps(exposure, self.samples.next_return[row : row + 1], before=self._exposure[desk])
        self._exposure[desk] = float(exposure[0])
        self.done.arm[row], self.done.probability[row], self.done.result_bps[row] = answer.arm, probability, result
        happened = bool(self.samples.label[row])
        return Earned(answer.decision, float(high[0] == happened), {PNL: float(result)}, truth=float(happened))

    async def _settle(self, due: list[Earned]) -> None:
        if not due:
            return
        try:
            response = await self._settlement.rewards(due)
        except grpc.aio.AioRpcError as error:
            self.done.errors[error.code().name] += len(due)
            return
        for outcome in response.outcomes:
            if outcome.code:
                self.done.errors[grpc.StatusCode(outcome.code).name] += 1
            else:
                self.done.rewards += 1
