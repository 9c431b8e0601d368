"""The journal: decisions, what clients report of them, and counts, on their way into the store.

All that came while the last commit ran is the next one: a single transaction records the decisions, claims the rewards
and adds what they teach (group commit). Only then are rewards acknowledged.

While the store is away, decisions and counts wait, up to a bound, and feedback is refused: its client sends it again.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter

from protos.errors import ResourceExhausted
from router.call import Add, Batch, Decision, Feedback
from router.errors import NotRecorded, UnknownDecision
from router.ids import time_of
from router.learning.counting import Counted, Verdict, count
from router.learning.fits import Fits
from router.learning.maturity import overdue
from router.learning.outage import Outage
from router.learning.waiting import Queue, Rows, settle
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import InStore, Store

MOST_WAITING = 200_000
MOST_AT_ONCE = 5_000
"""In a commit: a longer one would keep other processes from theirs."""

GRACE_SECONDS = 2.0
"""For which another replica may not have committed a decision of its own."""


class Journal:
    """The decision log and the rewards of all routes of this process. Lives on one event loop."""

    def __init__(
        self,
        in_store: InStore,
        outage: Outage,
        routes: Routes,
        fits: Fits,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        flush_seconds: float,
        writer: str,
    ) -> None:
        """`fits` are written down with the decisions that name them; `clock` gives seconds since the epoch.

        `writer` is this process's name in the store, like no other's.
        """
        self.due = asyncio.Event()  # set when somebody waits for `commit`
        self._in_store = in_store
        self._outage = outage
        self._routes = routes
        self._fits = fits
        self._metrics = metrics
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._writer = writer
        self._queue = Queue()
        self._rows = Rows()

    @property
    def is_waiting(self) -> bool:
        """Whether anything is for the next commit."""
        return bool(self._queue or self._rows)

    @property
    def decisions_waiting(self) -> int:
        """How many are not committed yet."""
        return len(self._queue.decisions)

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest of them has waited."""
        waiting = self._queue.decisions
        return max(0.0, self._clock() - waiting[0].time) if waiting else 0.0

    def record(self, decision: Decision) -> None:
        """Queues a decision for the next commit."""
        waiting = self._queue.decisions
        if len(waiting) >= MOST_WAITING:
            waiting.popleft()
            self._metrics.dropped.inc()
        waiting.append(decision)

    def keep(self, adds: Iterable[Add]) -> None:
        """Queues rows that hang on no outcome. They are committed once, however often a commit fails."""
        self._rows.add(adds)

    def drain(self, route: Route) -> None:
        """Queues what a route has counted on the request path since the last time."""
        if route.tally is not None:
            self.keep(route.tally.drain())
        if route.shadows is not None:
            self.keep(route.shadows.drain())

    async def committed(self, decision: Decision) -> None:
        """Records a decision and returns when it is durable. Raises NotRecorded, and then it never will be."""
        self._check_store()
        done = asyncio.get_running_loop().create_future()
        self._queue.strict.append((decision, done))
        self.due.set()
        await done

    async def feedback(self, feedbacks: Sequence[Feedback]) -> list[Verdict]:
        """Counts what clients report and returns what became of each, in order, once it is durable.

        Raises NotRecorded. A decision that another replica made moments ago may not be committed yet, so one that is
        unknown but young is looked for again.
        """
        verdicts = await self._claim(feedbacks)
        while young := [
            index
            for index, verdict in enumerate(verdicts)
            if isinstance(verdict, UnknownDecision) and self._is_young(feedbacks[index].decision)
        ]:
            await asyncio.sleep(self._flush_seconds)
            for index, verdict in zip(young, await self._claim([feedbacks[index] for index in young]), strict=True):
                verdicts[index] = verdict
        return verdicts

    async def commit(self) -> None:
        """Writes what waits, up to a bound, and tells who waits for it. Raises StoreError: then it waits again.

        Feedback and decisions that somebody waits for do not: they are refused.
        """
        queue = self._queue.take(MOST_AT_ONCE)
        if self._queue:
            self.due.set()
        self._rows.send()
        decisions = [*queue.decisions, *(decision for decision, _ in queue.strict)]
        feedbacks = [feedback for batch, _ in queue.feedback for feedback in batch]
        try:
            verdicts = iter(await self._in_store(lambda store: self._write(store, decisions, feedbacks)))
        except BaseException:
            self._put_back(queue)
            queue.refuse()
            raise
        self._rows.sent = []
        for _, committed in queue.strict:
            settle(committed, None)
        for batch, claimed in queue.feedback:
            mine = [next(verdicts) for _ in batch]
            settle(claimed, mine)
            rewarded = (verdict for verdict in mine if isinstance(verdict, Counted) and verdict.rewarded)
            _count(self._metrics.rewards, (verdict.decision for verdict in rewarded))
        _count(self._metrics.decisions, decisions)

    def refuse(self) -> None:
        """Tells all who wait for a commit that there will be none soon."""
        self._queue.refuse()

    async def _claim(self, feedbacks: Sequence[Feedback]) -> list[Verdict]:
        if len(self._queue.feedback) >= MOST_WAITING:
            raise ResourceExhausted("too many rewards are waiting for the store; send it again later")
        self._check_store()
        done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._queue.feedback.append((feedbacks, done))
        self.due.set()
        return await done

    def _check_store(self) -> None:
        if self._outage.is_long:
            raise NotRecorded

    def _is_young(self, decision: str) -> bool:
        """Whether a decision may exist that is not in the store yet."""
        waiting = self._queue.decisions
        if waiting and decision >= waiting[0].id:  # ids sort by time
            return True
        born = time_of(decision)
        return born is not None and abs(self._clock() - born) < GRACE_SECONDS

    def _write(self, store: Store, decisions: Sequence[Decision], feedbacks: Sequence[Feedback]) -> list[Verdict]:
        routes = self._routes.current
        fits = self._fits.named_by(decisions)
        batch = Batch(
            decisions,
            overdue(routes, decisions, self._clock()),
            adds=self._rows.sent,
            writer=self._writer,
            number=self._rows.number,
            fits=fits,
        )
        verdicts = count(store, routes, batch, feedbacks)
        self._fits.written(fits)
        return verdicts

    def _put_back(self, queue: Queue) -> None:
        """Puts what could not be committed before what has come since, without those who were refused."""
        queue.decisions.extend(self._queue.decisions)
        while len(queue.decisions) > MOST_WAITING:
            queue.decisions.popleft()
            self._metrics.dropped.inc()
        self._queue.decisions = queue.decisions


def _count(counter: Counter, decisions: Iterable[Decision]) -> None:
    for (route, arm), n in collections.Counter((decision.route, decision.arm) for decision in decisions).items():
        counter.labels(route, arm).inc(n)
