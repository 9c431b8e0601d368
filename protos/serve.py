"""Runs ASGI applications until the process is told to stop, then drains them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any

from h2corn import Config, Server

from protos.grpc import GrpcApp

Asgi = Callable[
    [MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]
]

DRAIN_SECONDS = 30.0

_INHERITED = "fd://"
_BACKLOG = 1024  # connections that wait to be accepted


def one_port(grpc: GrpcApp, rest: Asgi) -> Asgi:
    """The application that answers gRPC and REST on the same port, told apart by their content type."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-type":
                    if value.startswith(b"application/grpc"):
                        await grpc(scope, receive, send)
                        return
                    break
        await rest(scope, receive, send)

    return app


@dataclass(frozen=True, slots=True)
class Listener:
    """An application and where it listens.

    `bind` is "HOST:PORT", port 0 for any free one, or "fd://N" for a bound socket that was inherited. A proxy in front
    may have its paths begin with `root_path`.
    """

    app: Asgi
    bind: str
    root_path: str = ""


async def serve(
    *listeners: Listener,
    started: Callable[[list[str]], None] = lambda _addresses: None,
    stopping: Callable[[], None] = lambda: None,
    reload: Callable[[], Coroutine[Any, Any, None]] | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the calls in flight and returns.

    `started` gets the address of each listener once all of them accept. `stopping` runs before the listeners close:
    the place to turn readiness off. `reload` runs on SIGHUP. Raises OSError, with the address as its file name, when
    one cannot be bound.
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        if listener.bind.startswith(_INHERITED):
            with socket.socket(fileno=os.dup(int(listener.bind.removeprefix(_INHERITED)))) as inherited:
                inherited.listen(_BACKLOG)
    servers = [
        Server(
            listener.app,
            Config(
                bind=(listener.bind,),
                root_path=listener.root_path,
                grpc=True,
                access_log=False,
                lifespan="off",
                max_concurrent_streams=1000,
                timeout_graceful_shutdown=drain_seconds,
            ),
        )
        for listener in listeners
    ]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, _Background(reload))

    serving = [asyncio.create_task(server.serve()) for server in servers]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.gather(*map(_started, servers, listeners))
        started([server.addresses[0] for server in servers])
        await asyncio.wait([stopped, *serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping()
        stopped.cancel()
        for server in servers:
            server.shutdown()
        # All of them: one that is left halfway would keep the event loop from closing.
        ended = await asyncio.gather(*serving, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome


async def _started(server: Server, listener: Listener) -> None:
    try:
        await server.wait_started()
    except OSError as error:
        raise OSError(error.errno, error.strerror, listener.bind) from error


class _Background:
    """Starts a coroutine whenever it is called, and keeps its task alive until it is done."""

    def __init__(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._action = action
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self) -> None:
        task = asyncio.get_running_loop().create_task(self._action())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
