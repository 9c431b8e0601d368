"""gRPC's framing: each message travels behind five bytes, and body chunks may be split anywhere."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from protos.errors import InvalidArgument, ResourceExhausted, Unimplemented

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_PREFIX = 5  # one byte of flags, four of length
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}


def frame(message: bytes) -> bytes:
    """A message as it travels: uncompressed, behind its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Disconnected(Exception):
    """The caller is gone; there is nobody to answer."""


class Reader:
    """Takes length-prefixed messages out of body chunks, which may be split anywhere."""

    __slots__ = ("_buffer", "_encoding", "_max", "_more", "_receive")

    def __init__(self, receive: Receive, encoding: bytes | None, max_message: int) -> None:
        self._receive = receive
        self._encoding = encoding
        self._max = max_message
        self._buffer = bytearray()
        self._more = True

    async def only(self) -> bytes:
        """The one message of a unary call."""
        event = await self._receive()
        if event["type"] != "http.request":
            raise Disconnected
        body: bytes = event.get("body", b"")
        if event.get("more_body", False):
            body = await self._all(body)
        size = len(body) - _PREFIX
        if size < 0 or (length := self._length(body)) > size:
            if body:
                raise InvalidArgument(f"the request ends {len(body)} bytes into a message")
            raise InvalidArgument("a unary call carries exactly one message; this one carried none")
        if length < size:
            raise InvalidArgument("a unary call carries exactly one message; this one carried more")
        return self._decoded(body[0], body[_PREFIX:])

    async def _all(self, body: bytes) -> bytes:
        """The whole of a body that has begun. What is too long is refused before all of it has come."""
        receive, chunks, size = self._receive, [body], len(body)
        while True:
            event = await receive()
            if event["type"] != "http.request":
                raise Disconnected
            if chunk := event.get("body", b""):
                chunks.append(chunk)
                size += len(chunk)
            if not event.get("more_body", False):
                return body if len(chunks) == 1 else b"".join(chunks)
            if len(body) >= _PREFIX:
                self._length(body)
            if size > self._max + _PREFIX:
                return b"".join(chunks)

    async def each(self) -> AsyncIterator[bytes]:
        """Every message of a streaming call."""
        while (message := await self._next()) is not None:
            yield message

    async def _next(self) -> bytes | None:
        buffer = self._buffer
        while len(buffer) < _PREFIX or len(buffer) < _PREFIX + self._length(buffer):
            if not self._more:
                if buffer:
                    raise InvalidArgument(f"the request ends {len(buffer)} bytes into a message")
                return None
            event = await self._receive()
            if event["type"] != "http.request":
                raise Disconnected
            buffer += event.get("body", b"")
            self._more = event.get("more_body", False)
        end = _PREFIX + self._length(buffer)
        flag, message = buffer[0], bytes(memoryview(buffer)[_PREFIX:end])
        del buffer[:end]
        return self._decoded(flag, message)

    def _length(self, buffer: bytes | bytearray) -> int:
        length = int.from_bytes(buffer[1:_PREFIX], "big")
        if length > self._max:
            raise ResourceExhausted(f"the message has {length} bytes; the limit is {self._max}")
        return length

    def _decoded(self, flag: int, message: bytes) -> bytes:
        if flag == 0:
            return message
        if flag != 1:
            raise Unimplemented(f"the flags of the message are {flag}; 0, plain, and 1, compressed, are known")
        if self._encoding is None:
            raise InvalidArgument("the message is compressed, and no grpc-encoding says how")
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            encoding = self._encoding.decode("latin-1")
            raise Unimplemented(f"compression {encoding!r} is not supported; send identity, gzip or deflate")
        inflate = zlib.decompressobj(wbits=bits)
        try:
            plain = inflate.decompress(message, self._max + 1)
        except zlib.error as error:
            raise InvalidArgument(f"the compressed message cannot be read: {error}") from None
        if len(plain) > self._max:
            raise ResourceExhausted(f"the message has more than {self._max} bytes when decompressed; that is the limit")
        if not inflate.eof:
            raise InvalidArgument("the compressed message is cut short")
        if inflate.unused_data:
            raise InvalidArgument(f"{len(inflate.unused_data)} bytes follow the compressed message")
        return plain
