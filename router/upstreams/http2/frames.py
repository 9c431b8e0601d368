"""HTTP/2's frames, settings and error codes (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

DATA, HEADERS, _PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9  # bytes in front of each frame
FRAME = 16_384  # bytes that a frame may carry unless the other side says otherwise
FRAME_LIMITS = 16_384, 16_777_215
SHORT = 0xFFFF  # the longest frame whose length needs no third byte, and the longest that we take
WINDOW = 65_535  # bytes that may be sent unless the other side says otherwise
GREATEST = 2**31 - 1  # window, and stream

HEAD_FORMAT = struct.Struct(">BHHI")  # the length's highest byte and its others, type and flags, stream
_SETTING = struct.Struct(">HI")


class ErrorCode(IntEnum):
    """Why a stream was reset, or a connection given up."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD

    @classmethod
    def _missing_(cls, _value: object) -> ErrorCode:
        return cls.INTERNAL_ERROR  # as section 7 has it for unknown codes


def tag(kind: int, flags: int = 0) -> int:
    """A frame's type and flags in one number, as HEAD_FORMAT has them."""
    return kind << 8 | flags


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """A frame as it travels."""
    length = len(payload)
    return HEAD_FORMAT.pack(length >> 16, length & SHORT, tag(kind, flags), stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame with values by their names in this module."""
    known = globals()
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(known[name], value) for name, value in values.items()))


def settings_in(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings in a frame's payload: identifier and value. Raises ValueError for a payload cut short."""
    try:
        return _SETTING.iter_unpack(payload)
    except struct.error:
        raise ValueError("a SETTINGS frame is cut short") from None


def number(value: int) -> bytes:
    """Four bytes: a window's increment, or an error code."""
    return value.to_bytes(4, "big")


def number_in(payload: bytes) -> int:
    """The number in front of a payload, without its reserved bit. Raises ValueError for a payload cut short."""
    if len(payload) < 4:  # noqa: PLR2004
        raise ValueError("a frame is cut short")
    return int.from_bytes(payload[:4], "big") & GREATEST


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding. Raises ValueError for one that is nothing else."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ValueError("a frame is all padding")
    return payload[1 : len(payload) - payload[0]]
