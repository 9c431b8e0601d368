"""gRPC over ASGI: unary and bidirectional calls on any ASGI server that can send trailers over HTTP/2.

Handlers see bytes. The status always travels in the trailers, behind response headers: some servers end a
headers-only response with a DATA frame, which gRPC clients reject.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from protos.errors import (
    CallError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Unimplemented,
)
from protos.framing import Disconnected, Receive, frame, messages, only_message

Scope = Mapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]  # a name, in lower case, and a value: as they travel

MAX_MESSAGE = 64 * 1024 * 1024

_log = logging.getLogger(__name__)

_TIMEOUT_DIGITS = 8
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MESSAGE_LENGTH = 500  # characters; clients refuse trailers of more than 8 KiB, and one character may need 12 bytes
_PRINTABLE = "".join(chr(c) for c in range(0x20, 0x7F) if c != ord("%"))
_OUTER_SPACE = re.compile("^ | $")  # which HTTP/2 forbids around a header's value

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,gzip,deflate")],
    "trailers": True,
}
_NO_TRAILERS = {"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]}
_OK = (b"grpc-status", b"0")


class Metadata(Mapping[str, str]):
    """What the caller sent, by lower-case name; `-bin` values stay base64. The last of equal names counts.

    Decoded when somebody looks: most calls are answered by nobody's looking at more than a name or two.
    """

    __slots__ = ("raw",)

    def __init__(self, headers: Iterable[Header]) -> None:
        self.raw = dict(headers)

    def __getitem__(self, name: str) -> str:
        return self.raw[name.encode("latin-1", "replace")].decode("latin-1")

    def get(self, name: str, default: Any = None) -> Any:
        """As every Mapping has it, without the exception that theirs costs."""
        value = self.raw.get(name.encode("latin-1", "replace"))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.raw)

    def __len__(self) -> int:
        return len(self.raw)


class Rpc:
    """One call as the edge saw it, and what goes back beside the message."""

    __slots__ = ("deadline", "metadata", "rest", "trailing")

    def __init__(self, headers: Iterable[Header], deadline: float | None = None, *, rest: bool = False) -> None:
        self.metadata = Metadata(headers)
        self.deadline = deadline  # on the event loop's clock; None: the caller waits for ever
        self.trailing: list[Header] = []
        self.rest = rest  # it came by REST, and not by gRPC


Unary = Callable[[bytes, Rpc], Awaitable[bytes]]
Streaming = Callable[[AsyncIterator[bytes], Rpc], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Marks a method as bidirectional streaming."""

    handler: Streaming


Methods = Mapping[str, Unary | Stream]  # by path: "/package.Service/Method"


class GrpcApp:
    """The ASGI application that answers gRPC calls to `methods`; messages over `max_message` bytes are refused."""

    def __init__(self, methods: Methods, *, max_message: int = MAX_MESSAGE) -> None:
        self.methods = methods
        self._max_message = max_message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "http.response.trailers" not in scope["extensions"]:
            while (await receive()).get("more_body"):  # curl takes an answer before it has sent all for a broken stream
                pass
            await send(_NO_TRAILERS)
            await send({"type": "http.response.body", "body": b"gRPC needs HTTP/2 and the header te: trailers\n"})
            return
        rpc = Rpc(scope["headers"])
        reply = _Reply(send, rpc)
        try:
            method = self.methods.get(scope["path"])
            if method is None:
                raise Unimplemented(f"unknown method {scope['path']}")
            timeout = rpc.metadata.raw.get(b"grpc-timeout")
            if timeout is None:
                await self._answer(method, receive, rpc, reply)
                return
            rpc.deadline = asyncio.get_running_loop().time() + parse_timeout(timeout)
            limit = asyncio.timeout_at(rpc.deadline)
            try:
                async with limit:
                    await self._answer(method, receive, rpc, reply)
            except TimeoutError:
                if not limit.expired():
                    raise  # somebody else's timeout, not the caller's deadline
                raise DeadlineExceeded("the deadline passed before there was an answer") from None
        except Disconnected:
            return
        except CallError as error:
            await reply.fail(error)
        except Exception:  # noqa: BLE001 - a handler may raise anything
            _log.exception("%s failed", scope["path"])
            await reply.fail(Internal("internal error; the server's log has the traceback"))

    async def _answer(self, method: Unary | Stream, receive: Receive, rpc: Rpc, reply: _Reply) -> None:
        encoding, most = rpc.metadata.raw.get(b"grpc-encoding"), self._max_message
        if not isinstance(method, Stream):
            await reply.only(await method(await only_message(receive, encoding, most), rpc))
            return
        await reply.start()
        async with aclosing(method.handler(messages(receive, encoding, most), rpc)) as answers:
            async for answer in answers:
                await reply.each(answer)
        await reply.end([_OK, *rpc.trailing])


async def refuse(error: CallError, send: Send) -> None:
    """Answers a call that no method has seen."""
    await _Reply(send, Rpc([])).fail(error)


class _Reply:
    """Writes one response: the headers once, the messages, then the status in the trailers."""

    __slots__ = ("_ended", "_rpc", "_server", "_started")

    def __init__(self, send: Send, rpc: Rpc) -> None:
        self._server = send
        self._rpc = rpc
        self._started = False
        self._ended = False

    async def start(self) -> None:
        self._started = True
        await self._send(_START)

    async def only(self, message: bytes) -> None:
        """The whole response of a unary call."""
        trailers = [_OK, *self._rpc.trailing]
        self._started = self._ended = True
        send = self._server
        try:
            await send(_START)
            await send({"type": "http.response.body", "body": frame(message)})
            await send({"type": "http.response.trailers", "headers": trailers})
        except OSError:
            raise Disconnected from None

    async def each(self, message: bytes) -> None:
        """One message of a streaming call."""
        await self._send({"type": "http.response.body", "body": frame(message), "more_body": True})

    async def end(self, trailers: list[Header]) -> None:
        if not self._started:
            await self.start()
        self._ended = True
        body = {"type": "http.response.body", "body": b""}
        await self._send(body, {"type": "http.response.trailers", "headers": trailers})

    async def fail(self, error: CallError) -> None:
        """Ends with the status of `error`; a response that broke while it was ending is left to the server to reset."""
        if self._ended:
            return
        status = (b"grpc-status", str(int(error.code)).encode())
        with suppress(Disconnected):
            await self.end([status, (b"grpc-message", encode_message(error.message)), *self._rpc.trailing])

    async def _send(self, *events: Mapping[str, Any]) -> None:
        """Raises Disconnected, where ASGI has the server raise OSError."""
        try:
            for event in events:
                await self._server(event)
        except OSError:
            raise Disconnected from None


def parse_timeout(value: bytes) -> float:
    """Seconds of a `grpc-timeout` header: at most eight digits and a unit, as in b"250m"."""
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not (digits.isascii() and digits.isdigit() and len(digits) <= _TIMEOUT_DIGITS):
        raise InvalidArgument(f"grpc-timeout {text!r} is not up to eight digits and one of H, M, S, m, u, n")
    return int(digits) * _SECONDS[unit]


def encode_message(text: str) -> bytes:
    """A status message as `grpc-message` wants it: percent-encoded UTF-8. A very long one is cut short."""
    if len(text) > _MESSAGE_LENGTH:
        text = text[:_MESSAGE_LENGTH] + "..."
    if text.isascii() and text.isprintable() and "%" not in text and text == text.strip():
        return text.encode("ascii")  # as `quote` would, in a tenth of its time
    return _OUTER_SPACE.sub("%20", quote(text, safe=_PRINTABLE, errors="replace")).encode("ascii")
