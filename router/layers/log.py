"""One JSON line a request: where it went and how it ended; nothing of what it carried."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TextIO

import msgspec

from protos.errors import CallError, Code
from protos.grpc import Header
from router.call import Call, Handler, Layer, Reply
from router.wire import PROPENSITY_HEADER

_PREFIX = "croupier-"
_PROPENSITY = PROPENSITY_HEADER.removeprefix(_PREFIX)


def logged(stream: TextIO, clock: Callable[[], float]) -> Layer:
    """Writes the line to `stream`; `clock` gives seconds since the epoch."""
    encode = msgspec.json.Encoder().encode

    def layer(inner: Handler) -> Handler:
        async def handler(call: Call) -> Reply:
            start = perf_counter()
            code = Code.CANCELLED
            metadata: list[Header] = []
            try:
                reply = await inner(call)
                code, metadata = Code.OK, reply.metadata
            except CallError as error:
                code = error.code
                raise
            except Exception:
                code = Code.INTERNAL
                raise
            finally:
                told: dict[str, str | float] = {
                    name.decode().removeprefix(_PREFIX): value.decode() for name, value in metadata
                }
                if _PROPENSITY in told:
                    told[_PROPENSITY] = float(told[_PROPENSITY])
                line = {
                    "time": clock(),
                    "route": call.route,
                    "code": code.name,
                    "milliseconds": round((perf_counter() - start) * 1000, 3),
                    **told,
                }
                stream.write(encode(line).decode() + "\n")
                stream.flush()  # a pipe is buffered by blocks: whoever follows the log would wait for the next hundred
            return reply

        return handler

    return layer
