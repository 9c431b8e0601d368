"""What a supervisor and its workers say to each other, over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
import struct

import msgspec

_LENGTH = struct.Struct("<I")  # before each message


class Order(msgspec.Struct, frozen=True, tag=True):
    """Something to do: from a worker for everybody, or from the supervisor for one."""

    id: int
    what: str
    words: list[str] = []


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """How one worker did it: a value, or a status and a sentence."""

    id: int
    value: bytes = b""
    code: int = 0
    message: str = ""


class Outcomes(msgspec.Struct, frozen=True, tag=True):
    """How everybody did."""

    id: int
    each: list[Outcome]


class Up(msgspec.Struct, frozen=True, tag=True):
    """A worker listens, and has loaded what it was to load."""

    served: list[str]
    failed: list[tuple[str, str]]


class AllUp(msgspec.Struct, frozen=True, tag=True):
    """Every worker is up."""


Message = Order | Outcome | Outcomes | Up | AllUp
_decoder = msgspec.msgpack.Decoder(Message)


class Line:
    """One end of a connection, message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Line:
        """The line over a connected socket, which is its own from now on."""
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, message: Message) -> None:
        """Sends a message; where nobody is left to hear it, it is lost."""
        packed = msgspec.msgpack.encode(message)
        self._writer.write(_LENGTH.pack(len(packed)) + packed)

    async def receive(self) -> Message | None:
        """The next message; None once the other side is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: Message = _decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return message

    def close(self) -> None:
        """Ends the connection."""
        self._writer.close()
