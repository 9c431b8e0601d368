"""A route: one experiment, as it is known at one moment. It chooses, asks the arm, and stamps the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter
from typing import Protocol

import msgspec
import numpy as np

from bandits import Draw, Fitted, Mask, Policy
from protos.errors import CallError, Code, DeadlineExceeded, Fault, ResourceExhausted
from router.call import Call, Decision, Handler, Reply, Vector
from router.config import Route as Settings
from router.context.encoder import Context, Encoder
from router.context.lookups import Lookups
from router.context.rules import Rules
from router.errors import NoArmAllowed
from router.layers.shadow import Shadows
from router.metrics import ArmMetrics
from router.safety.guard import Guard
from router.safety.guardrails import Watch
from router.safety.tally import Tally
from router.scoring import prediction_of
from router.stamp import Stamp
from router.upstreams import Upstream
from router.wire import SELDON_ROUTE

NOTHING_KNOWN = Context()
_SELDON_ROUTE = SELDON_ROUTE.encode()


class DecisionLog(Protocol):
    """Where decisions are written down, behind the request path."""

    def record(self, decision: Decision) -> None:
        """Queues a decision; never blocks."""

    async def committed(self, decision: Decision) -> None:
        """Records a decision and returns when it is durable."""


@dataclass(frozen=True, slots=True)
class Arm:
    """An alternative: its name, who answers for it, what is put on its answers, and what counts them."""

    name: str
    upstream: Upstream
    stamp: Stamp
    metrics: ArmMetrics


@dataclass(frozen=True, slots=True)
class Route:
    """A Handler, and an immutable value: a request that holds one sees the same policy and arms to its end.

    Learning, operators and the guard publish a new one; only `guard` and `log`, which they share, are mutable.
    """

    name: str
    settings: Settings
    in_force: Settings  # the same, at this moment of a schedule
    arms: tuple[Arm, ...]
    champion: int
    encoder: Encoder | None  # None: nothing is read out of requests
    rules: Rules | None
    lookups: Lookups  # what is known about units
    policy: Policy
    reads_context: bool  # whether the policy does
    draw: Draw
    guard: Guard
    log: DecisionLog
    new_id: Callable[[], tuple[str, float]]
    changed: Callable[[str], None]  # told the route's name when the guard has changed what is allowed
    fitted: Fitted
    version: str  # of what `fitted` knows
    sums: Vector  # that, [K, width]
    switched_on: Mask  # by operators; nothing overrules them
    drawable: Mask  # the arms that the policy draws at all, on the terms that it is on
    allowed: Mask  # of those switched on, the arms that the guard leaves in; all of them where it would leave none
    tally: Tally | None = None  # counts what guardrails and canaries are judged by
    shadows: Shadows | None = None
    share: float | None = None  # of the canary, where there is one
    frozen: bool = False  # it serves what it knows, whatever else is learnt
    watches: tuple[Watch, ...] = ()  # what is counted for guardrails and canaries

    def now(self, known: Route) -> Route:
        """The route as `known` says that it stands, which was worked out elsewhere, and as its guard has it now."""
        return replace(
            self,
            in_force=known.in_force,
            policy=known.policy,
            fitted=known.fitted,
            version=known.version,
            sums=known.sums,
            switched_on=known.switched_on,
            drawable=known.drawable,
            allowed=permitted(known.switched_on, self.guard.allowed(), known.drawable),
            share=known.share,
            frozen=known.frozen,
            watches=known.watches,
        )

    def probabilities(self) -> Vector | None:
        """How likely each arm is to be drawn now, 0 where none may be; None where each request has its own."""
        if self.reads_context:
            return None
        drawn = (self.allowed & self.drawable).any()
        return self.fitted(None, self.allowed) if drawn else np.zeros(len(self.arms))

    def decide(self, call: Call, context: Context | None = None) -> tuple[Decision, int]:
        """Draws an arm for a call; returns the decision and the arm's index. Without a context, the call's is read.

        Raises InvalidArgument for a context that cannot be read, and NoArmAllowed.
        """
        decision_id, now = self.new_id()
        mask, rule = self.allowed, ""
        if context is None:
            context = NOTHING_KNOWN if self.encoder is None else self.encoder(call, self.lookups.current)
        if self.rules is not None:
            ruling, rule = self.rules(context.values, call.unit, call.metadata, now)
            if rule:
                mask = permitted(ruling & self.switched_on, self.allowed, self.drawable)
        try:
            p = self.fitted(context.vector if self.reads_context else None, mask)
        except ValueError:
            if (mask & self.drawable).any():
                raise
            raise NoArmAllowed(self.name, rule) from None
        proposed = None
        if self.settings.apprentice and mask[self.champion]:
            proposed = tuple(p.tolist())
            p = np.zeros(len(p))
            p[self.champion] = 1.0
        index = self.draw(p, self._key(call.unit, decision_id))
        probabilities = tuple(p.tolist())
        decision = Decision(
            decision_id,
            self.name,
            self.arms[index].name,
            probabilities[index],
            now,
            self.version,
            call.unit,
            None if self.encoder is None else context.numbers,
            probabilities,
            as_bits(mask.tobytes()),
            rule,
            (),
            proposed,
        )
        return decision, index

    def write_down(self, decision: Decision) -> Awaitable[None] | None:
        """Queues a decision for the log; where the log is strict, it is durable once the result is awaited."""
        if self.settings.strict_log:
            return self.log.committed(decision)
        self.log.record(decision)
        return None

    async def __call__(self, call: Call) -> Reply:
        decision, index = self.decide(call)
        try:
            reply = await self._ask(index, call, decision.probabilities or ())
        except CallError as error:
            decision, index, reply = await self._fail_over(call, decision, error)
        if (rule := self.settings.reward.score) is not None:
            decision = msgspec.structs.replace(decision, prediction=prediction_of(rule, reply.body))
        if reply.metadata:  # of an upstream that says where it went
            told = [where.decode() for name, where in reply.metadata if name == _SELDON_ROUTE]
            decision = msgspec.structs.replace(decision, upstream=", ".join(told))
            reply.metadata = [pair for pair in reply.metadata if pair[0] != _SELDON_ROUTE]
        if (durable := self.write_down(decision)) is not None:
            await durable
        if self.shadows is not None:
            self.shadows.offer(call, reply, decision)
        stamp = self.arms[index].stamp
        reply.body += stamp.body(decision)
        reply.metadata += stamp.metadata(decision)
        return reply

    async def _ask(self, index: int, call: Call, p: Sequence[float]) -> Reply:
        """The answer of an arm that was drawn from `p`. Its metrics, its guard and the tally hear how that went."""
        arm, guard, began = self.arms[index], self.guard, perf_counter()
        probe = guard.drawn(index)
        if probe:
            self.changed(self.name)
        code, failed = Code.CANCELLED, None  # a caller who left, and what else proves nothing about the arm
        try:
            reply = await arm.upstream(call)
            code, failed = Code.OK, False
            return reply
        except (DeadlineExceeded, ResourceExhausted) as error:
            code = error.code
            raise
        except CallError as error:
            code, failed = error.code, error.fault is not Fault.CLIENT
            raise
        except Exception:
            code, failed = Code.INTERNAL, True
            raise
        finally:
            seconds = perf_counter() - began
            arm.metrics.answered(code, seconds)
            ended = guard.abandoned if failed is None else guard.failed if failed else guard.succeeded
            if ended(index, probe=probe):
                self.changed(self.name)
            if self.tally is not None:
                if failed is None:
                    self.tally.abandon(index, seconds, p)
                else:
                    self.tally.count(index, seconds, p, failed=failed)

    async def _fail_over(self, call: Call, decision: Decision, error: CallError) -> tuple[Decision, int, Reply]:
        """Asks another arm for the one that failed, as often as the settings say; else raises what the last one did.

        The sampler draws again, without those that failed: as an arm that is left out moves nobody between the others,
        it is the arm that would have been drawn had they never been there, with p_a / (1 - Σ p_failed). A decision that
        nobody answered is written down too, with all its arms among the failed: they took their share of the draws.
        """
        p = np.array(decision.probabilities)
        while True:
            decision = msgspec.structs.replace(decision, failed=(*decision.failed, decision.arm))
            if error.fault is Fault.CLIENT:
                raise error
            p[[arm.name in decision.failed for arm in self.arms]] = 0.0
            left = p.sum()
            if not (error.retry and len(decision.failed) <= self.settings.failover.attempts and left > 0.0):
                self.log.record(decision)
                raise error
            p /= left
            index = self.draw(p, self._key(decision.unit, decision.id))
            decision = msgspec.structs.replace(decision, arm=self.arms[index].name, propensity=float(p[index]))
            try:
                return decision, index, await self._ask(index, call, p.tolist())
            except CallError as again:
                error = again

    def _key(self, unit: str, decision_id: str) -> str:
        return unit if unit and self.settings.sticky else decision_id


@lru_cache(4096)
def as_bits(mask: bytes) -> int:
    """Bit k of a mask's bytes, one byte an arm: whether arm k is in it."""
    return sum(1 << k for k, allowed in enumerate(mask) if allowed)


