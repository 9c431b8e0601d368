"""What waits for the next commit, and what is told to whom when that is through."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.call import Add, Decision, Feedback, Vector
from router.errors import NotRecorded
from router.learning.counting import Verdict


@dataclass(slots=True)
class Queue:
    """What waits for the next commit."""

    decisions: deque[Decision] = field(default_factory=deque)
    strict: list[tuple[Decision, asyncio.Future[None]]] = field(default_factory=list)  # those that somebody waits for
    feedback: deque[tuple[Sequence[Feedback], asyncio.Future[list[Verdict]]]] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self.decisions or self.strict or self.feedback)

    def take(self, most: int) -> Queue:
        """Takes what waits, in its order: of decisions and of what clients report `most` each, or one more batch."""
        taken, self.strict = Queue(strict=self.strict), []
        if len(self.decisions) <= most:
            taken.decisions, self.decisions = self.decisions, deque()
        else:
            taken.decisions.extend(self.decisions.popleft() for _ in range(most))
        reports = 0
        while self.feedback and reports < most:
            taken.feedback.append(self.feedback.popleft())
            reports += len(taken.feedback[-1][0])
        return taken

    def refuse(self) -> None:
        """Tells all who wait for a commit that there was none."""
        waiters: list[asyncio.Future[Any]] = [done for _, done in self.strict]
        for waiter in [*waiters, *(done for _, done in self.feedback)]:
            settle(waiter, error=NotRecorded())
        self.strict = []
        self.feedback.clear()


class Rows:
    """Rows that hang on no outcome. As nothing is claimed with them, a commit that may have failed is sent again alike.

    Its number tells the store whether it has them already. What comes meanwhile waits for the next number.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], Vector] = {}
        self.number = 0
        self.sent: list[Add] = []

    def __bool__(self) -> bool:
        return bool(self._sums or self.sent)

    def add(self, adds: Iterable[Add]) -> None:
        """Adds them to what waits."""
        for add in adds:
            key = add.route, add.layout, add.arm
            self._sums[key] = self._sums[key] + add.row if key in self._sums else add.row

    def send(self) -> None:
        """Takes what is there for the next commit, unless the last one has to be sent again."""
        if not self.sent and self._sums:
            self.sent = [Add(*key, row) for key, row in self._sums.items()]
            self._sums = {}
            self.number += 1


def settle(waiter: asyncio.Future[Any], result: object = None, *, error: Exception | None = None) -> None:
    """Answers whoever waits, unless they have left."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(result)
    else:
        waiter.set_exception(error)
