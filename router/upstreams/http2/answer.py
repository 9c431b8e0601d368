"""What a call came to, in gRPC's words: a message, or a status and why."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from urllib.parse import unquote

from protos.errors import Code
from router.upstreams.channel import Answer, Refused
from router.upstreams.http2.stream import NOTHING, Stream

_HEAD = struct.Struct(">BI")  # whether it is compressed, and its length
PREFIX = _HEAD.size
"""Bytes in front of a message."""

_CODES = {int(code): code for code in Code}
_OF_HTTP = {400: Code.INTERNAL, 401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.UNIMPLEMENTED}
_OF_HTTP |= dict.fromkeys((429, 502, 503, 504), Code.UNAVAILABLE)


def answer_of(stream: Stream) -> Answer:
    """The answer of a call that has ended. Raises Refused."""
    headers, body = stream.headers or NOTHING, stream.body
    status = stream.trailers or headers
    if status.get("grpc-status") != "0":
        raise _refusal(headers, status)
    if len(body) < PREFIX or _HEAD.unpack_from(body) != (0, len(body) - PREFIX):
        odd = "compressed, and nobody asked for that" if body[:1] == b"\1" else "not one message"
        raise Refused(Code.INTERNAL, f"the answer is {odd}", answered=True)
    return bytes(body[PREFIX:]), headers


def _refusal(headers: Mapping[str, str], status: Mapping[str, str]) -> Refused:
    code = status.get("grpc-status", "")
    if code.isdecimal():
        return Refused(_CODES.get(int(code), Code.UNKNOWN), unquote(status.get("grpc-message", "")), answered=True)
    http = headers.get(":status", "")
    if http == "200":
        return Refused(Code.INTERNAL, "the answer ended without a status", answered=True)
    code_of = _OF_HTTP.get(int(http), Code.UNKNOWN) if http.isdecimal() else Code.INTERNAL
    return Refused(code_of, f"HTTP status {http}, which is not gRPC's", answered=True)
