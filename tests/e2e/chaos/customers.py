"""Customers who ask routers and report what they earned, whatever happens, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from protos.errors import Code
from router import AsyncClient
from router.client import Answer, Earned
from tests.e2e.calls import ROWS
from tests.e2e.models import FACTORS
from tests.process import Router, until

ROUTE = "chaos"
CUSTOMERS = 4
PAUSE = 0.1  # seconds between two requests of a customer
PATIENCE = 2.0  # seconds that a customer waits for the acknowledgement of one reward, before it is sent again
AGAIN = 0.25  # seconds until what was not acknowledged is sent again, in a batch
MOST_AGAIN = 200  # in such a batch
SETTLED = 30.0  # seconds within which all is acknowledged once nothing is broken any more


@dataclass(eq=False)
class Replica:
    """A router process in one of its lives."""

    process: Router
    client: AsyncClient
    killed: bool = False
    asked: int = 0  # requests that it has not answered yet

    @classmethod
    async def of(cls, process: Router) -> Replica:
        """A replica that serves, and has had its first look at the store: from then on it counts calls."""
        address = await asyncio.to_thread(lambda: process.address)
        await asyncio.to_thread(until, lambda: process.metric("croupier_arm_probability"))
        return cls(process, AsyncClient(address, timeout=10.0))

    async def kill(self) -> None:
        """Ends it without a word, in the middle of a request. What is asked of it later has no such excuse."""
        await eventually(lambda: self.asked)
        self.killed = True
        self.process.kill()


@dataclass
class Told:
    """What the customers of a scenario did and were told."""

    answers: dict[str, Answer] = field(default_factory=dict)  # by decision
    by: dict[str, Replica] = field(default_factory=dict)  # who took a decision
    sent: dict[str, float] = field(default_factory=dict)  # rewards, by decision
    acknowledged: set[str] = field(default_factory=set)
    delayed: Counter[Code] = field(default_factory=Counter)  # rewards that were not acknowledged at first
    unknown: set[str] = field(default_factory=set)  # decisions that nobody knows in the end
    in_flight: list[str] = field(default_factory=list)  # requests lost with the process that they were sent to
    failed: list[str] = field(default_factory=list)  # requests that failed without an excuse

    def __str__(self) -> str:
        delayed = ", ".join(f"{n} {code.name}" for code, n in self.delayed.items()) or "none"
        return (
            f"{len(self.answers)} requests answered, {len(self.in_flight)} lost in flight, {len(self.failed)} failed; "
            f"{len(self.sent)} rewards sent, {len(self.acknowledged)} acknowledged (not at first: {delayed}), "
            f"{len(self.unknown)} for decisions that were lost"
        )


def earned(decision: str) -> float:
    """The reward of a decision. Sums of these are exact."""
    return (zlib.crc32(decision.encode()) % 5) / 4


class Customers:
    """Load on `replicas`, to be changed as processes come and go. On leaving the context all rewards are settled."""

    def __init__(self, replicas: list[Replica], seed: int) -> None:
        self.told = Told()
        self.replicas = replicas
        self._random = random.Random(seed)
        self._owed: list[str] = []
        self._reports: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._working = [asyncio.create_task(self._customer()) for _ in range(CUSTOMERS)]
        self._working.append(asyncio.create_task(self._sender()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._leaving.set()
        if kind is None:
            await asyncio.gather(*self._working)
            return
        for task in (*self._working, *self._reports):
            task.cancel()

    async def answered_by(self, arm: str) -> None:
        """Returns once this arm has answered somebody again."""
        before = self._answers_of(arm)
        await eventually(lambda: self._answers_of(arm) > before)

    async def more(self, acknowledged: int) -> None:
        """Returns once so many more rewards are acknowledged."""
        before = len(self.told.acknowledged)
        await eventually(lambda: len(self.told.acknowledged) >= before + acknowledged)

    def _answers_of(self, arm: str) -> int:
        return sum(answer.arm == arm for answer in self.told.answers.values())

    def _living(self) -> Replica:
        return self._random.choice([replica for replica in self.replicas if not replica.killed])

    async def _customer(self) -> None:
        told = self.told
        while not self._leaving.is_set():
            replica = self._living()
            replica.asked += 1
            try:
                answer = await replica.client.infer(ROUTE, {"x": ROWS})
            except grpc.aio.AioRpcError as error:
                said = f"{error.code().name}: {error.details()}"
                (told.in_flight if replica.killed else told.failed).append(said)
            else:
                assert answer.outputs["y"].tolist() == (ROWS * FACTORS[answer.arm]).tolist()
                assert answer.decision not in told.answers
                told.answers[answer.decision], told.by[answer.decision] = answer, replica
                told.sent[answer.decision] = earned(answer.decision)
                task = asyncio.create_task(self._report(answer.decision))
                self._reports.add(task)
                task.add_done_callback(self._reports.discard)
            finally:
                replica.asked -= 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), PAUSE)

    async def _report(self, decision: str) -> None:
        """To any replica, as a backend would that knows nothing of who answered."""
        reward = self._living().client.reward(decision, earned(decision))
        try:
            async with asyncio.timeout(PATIENCE):
                await reward
        except TimeoutError:
            self._not_yet(decision, Code.DEADLINE_EXCEEDED)
        except grpc.aio.AioRpcError as error:
            self._not_yet(decision, Code[error.code().name])
        else:
            self.told.acknowledged.add(decision)

    def _not_yet(self, decision: str, code: Code) -> None:
        self.told.delayed[code] += 1
        self._owed.append(decision)

    async def _sender(self) -> None:
        """Sends again what was not acknowledged, until it is; in the end what is unknown is given up."""
        end = None
        loop = asyncio.get_running_loop()
        while not self._leaving.is_set() or self._reports or self._owed:
            if end is None and self._leaving.is_set():
                end = loop.time() + SETTLED
            await asyncio.sleep(AGAIN)
            batch, self._owed = self._owed[:MOST_AGAIN], self._owed[MOST_AGAIN:]
            self._owed += await self._again(batch)
            assert end is None or loop.time() < end, f"{len(self._owed)} rewards are not taken: {self.told}"

    async def _again(self, batch: list[str]) -> list[str]:
        """Sends these again, and returns those that are not acknowledged yet."""
        if not batch:
            return []
        leaving = self._leaving.is_set()
        try:
            answer = await self._living().client.rewards([Earned(each, earned(each)) for each in batch])
        except grpc.aio.AioRpcError:
            return batch
        codes = {each: Code(outcome.code) for each, outcome in zip(batch, answer.outcomes, strict=True)}
        # That it exists means that the first answer was lost.
        done = {each for each, code in codes.items() if code in {Code.OK, Code.ALREADY_EXISTS}}
        self.told.acknowledged |= done
        if leaving:
            gone = {each for each, code in codes.items() if code is Code.NOT_FOUND and self.told.by[each].killed}
            self.told.unknown |= gone
            done |= gone
        return [each for each in batch if each not in done]


async def eventually(condition, seconds: float = SETTLED) -> None:
    """Returns once a condition holds. Fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
