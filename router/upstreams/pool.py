"""Several connections as one: calls go round those that are up, and once more where that is safe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from protos.errors import Code
from router.upstreams.channel import Answer, Channel, Metadata, Refused
from router.upstreams.outliers import Outliers, Target

_log = logging.getLogger(__name__)


def nobody(_target: str) -> None:
    """Who need not be told."""


class Pool:
    """Channels to servers that answer alike.

    A call is made again, on another channel, if no server has begun it: the connection was refused, or the server was
    leaving. Also if a server said UNAVAILABLE, which means not ready, and there is another server. A call that was
    lost with its connection is not: it may be what the server died of. Nor is one that took too long.

    Of several servers, those that do much worse than the others are left out for a while.
    """

    def __init__(self, channels: Sequence[Channel], *, retries: int, left_out: Callable[[str], None] = nobody) -> None:
        """`left_out` is told the target of a server that is left out."""
        self._channels = channels
        self._retries = retries
        self._left_out = left_out
        self._turn = 0
        self._now = asyncio.get_running_loop().time  # to ask for the loop each time is a system call
        self._outliers = Outliers((channel.target for channel in channels), self._now())
        self._of_channels = [self._outliers.targets[channel.target] for channel in channels]
        self._compared = len(self._outliers.targets) > 1
        self._only = channels[0] if len(channels) == 1 else None

    async def call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Answer:
        """Asks one of the servers, and perhaps another. Raises Refused, with what the last one said."""
        channel = self._only or self._next() or self._channels[0]
        tried: list[Channel] = []
        while True:
            code: Code | None = None
            began = self._now() if self._compared else 0.0
            try:
                return await channel.call(method, message, metadata, deadline)
            except Refused as error:
                code = error.code
                tried.append(channel)
                if error.answered and code is Code.UNAVAILABLE:
                    self._outliers.not_ready(self._outliers.targets[channel.target], self._now())
                other = self._other(error, tried)
                if other is None or len(tried) > self._retries:
                    raise
            finally:
                if self._compared:
                    target = self._outliers.targets[channel.target]
                    if changed := self._outliers.ended(target, began, self._now(), code):
                        self._tell(changed)
            channel = other

    @property
    def targets(self) -> str:
        """Where its servers are, for people."""
        return ", ".join(self._outliers.targets)

    async def close(self, seconds: float) -> None:
        """Ends all connections when calls in flight are done, or after so many seconds."""
        await asyncio.gather(*(channel.close(seconds) for channel in self._channels))

    def _tell(self, changed: Sequence[Target]) -> None:
        for target in changed:
            if target.until:
                self._left_out(target.name)
                _log.warning("%s is left out for a while: %s", target.name, target.why)
            else:
                _log.info("%s is used again", target.name)

    def _other(self, error: Refused, tried: Sequence[Channel]) -> Channel | None:
        """Where a call goes next that was refused; None: nowhere."""
        if error.code is not Code.UNAVAILABLE:
            return None
        if error.answered:
            targets = {channel.target for channel in tried}
            return self._next([channel for channel in self._channels if channel.target in targets])
        if error.unseen:
            return self._next(tried) or tried[-1]
        return None

    def _next(self, avoided: Collection[Channel] = ()) -> Channel | None:
        """The next in turn of those that are up and in service; else of those that are up; else of all."""
        up = down = None
        for step in range(1, len(self._channels) + 1):
            turn = (self._turn + step) % len(self._channels)
            channel = self._channels[turn]
            if channel in avoided:
                continue
            target = self._of_channels[turn]
            if not channel.connected:
                down = down or channel
            elif target.until and not self._outliers.try_again(target, self._now()):
                up = up or channel
            else:
                self._turn = turn
                return channel
        self._turn += 1
        return up or down
