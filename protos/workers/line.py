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
    changes: bool = False  # then those who come later hear of it, too


class Post(msgspec.Struct, frozen=True, tag=True):
    """The first thing that a worker hears: what it serves and has missed, what it inherits, and which one it is."""

    work: str  # in the words of the program
    sockets: list[int]
    journal: list[Order] = []
    late: bool = False  # the others serve already
    worker: int = 0  # its number, which is its successor's too
    workers: int = 1  # of so many
    shared: list[int] = []  # inherited descriptors that all of them have


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
    """A worker serves. What it has to say about that is for who started the supervisor."""

    news: bytes = b""


class Headcount(msgspec.Struct, frozen=True, tag=True):
    """How many workers serve, of how many there should be."""

    up: int
    of: int


Message = Order | Post | Outcome | Outcomes | Up | Headcount
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
