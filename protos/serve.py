"""Runs ASGI applications until the process is told to stop, then drains them."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h2corn import Config, Server

from protos.background import Background
from protos.forks import keep
from protos.grpc import GrpcApp
from protos.threads import order_http_threads

Asgi = Callable[
    [MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]
]

DRAIN_SECONDS = 20.0  # with the seconds before it, within the 30 that Kubernetes gives
RENEW_SECONDS = 10.0

_log = logging.getLogger(__name__)

_INHERITED = "fd://"
_BACKLOG = 1024  # connections that wait to be accepted
_MANY = 1 << 20  # connections, where files are not limited
_PART = 0.75  # of the files that may be open are connections; the rest are files, and connections of our own


def one_port(grpc: GrpcApp, rest: Asgi) -> Asgi:
    """The application that answers gRPC and REST on the same port, told apart by path or content type."""

    def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http":
            if scope["path"] in grpc.methods:
                return grpc(scope, receive, send)
            for name, value in scope["headers"]:
                if name == b"content-type":
                    if value.startswith(b"application/grpc"):
                        return grpc(scope, receive, send)
                    break
        return rest(scope, receive, send)

    return app


def read_ahead(app: Asgi) -> Asgi:
    """`app`, with the first part of each request's body asked for before the application begins.

    To take it wakes the HTTP server's thread, and all requests of a turn of the event loop are handed over before the
    first is worked on: so the thread is woken once for them, and not again and again in between, which would cost up to
    a tenth of all that a request costs.
    """

    def ahead(scope: MutableMapping[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        return app(scope, _begun(receive) if scope["type"] == "http" else receive, send)

    return ahead


def _begun(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    first: Awaitable[Any] | None = receive()

    def following() -> Awaitable[Any]:
        nonlocal first
        if first is None:
            return receive()
        event, first = first, None
        return event

    return following


@dataclass(frozen=True, slots=True)
class Certificate:
    """The PEM files of a port that speaks TLS. With `client_ca`, clients must show one signed by it."""

    certificate: str
    key: str
    client_ca: str = ""

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Changes when a file is renewed. Raises OSError when one is gone."""
        found = [Path(each).stat() for each in (self.certificate, self.key, self.client_ca) if each]
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)


@dataclass(frozen=True, slots=True)
class Listener:
    """An application and where it listens.

    `bind` is "HOST:PORT", port 0 for any free one, or "fd://N" for a bound socket that was inherited; it is closed
    when it is time to drain. A proxy in front may have its paths begin with `root_path`.
    """

    app: Asgi
    bind: str
    root_path: str = ""
    tls: Certificate | None = None


