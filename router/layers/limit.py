"""Refuses what is too much, at once."""

from __future__ import annotations

from protos.errors import ResourceExhausted
from router.call import Call, Handler, Layer, Reply

RETRY_SECONDS = 1.0
"""After which to try again where too many are in flight: nobody knows when one of them ends."""


def limited(most: int) -> Layer:
    """Lets at most `most` calls in at a time; the others get RESOURCE_EXHAUSTED without waiting."""

    def layer(inner: Handler) -> Handler:
        in_flight = 0

        async def handler(call: Call) -> Reply:
            nonlocal in_flight
            if in_flight >= most:
                sentence = f"route {call.route!r} has {most} requests in flight already, its limit"
                raise ResourceExhausted(sentence, retry_after=RETRY_SECONDS)
            in_flight += 1
            try:
                return await inner(call)
            finally:
                in_flight -= 1

        return handler

    return layer
