"""Callers who wait until there is room for them: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """A queue of callers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._loop = loop

    async def wait(self) -> None:
        """Returns when it is the caller's turn. Cancelled, it leaves its turn to the next."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done():
                self.call(1)
            raise

    def call(self, places: int) -> None:
        """It is the turn of so many callers."""
        while self.waiting and places > 0:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                places -= 1

    def call_all(self) -> None:
        """There is nothing more to wait for."""
        self.call(len(self.waiting))
