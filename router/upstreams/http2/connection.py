"""One HTTP/2 connection of a client. A call is a header block and a body there, and headers, a body and trailers back.

The receive windows are as large as the largest answer, so only what we send is ever held back, by the windows of the
other side.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import cast

from router.upstreams.http2 import frames
from router.upstreams.http2.calls import Calls
from router.upstreams.http2.frames import ErrorCode, frame, number, number_in
from router.upstreams.http2.reading import Reader
from router.upstreams.http2.sending import Sender
from router.upstreams.http2.stream import Lost

_HALF = frames.GREATEST // 2  # of the room that we give


class Connection(asyncio.Protocol):
    """The protocol of one connection. Everything happens in the event loop that it was made in.

    `calls` are those on it. `ready` is done when the other side has said its settings. `spent` is called once, when it
    takes no further calls: it was lost, or the other side is leaving, and those in flight still end on it. `why` then
    says why.
    """

    def __init__(self, spent: Callable[[], None], *, largest: int) -> None:
        """Answers of more than `largest` bytes are given up."""
        loop = asyncio.get_running_loop()
        self.why = ""
        self.ready: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._spent = spent
        self._largest = largest
        self._pings: list[asyncio.Future[None]] = []
        self._ended = asyncio.Event()
        self._sender = Sender(loop)
        self.calls = Calls(
            loop,
            self._sender,
            used_up=lambda: self._retire("the connection has used up its streams"),
            done=lambda: self.abort(self.why),
        )
        self._reader = Reader(self.calls, largest=largest, control=self._control)

    async def ping(self) -> None:
        """Returns when the other side has answered a ping. Raises Lost."""
        if self.why:
            raise Lost(self.why)
        answered: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(answered)
        self._sender.write(frame(frames.PING, 0, 0, bytes(8)))
        await answered

    async def close(self, seconds: float) -> None:
        """Takes no further call, and ends when those in flight are done, or after so many seconds."""
        self._retire("the connection was closed")
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            self.abort("the connection was closed")

    def abort(self, why: str, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Ends it at once, with everything on it."""
        self._lose(why)
        transport = self._sender.transport
        if transport is not None and not transport.is_closing():
            self._sender.write(frame(frames.GOAWAY, 0, 0, number(0) + number(code)))
            self._sender.flush()
            transport.close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sender.transport = cast("asyncio.Transport", transport)
        announced = frames.settings(
            HEADER_TABLE_SIZE=0, ENABLE_PUSH=0, INITIAL_WINDOW_SIZE=self._largest, MAX_FRAME_SIZE=frames.SHORT
        )
        room = frame(frames.WINDOW_UPDATE, 0, 0, number(frames.GREATEST - frames.WINDOW))
        self._sender.write(frames.PREFACE + announced + room)

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._read_rest()
        self._lose(f"the connection was lost: {error}" if error else "the connection was closed by the other side")

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except ValueError as error:
            self.abort(f"the other side does not keep to HTTP/2: {error}", ErrorCode.PROTOCOL_ERROR)
            return
        if reader.taken > _HALF:
            self._sender.write(frame(frames.WINDOW_UPDATE, 0, 0, number(reader.taken)))
            reader.taken = 0

    def eof_received(self) -> None:
        """The transport closes itself."""

    def _read_rest(self) -> None:
        """What the other side said before it closed: where a write finds that out first, asyncio reads no more."""
        transport = self._sender.transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:  # which has let go of its socket
            return
        try:
            while data := os.read(transport.get_extra_info("socket").fileno(), frames.WINDOW):
                self.data_received(data)
        except OSError:
            pass  # that was all

    # What the other side says of the connection

    def _control(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._sender.more_room(id, number_in(payload))
        elif kind == frames.RST_STREAM:
            self.calls.was_reset(id, ErrorCode(number_in(payload)))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._settings(payload)
        elif kind == frames.PING:
            self._ping(flags, payload)
        elif kind == frames.GOAWAY:
            self._go_away(number_in(payload), ErrorCode(number_in(payload[4:])), payload[8:])
        elif kind == frames.PUSH_PROMISE:
            raise ValueError("nobody asked for a push")

    def _settings(self, payload: bytes) -> None:
        for setting, value in frames.settings_in(payload):
            if setting == frames.MAX_CONCURRENT_STREAMS:
                self.calls.limit(value)
            elif setting == frames.MAX_FRAME_SIZE:
                self._sender.limit_frames(value)
            elif setting == frames.INITIAL_WINDOW_SIZE:
                self._sender.limit_calls(value)
        self._sender.write(frame(frames.SETTINGS, frames.ACK, 0))
        self._sender.send_held()  # not before: the other side goes by these settings when it reads that we do
        if not self.ready.done():
            self.ready.set_result(None)

    def _ping(self, flags: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._sender.write(frame(frames.PING, frames.ACK, 0, payload))
        elif self._pings and not (answered := self._pings.pop(0)).done():
            answered.set_result(None)

    def _go_away(self, last: int, code: ErrorCode, debug: bytes) -> None:
        said = debug[:100].decode("ascii", "replace")
        why = f"the other side is leaving: {code.name}{said and ', ' + said}"
        self._retire(why)
        self.calls.lose(why, after=last, unseen=True)
        if not self.calls.streams:
            self.abort(why)

    # How it ends

    def _retire(self, why: str) -> None:
        if self.why:
            return
        self.why = why
        if not self.ready.done():
            self.ready.set_exception(Lost(why, unseen=True))
            self.ready.exception()  # whoever waited for it may have left
        self.calls.stop()
        self._spent()
        if not self.calls.streams:
            self.abort(why)

    def _lose(self, why: str) -> None:
        self._retire(why)
        self._ended.set()
        self.calls.lose(why)
        for answered in self._pings:
            if not answered.done():
                answered.set_exception(Lost(why))
        self._pings.clear()
