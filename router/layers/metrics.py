"""Counts and times the answers of an arm."""

from __future__ import annotations

from time import perf_counter

from protos.errors import CallError, Code
from router.call import Call, Handler, Layer, Reply
from router.metrics import Metrics


def measured(metrics: Metrics, route: str, arm: str) -> Layer:
    """Observes each call to an arm: its status and its time."""
    seconds = metrics.seconds.labels(route, arm)
    answered = {code: metrics.requests.labels(route, arm, code.name) for code in (Code.OK, Code.INTERNAL)}

    def layer(inner: Handler) -> Handler:
        async def handler(call: Call) -> Reply:
            start = perf_counter()
            code = Code.CANCELLED
            try:
                reply = await inner(call)
                code = Code.OK
                return reply
            except CallError as error:
                code = error.code
                raise
            except Exception:
                code = Code.INTERNAL
                raise
            finally:
                seconds.observe(perf_counter() - start)
                (answered.get(code) or metrics.requests.labels(route, arm, code.name)).value += 1

        return handler

    return layer
