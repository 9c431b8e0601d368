"""Shadow arms: copies of requests that were answered, whose answers are compared with those given and thrown away.

A copy is made after the answer and waited for by nobody. It has its own deadline and its own request, as an upstream
may write into the one it gets; where too many are on the way, further ones are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bandits import Draw, sampler
from protos.errors import CallError
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import outputs_of
from router.call import Add, Call, Decision, Handler, Reply, Vector
from router.config.safety import Shadow as Settings
from router.config.struct import GREATEST
from router.metrics import Metrics

WIDTH = 7
"""Of a row: compared, different, compared as numbers, sums of their mean difference and its square, failed, dropped."""

_COMPARED, _DIFFERENT, _NUMBERS, _SUM, _SQUARES, _FAILED, _DROPPED = range(WIDTH)


_log = logging.getLogger(__name__)


def shadow_layout(settings: Settings) -> str:
    """Layout of what is known of a shadow; another comparison begins anew."""
    return f"shadow:{settings.output}:{settings.tolerance!r}"


class Shadows:
    """The shadow arms of a route in this process. Lives on one event loop."""

    def __init__(
        self, route: str, shadows: Mapping[str, Settings], upstreams: Mapping[str, Handler], metrics: Metrics
    ) -> None:
        """`upstreams` answer for the arms, by name; those of the shadows must be among them."""
        self._route = route
        self._metrics = metrics
        self._shadows = [_shadow(route, arm, settings, upstreams[arm]) for arm, settings in shadows.items()]
        self._copies: set[asyncio.Task[None]] = set()

    def offer(self, call: Call, reply: Reply, decision: Decision) -> None:
        """Sends copies of a call that was answered to the shadows whose turn it is. Returns at once, never raises.

        Whose turn it is follows from the decision's id alone, so that a log tells which requests were copied.
        """
        for shadow in self._shadows:
            if shadow.arm == decision.arm or shadow.draw(shadow.p, decision.id):
                continue
            if shadow.in_flight >= shadow.settings.max_in_flight:
                self._count(shadow, "dropped", _DROPPED)
                continue
            shadow.in_flight += 1
            # Both bodies are bytes: what else happens to call and reply does not matter.
            copy = asyncio.create_task(self._follow(shadow, call, reply.body))
            self._copies.add(copy)
            copy.add_done_callback(partial(self._ended, shadow))

    def drain(self) -> list[Add]:
        """What was counted since the last time, for a commit; if that fails, `put_back`."""
        adds = []
        for shadow in self._shadows:
            if shadow.row.any():
                adds.append(Add(self._route, shadow_layout(shadow.settings), shadow.arm, shadow.row))
                shadow.row = np.zeros(WIDTH)
        return adds

    def put_back(self, adds: list[Add]) -> None:
        """Keeps for the next time what could not be committed."""
        for shadow in self._shadows:
            for add in adds:
                if (add.layout, add.arm) == (shadow_layout(shadow.settings), shadow.arm):
                    shadow.row += add.row

    async def close(self) -> None:
        """Gives up the copies that are on the way."""
        copies = list(self._copies)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)

    async def _follow(self, shadow: _Shadow, call: Call, answer: bytes) -> None:
        start = perf_counter()
        seconds = shadow.settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                deadline = asyncio.get_running_loop().time() + seconds
                request = ModelInferRequest.FromString(call.body)
                reply = await shadow.upstream(replace(call, request=request, deadline=deadline))
            compared = difference(answer, reply.body, shadow.settings)
        except (CallError, TimeoutError, ValueError):
            self._count(shadow, "failed", _FAILED)
            return
        finally:
            self._metrics.shadow_seconds.labels(self._route, shadow.arm).observe(perf_counter() - start)
        shadow.row[_COMPARED] += 1
        if compared.mean is not None:
            self._metrics.shadow_difference.labels(self._route, shadow.arm).observe(compared.mean)
            shadow.row[[_NUMBERS, _SUM, _SQUARES]] += 1.0, compared.mean, compared.mean**2
        if compared.different:
            self._count(shadow, "different", _DIFFERENT)
        else:
            self._metrics.shadows.labels(self._route, shadow.arm, "same").inc()

    def _ended(self, shadow: _Shadow, copy: asyncio.Task[None]) -> None:
        self._copies.discard(copy)
        shadow.in_flight -= 1
        if not copy.cancelled() and (error := copy.exception()) is not None:  # that of an upstream in this process
            _log.error("shadow %s of route %s failed", shadow.arm, self._route, exc_info=error)
            self._count(shadow, "failed", _FAILED)

    def _count(self, shadow: _Shadow, outcome: str, place: int) -> None:
        shadow.row[place] += 1
        self._metrics.shadows.labels(self._route, shadow.arm, outcome).inc()


@dataclass(slots=True)
class _Shadow:
    """One shadow arm."""

    arm: str
    settings: Settings
    upstream: Handler
    draw: Draw
    p: Vector  # of being copied, and of not
    row: Vector
    in_flight: int = 0


def _shadow(route: str, arm: str, settings: Settings, upstream: Handler) -> _Shadow:
    part = settings.percent / 100.0
    # A salt of its own, so that who is copied has nothing to do with which arm answers.
    draw = sampler(f"shadow/{route}/{arm}", ["copied", "not copied"])
    return _Shadow(arm, settings, upstream, draw, np.array([part, 1.0 - part]), np.zeros(WIDTH))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two answers are apart."""

    different: bool
    mean: float | None = None  # absolute difference of their numbers; None for labels, and for other shapes


def difference(answer: bytes, shadow: bytes, settings: Settings) -> Difference:
    """Compares one output of two answers, serialized ModelInferResponses. Two NaN at the same place are alike.

    Numbers differ by more than the tolerance, or one of the two is NaN; anything else differs where it is not equal.
    Raises ValueError or a CallError where one of the answers lacks the output or cannot be read.
    """
    a, b = (_output(body, settings.output) for body in (answer, shadow))
    if a.shape != b.shape:
        return Difference(different=True)
    if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        return Difference(different=not np.array_equal(a, b))
    unlike = (a != b) & ~(np.isnan(a) & np.isnan(b))
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.where(unlike, np.abs(a.astype(np.float64) - b.astype(np.float64)), 0.0)
    gaps[np.isnan(gaps)] = np.inf
    different = bool((unlike & ~(gaps <= settings.tolerance)).any()) or (not settings.tolerance and bool(unlike.any()))
    finite = gaps[np.isfinite(gaps)]
    return Difference(different, min(float(finite.mean()), GREATEST) if finite.size else None)


def _output(body: bytes, name: str) -> NDArray[Any]:
    outputs = outputs_of(ModelInferResponse.FromString(body))
    if not outputs or (name and name not in outputs):
        raise ValueError(f"the answer has no output {name!r}")
    return outputs[name] if name else next(iter(outputs.values()))
