"""A call in flight on a connection, and the two ways in which it may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.upstreams.http2.frames import ErrorCode

NOTHING: Mapping[str, str] = {}


class Stream:
    """A call: `done` when its answer is whole, or with TimeoutError, Lost or Reset."""

    __slots__ = ("body", "deadline", "done", "headers", "id", "trailers")

    def __init__(self, id: int, done: asyncio.Future[None], deadline: float) -> None:
        self.id = id
        self.done = done
        self.deadline = deadline  # on the event loop's clock
        self.headers: Mapping[str, str] | None = None  # None: they have not come yet
        self.body: bytes | bytearray = b""  # a bytearray where it came in several frames
        self.trailers = NOTHING  # as they stay where the headers say all

    def fail(self, error: Exception) -> None:
        """Ends it so, unless its caller has left."""
        if not self.done.done():
            self.done.set_exception(error)


class Lost(Exception):
    """The connection ended under a call. `unseen`: for certain before the other side looked at it."""

    def __init__(self, why: str, *, unseen: bool = False) -> None:
        super().__init__(why)
        self.unseen = unseen


class Reset(Exception):
    """The call was given up, by the other side or for what it sent."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code
