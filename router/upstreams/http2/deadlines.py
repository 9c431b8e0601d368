"""One timer for all calls of a connection, set to the earliest deadline: most are answered before it looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import inf

from router.upstreams.http2.stream import Stream


class Deadlines:
    """Ends calls that are late. `next` is when it looks at them next, on the event loop's clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, streams: Mapping[int, Stream], late: Callable[[Stream], None]
    ) -> None:
        """`streams` are those in flight; `late` ends one whose deadline has passed."""
        self.next = inf
        self._loop = loop
        self._streams = streams
        self._late = late
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, deadline: float) -> None:
        """Looks at them at this time, and not at `next`."""
        self.stop()
        self.next = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def stop(self) -> None:
        """Looks at them no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next = None, inf

    def _look(self) -> None:
        self.stop()
        now = self._loop.time()
        for stream in [stream for stream in self._streams.values() if stream.deadline <= now]:
            self._late(stream)
        if self._streams:
            self.look_at(min(stream.deadline for stream in self._streams.values()))
