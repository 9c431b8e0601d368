"""One HTTP/2 connection of a client. A call is a header block and a body there, and headers, a body and trailers back.

What is written in one turn of the event loop goes out together. The receive windows are as large as the largest
answer, so only what we send is ever held back, by the windows of the other side.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, cast

from router.upstreams.http2 import frames, headers
from router.upstreams.http2.frames import ErrorCode, frame, number

_NOTHING = memoryview(b"")
_NO_HEADERS: Mapping[str, str] = {}
_HALF = frames.GREATEST // 2  # of the room that we give
_RARE = frames.PADDED | frames.PRIORITISED
_MOST_CALLS = 1000  # at a time, if the other side allows as many


class Response(NamedTuple):
    """What came back."""

    headers: Mapping[str, str]
    body: bytes
    trailers: Mapping[str, str]  # empty where the headers said all


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


class _Stream:
    """A call in flight."""

    __slots__ = ("body", "chunks", "deadline", "done", "headers", "id", "size", "unsent", "window")

    def __init__(self, id: int, done: asyncio.Future[Response], deadline: float) -> None:
        self.id = id
        self.done = done
        self.deadline = deadline
        self.headers: Mapping[str, str] | None = None
        self.body = b""  # of an answer in one frame
        self.chunks: list[bytes] | None = None  # of a longer one
        self.size = 0
        self.unsent = _NOTHING  # of the request, where windows hold it back
        self.window = 0


class Connection(asyncio.Protocol):
    """The protocol of one connection. Everything happens in the event loop that it was made in.

    `ready` is done when the other side has said its settings. `spent` is called once, when it takes no further calls:
    it was lost, or the other side is leaving, and those in flight still end on it.
    """

    def __init__(self, spent: Callable[[], None], *, largest: int) -> None:
        """Answers of more than `largest` bytes are given up."""
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.why = ""  # it is spent
        self.useful = False  # a call was answered
        self._spent = spent
        self._largest = largest
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._blocked: dict[int, _Stream] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()  # calls for which there is no stream
        self._next = 1
        self._out: list[bytes] = []
        self._flushing = False
        self._rest = b""  # of a frame that has not come whole
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and beginning of an unfinished header block
        self._taken = 0  # bytes received since the other side was last given room for more
        self._window = self._first_window = frames.WINDOW
        self._frame = frames.FRAME
        self._most = _MOST_CALLS
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = inf
        self._pings: list[asyncio.Future[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def usable(self) -> bool:
        """Whether it takes a call now."""
        return not self.why and self.ready.done()

    @property
    def full(self) -> bool:
        """Whether a call would have to wait for another to end."""
        return len(self._streams) >= self._most and not self.why

    async def call(self, block: bytes, body: bytes, deadline: float) -> Response:
        """Makes one call; cancelled or late, it is cancelled on the other side too.

        `deadline` is on the event loop's clock. Raises TimeoutError, Lost and Reset.
        """
        if self.full:
            async with asyncio.timeout_at(deadline):
                while self.full:
                    await self._stream_free()
        if self.why:
            raise Lost(self.why, unseen=True)
        stream = _Stream(self._next, self._loop.create_future(), deadline)
        self._next += 2
        self._streams[stream.id] = stream
        self._idle.clear()
        self._send_call(stream, block, body)
        if self._next > frames.GREATEST:
            self._retire("the connection has used up its streams")
        if deadline < self._next_look:
            self._look_at(deadline)
        try:
            return await stream.done
        except asyncio.CancelledError:
            if stream.id in self._streams:
                self._give_up(stream, ErrorCode.CANCEL)
            raise

    async def ping(self) -> None:
        """Returns when the other side has answered a ping. Raises Lost."""
        if self.why:
            raise Lost(self.why)
        answered: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(answered)
        self._write(frame(frames.PING, 0, 0, bytes(8)))
        await answered

    async def close(self, seconds: float) -> None:
        """Takes no further call, and ends when those in flight are done, or after so many seconds."""
        self._retire("the connection was closed")
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self.abort("the connection was closed")

    def abort(self, why: str, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Ends it at once, with everything on it."""
        self._lose(why)
        if self._transport is not None and not self._transport.is_closing():
            self._write(frame(frames.GOAWAY, 0, 0, number(0) + number(code)))
            self._flush()
            self._transport.close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        announced = frames.settings(
            HEADER_TABLE_SIZE=0, ENABLE_PUSH=0, INITIAL_WINDOW_SIZE=self._largest, MAX_FRAME_SIZE=frames.FRAME
        )
        room = frame(frames.WINDOW_UPDATE, 0, 0, number(frames.GREATEST - frames.WINDOW))
        transport.write(frames.PREFACE + announced + room)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(f"the connection was lost: {error}" if error else "the connection was closed by the other side")

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end, head = 0, len(data), frames.HEAD_FORMAT.unpack_from
        try:
            while end - at >= frames.HEAD:
                high, low, kind, flags, stream = head(data, at)
                start = at + frames.HEAD
                length = high << 8 | low
                if length > frames.FRAME:
                    raise ValueError("a frame is longer than was allowed")
                if start + length > end:
                    break
                at = start + length
                stream &= frames.GREATEST
                if self._block is not None or flags & _RARE:
                    self._received(kind, flags, stream, data[start:at])
                elif kind == frames.DATA:
                    self._data(flags, stream, data[start:at])
                elif kind == frames.HEADERS:
                    self._headers(flags, stream, data[start:at])
                else:
                    self._received(kind, flags, stream, data[start:at])
        except ValueError as error:
            self.abort(f"the other side does not keep to HTTP/2: {error}", ErrorCode.PROTOCOL_ERROR)
            return
        self._rest = data[at:]

    def eof_received(self) -> None:
        """The transport closes itself."""

    # What comes in

    def _received(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ValueError("a header block is not continued")
        if kind == frames.DATA:
            self._data(flags, id, payload)
        elif kind == frames.HEADERS:
            block = _unpadded(payload, flags)
            self._headers(flags, id, block[5:] if flags & frames.PRIORITISED else block)
        elif kind == frames.WINDOW_UPDATE:
            self._more_room(id, _number(payload))
        elif kind == frames.RST_STREAM:
            self._was_reset(id, ErrorCode(_number(payload)))
        elif kind == frames.SETTINGS:
            self._settings(flags, payload)
        elif kind == frames.PING:
            self._ping(flags, payload)
        elif kind == frames.GOAWAY:
            self._go_away(_number(payload), ErrorCode(_number(payload[4:])), payload[8:])
        elif kind == frames.CONTINUATION:
            if self._block is None or self._block[0] != id:
                raise ValueError("there is no header block to continue")
            _, before, beginning = self._block
            self._block = None
            self._headers(before | flags & frames.END_HEADERS, id, beginning + payload)
        elif kind == frames.PUSH_PROMISE:
            raise ValueError("nobody asked for a push")

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > _HALF:
            self._write(frame(frames.WINDOW_UPDATE, 0, 0, number(self._taken)))
            self._taken = 0
        stream = self._streams.get(id)
        if stream is None:  # the caller has left
            return
        if stream.headers is None:
            raise ValueError("data came before headers")
        if flags & frames.PADDED:
            payload = _unpadded(payload, flags)
        if not stream.body:
            stream.body = payload
        else:
            if stream.chunks is None:
                stream.chunks, stream.size = [stream.body], len(stream.body)
            stream.chunks.append(payload)
            stream.size += len(payload)
            if stream.size > self._largest:
                self._fail(stream, ErrorCode.CANCEL, f"the answer has more than {self._largest} bytes")
                return
        if flags & frames.END_STREAM:
            self._answered(stream, _NO_HEADERS)

    def _headers(self, flags: int, id: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            if len(block) > frames.FRAME * 4:
                raise ValueError("a header block has no end")
            self._block = id, flags, block
            return
        stream = self._streams.get(id)
        if stream is None:
            return
        said = headers.decode(block)
        if stream.headers is None and not flags & frames.END_STREAM:
            if not said.get(":status", "").startswith("1"):  # an interim answer
                stream.headers = said
        elif not flags & frames.END_STREAM:
            raise ValueError("trailers do not end their stream")
        elif stream.headers is None:
            stream.headers = said
            self._answered(stream, _NO_HEADERS)
        else:
            self._answered(stream, said)

    def _was_reset(self, id: int, code: ErrorCode) -> None:
        stream = self._streams.get(id)
        if stream is None:
            return
        self._end(stream)
        if not stream.done.done():
            if code is ErrorCode.REFUSED_STREAM:
                stream.done.set_exception(Lost("the call was refused before it was looked at", unseen=True))
            else:
                stream.done.set_exception(Reset(code, f"the other side reset the call: {code.name}"))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        for setting, value in frames.settings_in(payload):
            if setting == frames.MAX_CONCURRENT_STREAMS:
                self._most = min(value, _MOST_CALLS)
            elif setting == frames.MAX_FRAME_SIZE:
                low, high = frames.FRAME_LIMITS
                if not low <= value <= high:
                    raise ValueError(f"frames of {value} bytes are not allowed")
                self._frame = value
            elif setting == frames.INITIAL_WINDOW_SIZE:
                if value > frames.GREATEST:
                    raise ValueError(f"a window of {value} bytes is not allowed")
                for stream in self._blocked.values():
                    stream.window += value - self._first_window
                self._first_window = value
        self._write(frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._send_blocked()
        self._wake()

    def _ping(self, flags: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._write(frame(frames.PING, frames.ACK, 0, payload))
        elif self._pings and not (answered := self._pings.pop(0)).done():
            answered.set_result(None)

    def _go_away(self, last: int, code: ErrorCode, debug: bytes) -> None:
        said = debug[:100].decode("ascii", "replace")
        why = f"the other side is leaving: {code.name}{said and ', ' + said}"
        self._retire(why)
        for stream in [stream for stream in self._streams.values() if stream.id > last]:
            self._end(stream)
            if not stream.done.done():
                stream.done.set_exception(Lost(why, unseen=True))

    def _more_room(self, id: int, increment: int) -> None:
        if id == 0:
            self._window += increment
            if self._window > frames.GREATEST:
                raise ValueError("a window is too large")
        elif (stream := self._blocked.get(id)) is not None:
            stream.window += increment
        if self._blocked:
            self._send_blocked()

    # What goes out

    def _send_call(self, stream: _Stream, block: bytes, body: bytes) -> None:
        opened = frame(frames.HEADERS, frames.END_HEADERS, stream.id, block)
        size = len(body)
        if size <= self._window and size <= self._first_window and size <= self._frame and not self._blocked:
            self._window -= size
            self._write(opened + frame(frames.DATA, frames.END_STREAM, stream.id, body))
            return
        self._write(opened)
        stream.unsent = memoryview(body)
        stream.window = self._first_window
        self._blocked[stream.id] = stream
        self._send_blocked()

    def _send_blocked(self) -> None:
        for stream in list(self._blocked.values()):
            unsent = stream.unsent
            while unsent and (room := min(self._window, stream.window, self._frame)) > 0:
                piece, unsent = unsent[:room], unsent[room:]
                self._window -= len(piece)
                stream.window -= len(piece)
                self._write(frame(frames.DATA, 0 if unsent else frames.END_STREAM, stream.id, piece))
            stream.unsent = unsent
            if not unsent:
                del self._blocked[stream.id]

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # How calls end

    def _answered(self, stream: _Stream, trailers: Mapping[str, str]) -> None:
        unfinished = stream.id in self._blocked
        self.useful = True
        self._end(stream)
        if unfinished:  # it was answered before all of it was sent
            self._write(frame(frames.RST_STREAM, 0, stream.id, number(ErrorCode.CANCEL)))
        if not stream.done.done():
            body = stream.body if stream.chunks is None else b"".join(stream.chunks)
            stream.done.set_result(Response(stream.headers or _NO_HEADERS, body, trailers))

    # One timer for all calls, set to the earliest deadline: most calls are answered before it looks at them.

    def _look_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_look = deadline
        self._timer = self._loop.call_at(deadline, self._end_late_calls)

    def _end_late_calls(self) -> None:
        now = self._loop.time()
        for stream in [stream for stream in self._streams.values() if stream.deadline <= now]:
            self._give_up(stream, ErrorCode.CANCEL)
            if not stream.done.done():
                stream.done.set_exception(TimeoutError())
        self._timer, self._next_look = None, inf
        if self._streams:
            self._look_at(min(stream.deadline for stream in self._streams.values()))

    def _fail(self, stream: _Stream, code: ErrorCode, why: str) -> None:
        self._give_up(stream, code)
        if not stream.done.done():
            stream.done.set_exception(Reset(code, why))

    def _give_up(self, stream: _Stream, code: ErrorCode) -> None:
        self._end(stream)
        self._write(frame(frames.RST_STREAM, 0, stream.id, number(code)))

    def _end(self, stream: _Stream) -> None:
        del self._streams[stream.id]
        self._blocked.pop(stream.id, None)
        if self._waiting:
            self._wake()
        if not self._streams:
            self._idle.set()
            if self.why:
                self.abort(self.why)

    async def _stream_free(self) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done():
                self._wake()  # whose turn it was has left: the next
            raise

    def _wake(self) -> None:
        free = self._most - len(self._streams)
        while self._waiting and (free > 0 or self.why):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _retire(self, why: str) -> None:
        if self.why:
            return
        self.why = why
        if not self.ready.done():
            self.ready.set_exception(Lost(why, unseen=True))
            self.ready.exception()  # whoever waited for it may have left
        self._wake()
        self._spent()
        if not self._streams:
            self.abort(why)

    def _lose(self, why: str) -> None:
        self._retire(why)
        streams, self._streams = list(self._streams.values()), {}
        self._blocked.clear()
        for stream in streams:
            if not stream.done.done():
                stream.done.set_exception(Lost(why))
        for answered in self._pings:
            if not answered.done():
                answered.set_exception(Lost(why))
        self._pings.clear()
        self._idle.set()
        if self._timer is not None:
            self._timer.cancel()


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & frames.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ValueError("a frame is all padding")
    return payload[1 : len(payload) - payload[0]]


def _number(payload: bytes) -> int:
    if len(payload) < 4:  # noqa: PLR2004
        raise ValueError("a frame is cut short")
    return int.from_bytes(payload[:4], "big") & frames.GREATEST
