"""What comes in: bytes are cut into frames, and frames put together to answers.

The three frames of a usual answer (headers, a body, trailers) are dealt with where they are found, because every call
has them; all others go a longer way.
"""

from __future__ import annotations

from collections.abc import Callable

from router.upstreams.http2 import frames
from router.upstreams.http2.calls import Calls
from router.upstreams.http2.frames import HEAD, tag
from router.upstreams.http2.headers import decode

_BODY = tag(frames.DATA)
_HEADERS = tag(frames.HEADERS, frames.END_HEADERS)
_TRAILERS = tag(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM)
_PRIORITY = 5  # bytes in front of a header block
_LONGEST_BLOCK = 65_536  # bytes of headers


class Reader:
    """Reads what a server sends on one connection. Frames about the connection itself are handed on.

    `taken` are the bytes of answers that came, for which the other side may want to be given room again.
    """

    def __init__(self, calls: Calls, *, largest: int, control: Callable[[int, int, int, bytes], None]) -> None:
        """`calls` are told of their answers. `control` takes the type, flags, stream and payload of any other frame.

        Answers of more than `largest` bytes are given up.
        """
        self.taken = 0
        self._calls = calls
        self._streams = calls.streams
        self._largest = largest
        self._control = control
        self._rest = b""  # of a frame that has not come whole

    def feed(self, data: bytes) -> None:
        """Takes what came. Raises ValueError when the other side does not keep to HTTP/2."""
        if self._rest:
            data = self._rest + data
        streams, unpack, size, at = self._streams, frames.HEAD_FORMAT.unpack_from, len(data), 0
        while (start := at + HEAD) <= size:
            high, length, what, id = unpack(data, at)
            if high:
                raise ValueError("a frame is longer than was allowed")
            if (end := start + length) > size:
                break
            stream = streams.get(id)
            if stream is None:
                end = self._uncommon(data, start, end, what, id)
            elif what == _BODY and not stream.body and stream.headers is not None:
                stream.body = data[start:end]
                self.taken += length
            elif what == _TRAILERS and stream.headers is not None:
                stream.trailers = decode(data[start:end])
                self._calls.answered(stream)
            elif what == _HEADERS and stream.headers is None:
                stream.headers = decode(data[start:end])
            else:
                end = self._uncommon(data, start, end, what, id)
            if not end:
                break
            at = end
        self._rest = data[at:]

    def _uncommon(self, data: bytes, start: int, end: int, what: int, id: int) -> int:
        """Takes any frame; says where the next begins, or 0 when more has to come before it can be read."""
        kind, flags, id, payload = what >> 8, what & 0xFF, id & frames.GREATEST, data[start:end]
        if kind == frames.DATA:
            self.taken += len(payload)
            self._data(flags, id, frames.unpadded(flags, payload))
        elif kind == frames.HEADERS:
            block = frames.unpadded(flags, payload)
            if flags & frames.PRIORITISED:
                block = block[_PRIORITY:]
            if not flags & frames.END_HEADERS:
                more = _continuation(data, end, id)
                if more is None:
                    return 0
                rest, end = more
                block += rest
            self._headers(flags, id, block)
        elif kind == frames.CONTINUATION:
            raise ValueError("there is no header block to continue")
        else:
            self._control(kind, flags, id, payload)
        return end

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        stream = self._streams.get(id)
        if stream is None:  # the caller has left
            return
        if stream.headers is None:
            raise ValueError("data came before headers")
        if not stream.body:
            stream.body = payload
        else:
            if not isinstance(stream.body, bytearray):
                stream.body = bytearray(stream.body)
            stream.body += payload
            if len(stream.body) > self._largest:
                self._calls.too_large(stream, self._largest)
                return
        if flags & frames.END_STREAM:
            self._calls.answered(stream)

    def _headers(self, flags: int, id: int, block: bytes) -> None:
        stream = self._streams.get(id)
        if stream is None:
            return
        said, last = decode(block), bool(flags & frames.END_STREAM)
        before = stream.headers
        if before is None or before.get(":status", "").startswith("1"):  # an interim answer
            stream.headers = said
        elif last:
            stream.trailers = said
        else:
            raise ValueError("trailers do not end their stream")
        if last:
            self._calls.answered(stream)


def _continuation(data: bytes, at: int, id: int) -> tuple[bytes, int] | None:
    """The rest of a header block, and where it ends; None: it has not come whole."""
    block, began = b"", at
    while (start := at + HEAD) <= len(data):
        high, length, what, stream = frames.HEAD_FORMAT.unpack_from(data, at)
        kind, at = what >> 8, start + length
        if high or kind != frames.CONTINUATION or stream & frames.GREATEST != id:
            raise ValueError("a header block is not continued")
        if at - began > _LONGEST_BLOCK:
            raise ValueError("a header block has no end")
        if at > len(data):
            break
        block += data[start:at]
        if what & frames.END_HEADERS:
            return block, at
    return None