async def serve(
    *listeners: Listener,
    started: Callable[[list[str]], None] = lambda _addresses: None,
    stopping: Callable[[], None] = lambda: None,
    reload: Callable[[], Coroutine[Any, Any, None]] | None = None,
    linger_seconds: float = 0.0,
    drain_seconds: float = DRAIN_SECONDS,
    renew_seconds: float = RENEW_SECONDS,
) -> None:
    """Serves until SIGTERM, SIGINT or, without `reload`, SIGHUP, then finishes the calls in flight and returns.

    `started` gets the address of each listener once all of them accept. `stopping` runs when it is told to stop: the
    place to turn readiness off. After SIGTERM it goes on for `linger_seconds`, so that load balancers notice; another
    signal, or SIGINT, ends that. `reload` runs on SIGHUP. Certificates are looked at every `renew_seconds`; a renewed
    one is served to new connections, and those from before are finished. Raises OSError, with the address as its file
    name, when one cannot be bound, and ValueError for a certificate that is none.
    """
    loop = asyncio.get_running_loop()
    most = _most_connections() // len(listeners)
    ports = [_Port(listener, drain_seconds, most) for listener in listeners]
    stop, at_once = asyncio.Event(), asyncio.Event()

    def told(number: signal.Signals) -> None:
        if stop.is_set() or number == signal.SIGINT:
            at_once.set()
        stop.set()

    async def left() -> None:
        await stop.wait()
        stopping()
        with suppress(TimeoutError):
            await asyncio.wait_for(at_once.wait(), linger_seconds)

    hears = [signal.SIGTERM, signal.SIGINT]
    if reload is not None or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        hears.append(signal.SIGHUP)
    for number in hears:
        loop.add_signal_handler(number, told, number)
    if reload is not None:
        background = Background()
        loop.add_signal_handler(signal.SIGHUP, lambda: background.start(reload()))
    keep(hears)

    work: list[asyncio.Task[Any]] = [asyncio.create_task(left())]
    try:
        addresses = await asyncio.gather(*(port.open() for port in ports))
        started(addresses)
        work += [asyncio.create_task(port.ended()) for port in ports]
        work += [asyncio.create_task(port.renew(renew_seconds)) for port in ports if port.listener.tls]
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # which raises what broke it
    finally:
        if not stop.is_set():  # a port has ended by itself
            stopping()
        for task in work:
            task.cancel()
        # All of them: one that is left halfway would keep the event loop from closing.
        ended = await asyncio.gather(*(port.close() for port in ports), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome


class _Port:
    """A listening socket, and the servers that take connections from it: one, and older ones that drain."""

    def __init__(self, listener: Listener, drain_seconds: float, most_connections: int) -> None:
        self.listener = listener
        self._drain_seconds = drain_seconds
        self._most_connections = most_connections
        self._socket = _socket_of(listener)
        self._servers: dict[Server, asyncio.Task[None]] = {}  # the last one takes connections
        self._stamps = listener.tls.stamps() if listener.tls else None

    async def open(self) -> str:
        """Serves; returns the address. Raises OSError, with the address as its file name, when it cannot be bound."""
        if self._socket is not None:
            self._socket.listen(_BACKLOG)
        server = await self._begin()
        return server.addresses[0].removeprefix("https://").removeprefix("http://")

    async def ended(self) -> None:
        """Returns when nobody takes connections any more; `close` raises why."""
        ended: set[asyncio.Task[None]] = set()
        while (current := list(self._servers.values())[-1]) not in ended:
            ended, _ = await asyncio.wait([current])

    async def renew(self, seconds: float) -> None:
        """Looks at the certificate every `seconds`, and serves it anew when it has changed."""
        while self.listener.tls:
            await asyncio.sleep(seconds)
            try:
                stamps = self.listener.tls.stamps()
                if stamps != self._stamps:
                    old = list(self._servers)[-1]
                    await self._begin()
                    self._stamps = stamps
                    old.shutdown()
                    _log.info("%s: the certificate was renewed", self.listener.bind)
            except (OSError, ValueError) as error:  # half of it is there yet, say
                _log.error("%s: the certificate cannot be renewed, the old one stays: %s", self.listener.bind, error)

    async def close(self) -> None:
        for server in self._servers:
            server.shutdown()
        if self._socket is not None:
            with suppress(OSError):  # on Linux, whoever comes now goes to other processes; not every system can do so
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        ended = await asyncio.gather(*self._servers.values(), return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _begin(self) -> Server:
        listener, tls = self.listener, self.listener.tls
        server = Server(
            read_ahead(listener.app),
            Config(
                bind=(listener.bind if self._socket is None else f"{_INHERITED}{self._socket.fileno()}",),
                root_path=listener.root_path,
                certfile=Path(tls.certificate) if tls else None,
                keyfile=Path(tls.key) if tls else None,
                ca_certs=Path(tls.client_ca) if tls and tls.client_ca else None,
                cert_reqs="required" if tls and tls.client_ca else "none",
                grpc=True,
                access_log=False,
                lifespan="off",
                runtime_threads=1,  # a second one wakes the first far more often than it helps
                max_concurrent_streams=1000,
                limit_connections=self._most_connections,
                timeout_graceful_shutdown=self._drain_seconds,
            ),
        )
        serving = asyncio.create_task(server.serve())
        try:
            await server.wait_started()
        except BaseException as error:
            await asyncio.gather(serving, return_exceptions=True)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror or str(error), listener.bind) from error
            raise
        self._servers = {each: task for each, task in self._servers.items() if not task.done()}  # those have drained
        self._servers[server] = serving
        order_http_threads()
        return server


def _most_connections() -> int:
    """How many may be open: the next one waits. Where files run out, the HTTP server could accept none, and end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a lower limit than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return _MANY if soft == resource.RLIM_INFINITY else int(soft * _PART)


def _socket_of(listener: Listener) -> socket.socket | None:
    """The socket that outlives the servers which take connections from it; None where there is one server only."""
    bind = listener.bind
    if bind.startswith(_INHERITED):
        return socket.socket(fileno=int(bind.removeprefix(_INHERITED)))
    if listener.tls is None:
        return None
    host, _, port = bind.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, bind) from error