def permitted(switched_on: Mask, healthy: Mask, drawable: Mask) -> Mask:
    """The arms that may be drawn: permission is a law, health only advice where none would be left.

    An arm that is there for nobody, such as a canary that was rolled back, is none that is left.
    """
    both = switched_on & healthy
    return both if (both & drawable).any() else switched_on


def drawn_ever(policy: Policy, arms: int, canary: int = -1, share: float | None = None) -> Mask:
    """The arms that a policy draws at all, with a canary that gets that share: one without a share is never drawn.

    So is an arm of weight 0 in a split. A policy that reads contexts may draw any arm, and one that learns as well.
    """
    everything = np.ones(arms, dtype=np.bool_)
    drawable = everything if policy.features else policy.fit(np.zeros((arms, policy.width)))(None, everything) > 0.0
    if share == 0.0:
        drawable[canary] = False
    return drawable


class Routes:
    """The routes being served: one immutable mapping behind one reference. Written by the event loop only."""

    def __init__(self) -> None:
        self.current: Mapping[str, Route] = {}

    def handler(self, name: str) -> Handler:
        """Answers calls by whatever state of the route is current when they come."""

        def handler(call: Call) -> Awaitable[Reply]:
            return self.current[name](call)

        return handler

    def publish(self, route: Route) -> None:
        """Puts a newer state of a route in the place of the older one."""
        self.current = {**self.current, route.name: route}

    def guard_changed(self, name: str) -> None:
        """Publishes what the guard of a route allows now; the route may be gone since the call came."""
        route = self.current.get(name)
        if route is not None:
            allowed = permitted(route.switched_on, route.guard.allowed(), route.drawable)
            self.publish(replace(route, allowed=allowed))
