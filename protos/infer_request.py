"""Requests whose raw buffers are views of the bytes that they came in, where to copy them would cost more than to look.

protobuf copies each buffer twice, when it parses a message and when it is asked for the buffer: a sixth of what a
request of 1 MiB costs.
"""

from __future__ import annotations

from typing import Any

from protos.messages import ModelInferRequest, parse

LEAST = 64 * 1024
"""Bytes of a request; a smaller one is copied sooner than taken apart."""

_MOST = 1000  # fields; more, each a step of Python's, would take longer than all that protobuf does

_DELIMITED = 2  # how protobuf writes every field of a request: with its length
_WIRE = 0x87  # of a tag: how it is written, and whether the tag has a second byte
_MORE = 0x80  # of a varint's byte: another follows
_BUFFER = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _DELIMITED


class Viewed:
    """A ModelInferRequest with `raw_input_contents` as memoryviews; all else is the message's."""

    __slots__ = ("_message", "raw_input_contents")

    def __init__(self, message: ModelInferRequest, buffers: list[memoryview]) -> None:
        self._message = message
        self.raw_input_contents = buffers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


InferRequest = ModelInferRequest | Viewed


def parse_infer(body: bytes) -> InferRequest:
    """The inference request that `body` encodes. Raises InvalidArgument when it is not one."""
    if len(body) >= LEAST and (parts := _apart(body)) is not None:
        message, buffers = parts
        return Viewed(parse(ModelInferRequest, message), buffers)
    return parse(ModelInferRequest, body)


def _apart(body: bytes) -> tuple[bytes, list[memoryview]] | None:
    """A serialized request without its raw buffers, and the buffers; None where protobuf should see for itself."""
    whole = memoryview(body)
    others: list[memoryview] = []
    buffers: list[memoryview] = []
    at = 0
    for _ in range(_MOST):
        if at == len(body):
            return b"".join(others), buffers
        field = at
        length, at = _length(body, field + 1)
        if body[field] & _WIRE != _DELIMITED or at + length > len(body):
            return None
        at += length
        if body[field] == _BUFFER:
            buffers.append(whole[at - length : at])
        else:
            others.append(whole[field:at])
    return None


def _length(body: bytes, at: int) -> tuple[int, int]:
    """The varint at a place, and the place behind it; more than `body` has left where it is none of a length."""
    length = 0
    for shift, byte in zip(range(0, 35, 7), body[at : at + 5], strict=False):
        length |= (byte & ~_MORE) << shift
        at += 1
        if not byte & _MORE:
            return length, at
    return len(body), at
