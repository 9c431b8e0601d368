"""The calls in flight on one connection: how they begin, wait for each other, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.upstreams.http2.deadlines import Deadlines
from router.upstreams.http2.frames import GREATEST, ErrorCode
from router.upstreams.http2.sending import Sender
from router.upstreams.http2.stream import Lost, Reset, Stream
from router.upstreams.http2.turns import Turns

_MOST = 1000  # at a time, if the other side allows as many


class Calls:
    """Streams by their number. Those that nobody waits for any more are not among them.

    `useful`: one was answered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sender: Sender,
        *,
        used_up: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        """`used_up` is called when no stream is left for another call, `done` when the last has ended after `stop`."""
        self.streams: dict[int, Stream] = {}
        self.useful = False
        self._new_future: Callable[[], asyncio.Future[None]] = loop.create_future
        self._sender = sender
        self._used_up = used_up
        self._done = done
        self._next = 1
        self._most = _MOST
        self._stopped = False
        self._turns = Turns(loop)
        self._deadlines = Deadlines(loop, self.streams, self._late)

    @property
    def full(self) -> bool:
        """Whether none can begin now."""
        return len(self.streams) >= self._most

    async def room(self) -> None:
        """Returns when one can begin, or none ever will."""
        while self.full and not self._stopped:
            await self._turns.wait()

    def begin(self, block: bytes, body: bytes, deadline: float) -> Stream:
        """Begins one; there must be room. `deadline` is on the event loop's clock."""
        id = self._next
        self._next = id + 2
        stream = self.streams[id] = Stream(id, self._new_future(), deadline)
        self._sender.call(id, block, body)
        if deadline < self._deadlines.next:
            self._deadlines.look_at(deadline)
        if self._next > GREATEST:
            self._used_up()
        return stream

    def cancel(self, stream: Stream) -> None:
        """Gives one up, unless it has ended."""
        if stream.id in self.streams:
            self._end(stream)
            self._sender.reset(stream.id, ErrorCode.CANCEL)

    def limit(self, most: int) -> None:
        """The other side takes so many at a time."""
        if not self._stopped:
            self._most = min(most, _MOST)
            self._turns.call(self._most - len(self.streams))

    def stop(self) -> None:
        """Lets none begin any more."""
        self._stopped, self._most = True, 0
        self._turns.call_all()

    def answered(self, stream: Stream) -> None:
        """The answer of one has come whole."""
        self.useful = True
        if stream.id in self._sender.held:  # and not all of it was sent
            self._sender.reset(stream.id, ErrorCode.CANCEL)
        self._end(stream)
        if not stream.done.done():
            stream.done.set_result(None)

    def too_large(self, stream: Stream, most: int) -> None:
        """The answer of one is larger than allowed."""
        self.cancel(stream)
        stream.fail(Reset(ErrorCode.CANCEL, f"the answer has more than {most} bytes"))

    def was_reset(self, id: int, code: ErrorCode) -> None:
        """The other side gave one up."""
        stream = self.streams.get(id)
        if stream is None:
            return
        self._end(stream)
        if code is ErrorCode.REFUSED_STREAM:
            stream.fail(Lost("the call was refused before it was looked at", unseen=True))
        else:
            stream.fail(Reset(code, f"the other side reset the call: {code.name}"))

    def lose(self, why: str, *, after: int = 0, unseen: bool = False) -> None:
        """Those whose number is greater than `after` are lost."""
        for stream in [stream for stream in self.streams.values() if stream.id > after]:
            del self.streams[stream.id]
            self._sender.held.pop(stream.id, None)
            stream.fail(Lost(why, unseen=unseen))
        if not self.streams:
            self._deadlines.stop()

    def _late(self, stream: Stream) -> None:
        self.cancel(stream)
        stream.fail(TimeoutError())

    def _end(self, stream: Stream) -> None:
        del self.streams[stream.id]
        if self._sender.held:
            self._sender.held.pop(stream.id, None)
        if self._turns.waiting:
            self._turns.call(self._most - len(self.streams))
        if self._stopped and not self.streams:
            self._done()
