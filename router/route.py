"""A route: one experiment, as it is known at one moment. It chooses, asks the arm, and stamps the answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bandits import Draw, Fitted, Policy
from protos.errors import CallError, DeadlineExceeded, Fault, ResourceExhausted
from protos.messages import ModelInferResponse
from router.call import Call, Decision, Handler, Reply, Vector
from router.config import Route as Settings
from router.guard import Guard
from router.ids import ID_LENGTH
from router.upstreams import Upstream
from router.wire import ARM, ARM_HEADER, DECISION, DECISION_HEADER, PROPENSITY, PROPENSITY_HEADER

_DOUBLE = struct.Struct("<d")  # as protobuf writes one


class DecisionLog(Protocol):
    """Where decisions are written down, behind the request path."""

    def record(self, decision: Decision) -> None:
        """Queues a decision; never blocks."""

    async def committed(self, decision: Decision) -> None:
        """Records a decision and returns when it is durable."""


@dataclass(frozen=True, slots=True)
class Arm:
    """An alternative: its name, who answers for it, that answer wrapped in the layers, and what is put on it."""

    name: str
    upstream: Upstream
    handler: Handler
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Route:
    """A Handler, and an immutable value: a request that holds one sees the same policy and arms to its end.

    Learning and the guard publish a new one; only `guard` and `log`, which they share, are mutable.
    """

    name: str
    settings: Settings
    arms: tuple[Arm, ...]
    policy: Policy
    draw: Draw
    guard: Guard
    log: DecisionLog
    new_id: Callable[[], tuple[str, float]]
    changed: Callable[[str], None]  # told the route's name when the guard has changed what is allowed
    fitted: Fitted
    version: str  # of what `fitted` knows
    allowed: NDArray[np.bool_]

    def probabilities(self, context: Vector | None = None) -> Vector:
        """How likely each arm is to be drawn now."""
        return self.fitted(context, self.allowed)

    def decide(self, unit: str, context: Vector | None) -> tuple[Decision, int]:
        """Draws an arm; returns the decision and the arm's index."""
        decision_id, now = self.new_id()
        p = self.fitted(context, self.allowed)
        index = self.draw(p, unit if unit and self.settings.sticky else decision_id)
        arm = self.arms[index].name
        features = None if context is None else tuple(context.tolist())
        return Decision(decision_id, self.name, arm, float(p[index]), now, self.version, unit, features), index

    async def write_down(self, decision: Decision) -> None:
        """Queues a decision for the log; where the log is strict, returns once it is durable."""
        if self.settings.strict_log:
            await self.log.committed(decision)
        else:
            self.log.record(decision)

    async def __call__(self, call: Call) -> Reply:
        decision, index = self.decide(call.unit, call.context)
        guard = self.guard
        probe = guard.drawn(index)
        if probe:
            self.changed(self.name)
        try:
            reply = await self.arms[index].handler(call)
        except (asyncio.CancelledError, DeadlineExceeded, ResourceExhausted):  # which prove nothing about the arm
            if guard.abandoned(index, probe=probe):
                self.changed(self.name)
            raise
        except CallError as error:
            outcome = guard.succeeded if error.fault is Fault.CLIENT else guard.failed
            if outcome(index, probe=probe):
                self.changed(self.name)
            raise
        except Exception:
            if guard.failed(index, probe=probe):
                self.changed(self.name)
            raise
        if guard.succeeded(index, probe=probe):
            self.changed(self.name)
        await self.write_down(decision)
        reply.body += self.arms[index].stamp(decision)
        reply.metadata += [
            (DECISION_HEADER, decision.id),
            (ARM_HEADER, decision.arm),
            (PROPENSITY_HEADER, repr(decision.propensity)),
        ]
        return reply


class Stamp:
    """What an arm's answers are stamped with: the route's name for a model name, and the decision in the parameters.

    It is appended to the serialized response: messages merge when their bytes are joined, and the last name stands.
    Only id and propensity change from one answer to the next, so they are put into bytes made once.
    """

    __slots__ = ("_head", "_middle", "_tail")

    _ID, _PROPENSITY = "?" * ID_LENGTH, 0.12345678901234567

    def __init__(self, route: str, arm: str) -> None:
        message = ModelInferResponse(model_name=route)
        message.parameters[ARM].string_param = arm
        message.parameters[DECISION].string_param = self._ID
        message.parameters[PROPENSITY].double_param = self._PROPENSITY
        # In the order of their names, the id comes before the propensity.
        made = message.SerializeToString(deterministic=True)
        self._head, rest = made.split(self._ID.encode())
        self._middle, self._tail = rest.split(_DOUBLE.pack(self._PROPENSITY))

    def __call__(self, decision: Decision) -> bytes:
        """The bytes to append to a response."""
        return self._head + decision.id.encode() + self._middle + _DOUBLE.pack(decision.propensity) + self._tail


class Routes:
    """The routes being served: one immutable mapping behind one reference. Written by the event loop only."""

    def __init__(self) -> None:
        self.current: Mapping[str, Route] = {}

    def handler(self, name: str) -> Handler:
        """Answers calls by whatever state of the route is current when they come."""

        async def handler(call: Call) -> Reply:
            return await self.current[name](call)

        return handler

    def publish(self, route: Route) -> None:
        """Puts a newer state of a route in the place of the older one."""
        self.current = {**self.current, route.name: route}

    def guard_changed(self, name: str) -> None:
        """Publishes what the guard of a route allows now; the route may be gone since the call came."""
        route = self.current.get(name)
        if route is not None:
            self.publish(replace(route, allowed=route.guard.allowed()))
