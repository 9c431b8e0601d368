"""A network of our own between a router and its store, that can be cut and healed."""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class Link:
    """Passes bytes on between those who connect to `port` and the server on another port of the loopback.

    Like a network, it loses nothing that was sent: what is under way while it is cut arrives once it is healed, also
    when its sender has long given up.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._open = asyncio.Event(), asyncio.Event()  # for what is asked, and for what is answered
        self._fatal: bytes | None = None  # what a request contains whose answer is the first to be lost
        self._pumps: set[asyncio.Task[None]] = set()
        self.heal()

    def cut(self) -> None:
        """Nothing arrives any more, in either direction, and nobody is told."""
        for gate in self._open:
            gate.clear()

    async def lose_answers(self, containing: bytes) -> None:
        """From the next request on that contains these bytes, what is asked arrives and is done. Answers do not.

        Returns once that request is on its way.
        """
        self._fatal = containing
        while self._fatal:
            await asyncio.sleep(0.005)

    def heal(self) -> None:
        """All arrives, and what was on its way as well."""
        for gate in self._open:
            gate.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked, answered = self._open
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        except OSError:
            writer.transport.abort()
            return
        for pump in (self._pump(reader, to_server, asked), self._pump(from_server, writer, answered)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0, family=socket.AF_INET)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._listener.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        asked, answered = self._open
        try:
            while data := await reader.read(_CHUNK):
                if gate is asked and self._fatal and self._fatal in data:
                    self._fatal = None
                    answered.clear()
                await gate.wait()
                writer.write(data)
                await writer.drain()
            await gate.wait()
        except OSError:
            pass  # the other end has gone
        finally:
            writer.close()
