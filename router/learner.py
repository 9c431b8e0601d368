"""Learning, behind the request path: decisions and rewards are committed in groups, then the policies are fitted.

One cycle takes all that came while the last one ran: a single transaction records the decisions, claims the rewards and
adds what they teach. Only then are rewards acknowledged. All calls to the store are made by one thread.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from operator import is_
from typing import Any, TypeVar

import numpy as np
from prometheus_client import Counter

from bandits import Policy
from protos.errors import CallError, ResourceExhausted
from router.call import Credit, Decision, Reward, Vector
from router.credit import REWARD, credit, policy_layout
from router.errors import AlreadyRewarded, NotRecorded, UnknownDecision, UnknownRoute
from router.ids import time_of
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import Store, StoreError

T = TypeVar("T")

Outcome = Decision | CallError
"""What became of a reward: the decision it was counted for, or why it was not counted."""

MOST_WAITING = 200_000
GRACE_SECONDS = 2.0
RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Learner:
    """The decision log and the rewards of all routes of this process. Lives on one event loop."""

    def __init__(
        self,
        store: Store,
        routes: Routes,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        flush_seconds: float,
        refresh_seconds: float,
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._routes = routes
        self._metrics = metrics
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._refresh_seconds = refresh_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._wake = asyncio.Event()
        self._stopping = False
        self._decisions: deque[Decision] = deque()  # not yet committed; written by the loop
        self._claims: deque[tuple[Sequence[Reward], asyncio.Future[list[Outcome]]]] = deque()
        self._strict: deque[tuple[Decision, asyncio.Future[None]]] = deque()  # those that somebody waits for
        self._seen_version = -1  # of the store, when policies were last fitted
        self._seen_policies: list[Policy] = []  # and which these were
        self._refreshed = -math.inf  # when that was, on the loop's clock

    def record(self, decision: Decision) -> None:
        """Queues a decision for the next commit."""
        if len(self._decisions) >= MOST_WAITING:
            self._decisions.popleft()
            self._metrics.dropped.inc()
        self._decisions.append(decision)

    async def committed(self, decision: Decision) -> None:
        """Records a decision and returns when it is durable. Raises NotRecorded, and then it never will be."""
        done = asyncio.get_running_loop().create_future()
        self._strict.append((decision, done))
        self._wake.set()
        await done

    async def feedback(self, rewards: Sequence[Reward]) -> list[Outcome]:
        """Claims rewards and returns their outcomes, in order, once they are durable. Raises NotRecorded.

        A decision that another replica made moments ago may not be committed yet, so one that is unknown but young is
        looked for again.
        """
        outcomes = await self._claim(rewards)
        while young := [
            index
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, UnknownDecision) and self._is_young(rewards[index].decision)
        ]:
            await asyncio.sleep(self._flush_seconds)
            for index, outcome in zip(young, await self._claim([rewards[index] for index in young]), strict=True):
                outcomes[index] = outcome
        return outcomes

    async def fit(self, route: Route) -> Route:
        """The route with all that the store knows about it. Raises StoreError."""
        return await self._in_thread(lambda: self._fitted(route))

    async def sums(self, route: str) -> dict[tuple[str, str], Vector]:
        """All that was added up for a route, by (layout, arm). Raises StoreError."""
        return dict(await self._in_thread(lambda: self._store.sums(route)))

    async def run(self) -> None:
        """Commits and fits until stopped. Raises what the last commit raised when it failed."""
        while not (self._stopping and not self._waiting()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(self._flush_seconds, self._refresh_seconds))
            self._wake.clear()
            try:
                await self._cycle()
            except Exception as error:  # learning goes on, whatever one cycle met
                self._metrics.store_errors.inc()
                what = "are lost" if self._stopping else "wait"
                traceback = not isinstance(error, StoreError)
                _log.error("a cycle failed, %d decisions %s: %s", len(self._decisions), what, error, exc_info=traceback)
                self._show_lag()
                if self._stopping:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def _waiting(self) -> bool:
        return bool(self._decisions or self._strict or self._claims)

    def stop(self) -> None:
        """Makes `run` return once everything is committed."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Lets go of the store, after `run` has returned."""
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _claim(self, rewards: Sequence[Reward]) -> list[Outcome]:
        if len(self._claims) >= MOST_WAITING:
            raise ResourceExhausted("too many rewards are waiting for the store; send it again later")
        done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._claims.append((rewards, done))
        self._wake.set()
        return await done

    def _is_young(self, decision: str) -> bool:
        born = time_of(decision)
        return born is not None and abs(self._clock() - born) < GRACE_SECONDS

    async def _cycle(self) -> None:
        for route in self._routes.current.values():
            if route.guard.tick():
                self._routes.guard_changed(route.name)
        if self._waiting():
            await self._commit()
        now = asyncio.get_running_loop().time()
        if now - self._refreshed >= self._refresh_seconds:
            self._refreshed = now
            for known in await self._in_thread(self._refit):
                served = self._routes.current.get(known.name)
                if served is not None and served.policy is known.policy and served.version != known.version:
                    self._routes.publish(replace(served, fitted=known.fitted, version=known.version))
            self._show_probabilities()
        self._show_lag()

    async def _commit(self) -> None:
        queued, self._decisions = self._decisions, deque()
        strict, self._strict = self._strict, deque()
        claims, self._claims = self._claims, deque()
        decisions = [*queued, *(decision for decision, _ in strict)]
        rewards = [reward for batch, _ in claims for reward in batch]
        try:
            outcomes = iter(await self._in_thread(lambda: self._write(decisions, rewards)))
        except BaseException:
            self._put_back(queued)
            waiters: list[asyncio.Future[Any]] = [*(done for _, done in strict), *(done for _, done in claims)]
            for waiter in waiters:
                _settle(waiter, error=NotRecorded())
            raise
        for _, committed in strict:
            _settle(committed, None)
        for batch, claimed in claims:
            mine = [next(outcomes) for _ in batch]
            _settle(claimed, mine)
            _count(self._metrics.rewards, (outcome for outcome in mine if isinstance(outcome, Decision)))
        _count(self._metrics.decisions, decisions)

    def _put_back(self, queued: deque[Decision]) -> None:
        queued.extend(self._decisions)
        while len(queued) > MOST_WAITING:
            queued.popleft()
            self._metrics.dropped.inc()
        self._decisions = queued

    def _write(self, decisions: Sequence[Decision], rewards: Sequence[Reward]) -> list[Outcome]:
        known = {decision.id: decision for decision in decisions}
        if unknown := {reward.decision for reward in rewards} - known.keys():
            known |= self._store.find(unknown)
        outcomes: list[Outcome] = []
        credits: list[Credit] = []
        for reward in rewards:
            decision = known.get(reward.decision)
            try:
                if decision is None:
                    raise UnknownDecision(reward.decision)
                route = self._routes.current.get(decision.route)
                if route is None:
                    raise UnknownRoute(decision.route, self._routes.current)
                credits.append(credit(route, decision, reward))
                outcomes.append(decision)
            except CallError as error:
                outcomes.append(error)
        counted = iter(self._store.commit(decisions, credits))
        return [
            AlreadyRewarded(outcome.id) if isinstance(outcome, Decision) and not next(counted) else outcome
            for outcome in outcomes
        ]

    def _refit(self) -> list[Route]:
        routes = list(self._routes.current.values())
        version, policies = self._store.version(), [route.policy for route in routes]
        # A reload publishes routes that were fitted while it went on: they may have missed what came since.
        same = len(policies) == len(self._seen_policies) and all(map(is_, policies, self._seen_policies))
        if same and version == self._seen_version:
            return []
        fitted = [self._fitted(route) for route in routes]
        self._seen_version, self._seen_policies = version, policies
        return fitted

    def _fitted(self, route: Route) -> Route:
        sums = self._store.sums(route.name)
        layout = policy_layout(route)
        nothing = np.zeros(route.policy.width)
        learnt = np.array([sums.get((layout, arm.name), nothing) for arm in route.arms])
        for arm in route.arms:
            n, total, _ = sums.get((REWARD, arm.name), np.zeros(3))
            if n:
                self._metrics.mean_reward.labels(route.name, arm.name).set(total / n)
        version = blake2b(
            repr((route.policy, [arm.name for arm in route.arms])).encode() + learnt.tobytes(), digest_size=6
        ).hexdigest()
        if version == route.version:
            return route
        return replace(route, fitted=route.policy.fit(learnt), version=version)

    def _show_lag(self) -> None:
        waiting = self._decisions
        self._metrics.waiting.set(len(waiting))
        self._metrics.learner_lag.set(max(0.0, self._clock() - waiting[0].time) if waiting else 0.0)

    def _show_probabilities(self) -> None:
        self._metrics.probability.clear()  # of arms that are gone since a reload
        for route in self._routes.current.values():
            for arm, p in zip(route.arms, route.probabilities(), strict=True):
                self._metrics.probability.labels(route.name, arm.name).set(p)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _settle(waiter: asyncio.Future[Any], result: object = None, *, error: Exception | None = None) -> None:
    """Answers whoever waits, unless they have left."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(result)
    else:
        waiter.set_exception(error)


def _count(counter: Counter, decisions: Iterable[Decision]) -> None:
    for (route, arm), n in collections.Counter((decision.route, decision.arm) for decision in decisions).items():
        counter.labels(route, arm).inc(n)
