"""HTTP's content codings: request bodies unpacked within bounds, answers packed for clients that take them so."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Send

from protos.errors import InvalidArgument, ResourceExhausted, Unimplemented

TENSORS = "application/octet-stream"  # what has bytes of tensors in it

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_WORTHWHILE = 1024  # bytes; less is hardly a packet, packed or not
_LONG = 64 * 1024  # bytes; more takes a millisecond, which others should not wait for
_LEVEL = 1  # the others take several times as long for a tenth less
_OK = 200


class TooLong(ResourceExhausted):
    """A body over the limit, which is so however often it is sent."""

    retry = False
    http = 413


class UnknownCoding(Unimplemented):
    """A body packed in a way that we cannot undo."""

    http = 415


class Body:
    """Receives a request's body, unpacked, until it exceeds `limit` bytes."""

    def __init__(self, receive: Receive, encoding: bytes, limit: int) -> None:
        self._receive = receive
        self._encoding = encoding.decode("latin-1").strip().lower()
        self._limit = self._left = limit
        bits = _WINDOW_BITS.get(self._encoding)
        self._inflate = zlib.decompressobj(wbits=bits) if bits else None

    async def __call__(self) -> Message:
        event = await self._receive()
        if event["type"] != "http.request":
            return event
        if self._inflate is not None:
            event = {**event, "body": self._unpacked(event.get("body", b""))}
        elif self._encoding not in {"", "identity"}:
            raise UnknownCoding(f"Content-Encoding {self._encoding!r} is not supported; send identity, gzip or deflate")
        self._left -= len(event.get("body", b""))
        if self._left < 0:
            raise TooLong(f"the body has more than {self._limit} bytes; that is the limit")
        if self._inflate is not None and not event.get("more_body", False) and not self._inflate.eof:
            raise InvalidArgument(f"the {self._encoding} body is cut short")
        return event

    def _unpacked(self, chunk: bytes) -> bytes:
        inflate: Any = self._inflate
        try:
            plain: bytes = inflate.decompress(chunk, self._left + 1)
        except zlib.error as error:
            raise InvalidArgument(f"the {self._encoding} body cannot be read: {error}") from None
        if inflate.unused_data:
            raise InvalidArgument(f"{len(inflate.unused_data)} bytes follow the {self._encoding} body")
        return plain


@dataclass(frozen=True, slots=True)
class Coding:
    """How a client takes its answers: `alone` when it named no other way."""

    name: str
    alone: bool


@lru_cache(64)
def accepted(header: bytes) -> Coding | None:
    """The coding that an Accept-Encoding header likes best, gzip if it does not matter; None if it is not ours."""
    weights: dict[str, float] = {}
    for choice in header.decode("latin-1").lower().split(","):
        name, _, weight = choice.partition(";")
        try:
            weights[name.strip()] = float(weight.partition("=")[2] or 1)
        except ValueError:
            weights[name.strip()] = 0.0
    others = weights.get("*", 0.0)
    best = max(_WINDOW_BITS, key=lambda name: weights.get(name, others))
    most = weights.get(best, others)
    if most <= 0 or most < weights.get("identity", 0.0):
        return None
    return Coding(best, alone=[name for name, weight in weights.items() if weight > 0] == [best])


class Packing:
    """Sends a response packed, where that is worth it.

    Only answers, whole and good: Triton's client does not unpack errors. Tensors as bytes hardly shrink, and HTTP
    libraries offer to unpack without being asked to, so those are packed for a client that names one coding alone.
    """

    __slots__ = ("_coding", "_send", "_start")

    def __init__(self, send: Send, coding: Coding) -> None:
        self._send = send
        self._coding = coding
        self._start: Message | None = None

    async def __call__(self, event: Message) -> None:
        if event["type"] == "http.response.start":
            self._start = event  # its headers may yet change
            return
        start, self._start = self._start, None
        if start is not None:
            body = event.get("body", b"")
            if not event.get("more_body", False) and self._pays(start, body):
                event = {**event, "body": await self._packed(start, body)}
            await self._send(start)
        await self._send(event)

    def _pays(self, start: Message, body: bytes) -> bool:
        if start["status"] != _OK or len(body) < _WORTHWHILE:
            return False
        return self._coding.alone or (b"content-type", TENSORS.encode()) not in start["headers"]

    async def _packed(self, start: Message, body: bytes) -> bytes:
        bits = _WINDOW_BITS[self._coding.name]
        if len(body) > _LONG:
            packed = await asyncio.to_thread(zlib.compress, body, _LEVEL, bits)
        else:
            packed = zlib.compress(body, _LEVEL, bits)
        headers = MutableHeaders(raw=start["headers"])
        headers["content-encoding"] = self._coding.name
        headers["content-length"] = str(len(packed))
        headers.add_vary_header("accept-encoding")
        return packed
