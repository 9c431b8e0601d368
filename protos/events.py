"""Inference over HTTP, its answers the events of a stream, in JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.responses import Response, StreamingResponse

from protos.errors import CallError, InvalidArgument
from protos.infer_json import Form, body_of
from protos.messages import ModelInferResponse


async def events(answers: AsyncGenerator[bytes, None], form: Form) -> Response:
    """A stream of serialized ModelInferResponses, each an event. An error behind the first is one too.

    Raises what goes wrong before, as the status can still say that.
    """
    coming = _events(answers, form)
    first = await anext(coming, b"")
    return StreamingResponse(_all(first, coming), media_type="text/event-stream")


async def _all(first: bytes, coming: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(coming):
        yield first
        try:
            async for event in coming:
                yield event
        except CallError as error:
            yield _event(msgspec.json.encode({"error": error.message}))


async def _events(answers: AsyncGenerator[bytes, None], form: Form) -> AsyncGenerator[bytes, None]:
    async with aclosing(answers):
        async for answer in answers:
            body, json_size = body_of(ModelInferResponse.FromString(answer), form)
            if json_size is not None:
                raise InvalidArgument("bytes do not travel in events: leave binary_data out, or ask infer")
            yield _event(body)


def _event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"
