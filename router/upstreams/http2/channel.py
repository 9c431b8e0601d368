"""gRPC over a kept HTTP/2 connection: connecting, calling, connecting again."""

from __future__ import annotations

import asyncio
import socket
from math import ceil

from protos.errors import Code
from protos.framing import frame
from protos.grpc import MAX_MESSAGE
from router.trust import Trust, tls_context
from router.upstreams.channel import Answer, Metadata, Refused
from router.upstreams.http2 import headers
from router.upstreams.http2.answer import PREFIX, answer_of
from router.upstreams.http2.connection import Connection
from router.upstreams.http2.frames import ErrorCode
from router.upstreams.http2.stream import Lost, Reset

CONNECT_SECONDS = 5.0
BACKOFF_SECONDS = 0.1, 2.0  # after the first and after many attempts in vain
SIGN_OF_LIFE_SECONDS = 2.0  # that a ping may take after a call was not answered in time

_EXACT = 0.1  # seconds, below which a timeout is told to the microsecond
_LONGEST = 99_999_999  # eight digits
_OF_RESET = {
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


class Http2Channel:
    """A Channel over our own HTTP/2 connection."""

    def __init__(self, target: str, trust: Trust | None = None) -> None:
        """`target` is "HOST:PORT"; without `trust` the connection is plain. Raises FailedPrecondition."""
        self.target = target
        self._tls = tls_context(trust, "h2") if trust is not None else None
        self._server_name = trust.server_name if trust is not None else ""
        self._openings: dict[str, bytes] = {}  # the part of the headers that is always the same, by method
        self._connection: Connection | None = None
        self._why = "not connected yet"
        self._attempted = asyncio.Event()  # unset while a connection is being made
        self._spent = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep_connected())
        self._now = asyncio.get_running_loop().time  # to ask for the loop each time is a system call
        self._probe: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.calls.full

    async def call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Answer:
        connection = self._connection
        if connection is None or connection.calls.full:
            connection = await self._room(deadline)
        left = deadline - self._now()
        if left <= 0:
            raise Refused(Code.DEADLINE_EXCEEDED, "the deadline has passed", unseen=True)
        opening = self._openings.get(method) or self._opening(method)
        block = opening + headers.literal("grpc-timeout", timeout_of(left)) + headers.encode(metadata)
        stream = connection.calls.begin(block, frame(message), deadline)
        try:
            await stream.done
        except asyncio.CancelledError:
            connection.calls.cancel(stream)
            raise
        except TimeoutError:
            self._doubt(connection)
            raise Refused(Code.DEADLINE_EXCEEDED, "there was no answer in time") from None
        except Lost as error:
            raise Refused(Code.UNAVAILABLE, str(error), unseen=error.unseen) from None
        except Reset as error:
            raise Refused(_OF_RESET.get(error.code, Code.INTERNAL), str(error)) from None
        return answer_of(stream)

    async def close(self, seconds: float) -> None:
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        if self._connection is not None:
            await self._connection.close(seconds)

    async def _room(self, deadline: float) -> Connection:
        """A connection on which a call can begin. Raises Refused."""
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    await self._attempted.wait()
                    connection = self._connection
                    if connection is None:
                        raise Refused(Code.UNAVAILABLE, self._why, unseen=True)
                    if not connection.calls.full:
                        return connection
                    await connection.calls.room()
        except TimeoutError:
            raise Refused(Code.DEADLINE_EXCEEDED, "there was no connection in time", unseen=True) from None

    async def _keep_connected(self) -> None:
        first, longest = BACKOFF_SECONDS
        delay = 0.0
        while True:
            self._attempted.clear()
            self._spent.clear()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._connection = await self._connect()
            except Exception as error:  # noqa: BLE001  # whatever it was, it is tried again
                self._why = f"no connection: {str(error) or 'nobody answers'}"
            self._attempted.set()
            if self._connection is not None:
                await self._spent.wait()
                useful = self._connection.calls.useful
                self._why, self._connection = self._connection.why, None
                if useful:
                    delay = 0.0
                    continue  # the next is made at once, and calls wait for it
                self._attempted.set()
            delay = min(max(first, 2 * delay), longest)
            await asyncio.sleep(delay)

    def _lose(self) -> None:
        if self._connection is not None:  # which is the one: another would not be made before
            self._attempted.clear()
        self._spent.set()

    async def _connect(self) -> Connection:
        host, _, port = self.target.rpartition(":")
        transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._lose, largest=MAX_MESSAGE + PREFIX),
            host.strip("[]"),
            int(port),
            ssl=self._tls,
            server_hostname=(self._server_name or None) if self._tls else None,
        )
        try:
            _watch(transport.get_extra_info("socket"))
            secured = transport.get_extra_info("ssl_object")
            if secured is not None and secured.selected_alpn_protocol() != "h2":
                raise Lost("the server does not speak HTTP/2 over TLS")
            await connection.ready
        except BaseException:
            transport.abort()
            raise
        return connection

    def _opening(self, method: str) -> bytes:
        scheme, authority = "https" if self._tls else "http", self._server_name or self.target
        pseudo = (":method", "POST"), (":scheme", scheme), (":path", method), (":authority", authority)
        about = ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "croupier")
        opening = self._openings[method] = headers.encode(pseudo + about)
        return opening

    def _doubt(self, connection: Connection) -> None:
        """A call was not answered in time: unless there is a sign of life, the connection is given up."""

        async def probe() -> None:
            try:
                async with asyncio.timeout(SIGN_OF_LIFE_SECONDS):
                    await connection.ping()
            except TimeoutError:
                connection.abort("the other side gives no sign of life")
            except Lost:
                pass

        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(probe())


def timeout_of(seconds: float) -> str:
    """Seconds as gRPC writes a timeout: at most eight digits and a unit. Rounded up, so that few are different."""
    if seconds < _EXACT:
        return f"{max(1, int(seconds * 1e6))}u"
    return f"{min(ceil(seconds * 1e3), _LONGEST)}m"


def _watch(connected: socket.socket) -> None:
    """Lets the kernel find out that the way to the other side is cut, with calls in flight or without."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
