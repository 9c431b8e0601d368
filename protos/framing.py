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


async def only_message(receive: Receive, encoding: bytes | None, most: int) -> bytes:
    """The one message of a unary call, of at most `most` bytes. `encoding` is that of a compressed one."""
    event = await receive()
    if event["type"] != "http.request":
        raise Disconnected
    body: bytes = event.get("body", b"")
    rest: list[bytes] = []
    if event.get("more_body", False):
        await _gather(body, rest, receive, most)
        if rest and len(body) < _PREFIX:
            body, rest = b"".join([body, *rest]), []
    if not body:
        raise InvalidArgument("a unary call carries exactly one message; this one carried none")
    message = b"".join([body[_PREFIX:], *rest]) if rest else body[_PREFIX:]
    if len(body) < _PREFIX or (length := _length(body, most)) > len(message):
        raise InvalidArgument(f"the request ends {len(body[:_PREFIX]) + len(message)} bytes into a message")
    if length < len(message):
        raise InvalidArgument("a unary call carries exactly one message; this one carried more")
    return _decoded(body[0], message, encoding, most) if body[0] else message


async def messages(receive: Receive, encoding: bytes | None, most: int) -> AsyncIterator[bytes]:
    """Every message of a streaming call, as soon as it is there."""
    buffer, more = bytearray(), True
    while more or buffer:
        while len(buffer) < _PREFIX or len(buffer) < _PREFIX + _length(buffer, most):
            if not more:
                if buffer:
                    raise InvalidArgument(f"the request ends {len(buffer)} bytes into a message")
                return
            event = await receive()
            if event["type"] != "http.request":
                raise Disconnected
            buffer += event.get("body", b"")
            more = event.get("more_body", False)
        end = _PREFIX + _length(buffer, most)
        flag, message = buffer[0], bytes(memoryview(buffer)[_PREFIX:end])
        del buffer[:end]
        yield _decoded(flag, message, encoding, most)


async def _gather(body: bytes, rest: list[bytes], receive: Receive, most: int) -> None:
    """Adds what comes after `body` to `rest`, to the end, or until it is too much for a message."""
    size = len(body)
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise Disconnected
        if chunk := event.get("body", b""):
            rest.append(chunk)
            size += len(chunk)
        if not event.get("more_body", False) or size > most + _PREFIX:
            return
        if len(rest) == 1 and len(body) >= _PREFIX:
            _length(body, most)  # so long a message is not waited for


def _length(buffer: bytes | bytearray, most: int) -> int:
    length = int.from_bytes(buffer[1:_PREFIX], "big")
    if length > most:
        raise ResourceExhausted(f"the message has {length} bytes; the limit is {most}")
    return length


def _decoded(flag: int, message: bytes, encoding: bytes | None, most: int) -> bytes:
    if flag == 0:
        return message
    if flag != 1:
        raise Unimplemented(f"the flags of the message are {flag}; 0, plain, and 1, compressed, are known")
    if encoding is None:
        raise InvalidArgument("the message is compressed, and no grpc-encoding says how")
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise Unimplemented(
            f"compression {encoding.decode('latin-1')!r} is not supported; send identity, gzip or deflate"
        )
    inflate = zlib.decompressobj(wbits=bits)
    try:
        plain = inflate.decompress(message, most + 1)
    except zlib.error as error:
        raise InvalidArgument(f"the compressed message cannot be read: {error}") from None
    if len(plain) > most:
        raise ResourceExhausted(f"the message has more than {most} bytes when decompressed; that is the limit")
    if not inflate.eof:
        raise InvalidArgument("the compressed message is cut short")
    if inflate.unused_data:
        raise InvalidArgument(f"{len(inflate.unused_data)} bytes follow the compressed message")
    return plain
