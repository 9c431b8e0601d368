"""What goes out: all that is written in one turn of the event loop together, and never more than the windows allow."""

from __future__ import annotations

import asyncio

from router.upstreams.http2 import frames
from router.upstreams.http2.frames import ErrorCode, frame, number, tag

_HEADERS = tag(frames.HEADERS, frames.END_HEADERS)
_LAST = tag(frames.DATA, frames.END_STREAM)


class _Held:
    """A request, or the rest of one, that windows hold back."""

    __slots__ = ("unsent", "window")

    def __init__(self, unsent: memoryview, window: int) -> None:
        self.unsent = unsent
        self.window = window


class Sender:
    """Writes frames to the transport of one connection. `held` are the requests that are not wholly sent, by stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport | None = None
        self._loop = loop
        self._out: list[bytes] = []
        self._flushing = False
        self._pack = frames.HEAD_FORMAT.pack
        self._window = self._first_window = frames.WINDOW
        self._frame = frames.FRAME
        self._short = frames.FRAME  # bytes of a request that fits into two frames
        self.held: dict[int, _Held] = {}

    def call(self, id: int, block: bytes, body: bytes) -> None:
        """Sends a request with a body, or what the windows allow of it now."""
        size, headers = len(body), len(block)
        if size <= self._window and size + headers <= self._short and not self.held:
            self._window -= size
            pack = self._pack
            self.write(pack(0, headers, _HEADERS, id) + block + pack(0, size, _LAST, id) + body)
            return
        kind = frames.HEADERS
        while len(block) > self._frame:
            self.write(frame(kind, 0, id, block[: self._frame]))
            kind, block = frames.CONTINUATION, block[self._frame :]
        self.write(frame(kind, frames.END_HEADERS, id, block))
        self.held[id] = _Held(memoryview(body), self._first_window)
        self.send_held()

    def reset(self, id: int, code: ErrorCode) -> None:
        """Has the other side give up a call."""
        self.held.pop(id, None)
        self.write(frame(frames.RST_STREAM, 0, id, number(code)))

    def write(self, data: bytes) -> None:
        """Sends whole frames, with what else is written in this turn of the event loop."""
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends at once what is written so far."""
        self._flushing = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def more_room(self, id: int, increment: int) -> None:
        """The other side takes so many bytes more: of one call, or for 0 of all together. Raises ValueError."""
        if id == 0:
            self._window += increment
            if self._window > frames.GREATEST:
                raise ValueError("a window is too large")
        elif (held := self.held.get(id)) is not None:
            held.window += increment
        if self.held:
            self.send_held()

    def limit_frames(self, size: int) -> None:
        """The other side takes frames of so many bytes. Raises ValueError."""
        low, high = frames.FRAME_LIMITS
        if not low <= size <= high:
            raise ValueError(f"frames of {size} bytes are not allowed")
        self._frame = size
        self._short = min(self._frame, self._first_window, frames.SHORT)

    def limit_calls(self, window: int) -> None:
        """The other side takes so many bytes of each call before it says more. Raises ValueError."""
        if window > frames.GREATEST:
            raise ValueError(f"a window of {window} bytes is not allowed")
        for held in self.held.values():
            held.window += window - self._first_window
        self._first_window = window
        self._short = min(self._frame, self._first_window, frames.SHORT)

    def send_held(self) -> None:
        """Sends what the windows allow now."""
        for id, held in list(self.held.items()):
            unsent = held.unsent
            while unsent and (room := min(self._window, held.window, self._frame)) > 0:
                piece, unsent = unsent[:room], unsent[room:]
                self._window -= len(piece)
                held.window -= len(piece)
                self.write(frame(frames.DATA, 0 if unsent else frames.END_STREAM, id, piece))
            held.unsent = unsent
            if not unsent:
                del self.held[id]
