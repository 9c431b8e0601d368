"""What switches arms off and on: SwitchArm, over gRPC and REST."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from protos.errors import InvalidArgument, NotFound
from protos.grpc import Methods, Rpc
from protos.messages import SwitchArmRequest, SwitchArmResponse, parse
from router.errors import NotRecorded, UnknownRoute, listed
from router.route import Routes
from router.safety.switches import ROUTE, Position, Switch, frozen, switch
from router.stores import InStore, StoreError
from router.wire import SERVICE

T = TypeVar("T")

LONGEST = 1000
"""Characters of who and why."""

_log = logging.getLogger(__name__)


class SwitchService:
    """Writes switches into the store; each process reads them from there, soon after."""

    def __init__(self, routes: Routes, in_store: InStore, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._routes = routes
        self._in_store = in_store
        self._clock = clock

    async def switch(self, request: SwitchArmRequest) -> SwitchArmResponse:
        """Switches an arm, or the learning of a route; returns when that is durable.

        Raises NotFound, InvalidArgument, and NotRecorded when the store does not answer.
        """
        route = self._routes.current.get(request.route)
        if route is None:
            raise UnknownRoute(request.route, self._routes.current)
        arms = [arm.name for arm in route.arms]
        if request.arm and request.arm not in arms:
            raise NotFound(f"route {route.name!r} has no arm {request.arm[:100]!r}; there are: {listed(arms)}")
        if not request.HasField("on"):
            raise InvalidArgument("on: say true or false")
        if not request.why.strip():
            raise InvalidArgument("why: say why, for whoever reads the event log")
        for name, text in ("who", request.who), ("why", request.why):
            if len(text) > LONGEST:
                raise InvalidArgument(f"{name}: at most {LONGEST} characters, got {len(text)}")
        off: Position = "off" if request.arm else "frozen"
        to = Switch(
            "on" if request.on else off,
            request.who or "an operator",
            request.why,
            self._clock(),
            "" if request.arm or request.on else route.version,
        )
        try:
            switches, said = await self._in_store(lambda store: switch(store, route.name, request.arm or ROUTE, to))
        except StoreError as error:
            _log.error("route %s cannot be switched: %s", route.name, error)
            raise NotRecorded from None
        _log.warning("route %s: %s %s: %s", route.name, said.arm, said.kind, said.why)
        return SwitchArmResponse(
            off=[arm for arm in arms if arm in switches and switches[arm].state != "on"],
            frozen=frozen(switches) is not None,
        )


def switch_methods(service: SwitchService) -> Methods:
    """The gRPC methods, by path."""

    async def switch_arm(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.switch(parse(SwitchArmRequest, body))).SerializeToString()

    return {SERVICE + "SwitchArm": switch_arm}
