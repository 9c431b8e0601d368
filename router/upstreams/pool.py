"""Several connections as one: calls go round those that are up, and once more where that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from protos.errors import Code
from router.upstreams.channel import Answer, Channel, Metadata, Refused

REST_SECONDS = 1.0  # for which a server that said UNAVAILABLE is passed over, if there are others


class Pool:
    """Channels to servers that answer alike.

    A call is made again, on another channel, if no server has begun it: the connection was refused, or the server was
    leaving. Also if a server said UNAVAILABLE, which means not ready, and there is another server. A call that was
    lost with its connection is not: it may be what the server died of. Nor is one that took too long.
    """

    def __init__(self, channels: Sequence[Channel], *, retries: int) -> None:
        self._channels = channels
        self._retries = retries
        self._turn = 0
        self._resting: dict[str, float] = {}  # until when, by target, on the event loop's clock

    async def call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Answer:
        """Asks one of the servers, and perhaps another. Raises Refused, with what the last one said."""
        channel = self._next() or self._channels[0]
        tried: list[Channel] = []
        while True:
            try:
                return await channel.call(method, message, metadata, deadline)
            except Refused as error:
                tried.append(channel)
                if error.answered and error.code is Code.UNAVAILABLE:
                    self._resting[channel.target] = asyncio.get_running_loop().time() + REST_SECONDS
                other = self._other(error, tried)
                if other is None or len(tried) > self._retries:
                    raise
                channel = other

    @property
    def targets(self) -> str:
        """Where its servers are, for people."""
        return ", ".join(dict.fromkeys(channel.target for channel in self._channels))

    async def close(self, seconds: float) -> None:
        """Ends all connections when calls in flight are done, or after so many seconds."""
        await asyncio.gather(*(channel.close(seconds) for channel in self._channels))

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
        """The next in turn of those that are up and not resting; else of those that are up; else of all."""
        if len(self._channels) == 1:
            return None if avoided else self._channels[0]
        up = down = None
        for step in range(1, len(self._channels) + 1):
            turn = (self._turn + step) % len(self._channels)
            channel = self._channels[turn]
            if channel in avoided:
                continue
            if not channel.connected:
                down = down or channel
            elif self._is_resting(channel.target):
                up = up or channel
            else:
                self._turn = turn
                return channel
        self._turn += 1
        return up or down

    def _is_resting(self, target: str) -> bool:
        return bool(self._resting) and self._resting.get(target, 0.0) > asyncio.get_running_loop().time()
