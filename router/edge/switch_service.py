"""What switches arms off and on: SwitchArm, over gRPC and REST."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from protos.errors import InvalidArgument, NotFound
from protos.grpc import Methods, Rpc
from protos.messages import SwitchArmRequest, SwitchArmResponse, parse
from router.errors import NotRecorded, StoreAway, UnknownRoute, listed
from router.route import Routes
from router.safety.switches import ROUTE, Position, Switch, frozen, switch
from router.stores import InStore, StoreError
from router.wire import SERVICE

T = TypeVar("T")

LONGEST = 1000
"""Characters of who and why."""

_log = logging.getLogger(__name__)


class SwitchService:
    """Writes switches into the store, and puts them in force here; other replicas read them from there, soon after."""

    def __init__(
        self,
        routes: Routes,
        in_store: InStore,
        clock: Callable[[], float],
        *,
        look: Callable[[], Awaitable[None]],
        follow_seconds: float,
        client: Callable[[], str],
    ) -> None:
        """`clock` gives seconds since the epoch; `look` puts in force what is in the store, or raises StoreError.

        Other replicas do so within `follow_seconds`. `client` gives the name of who asks; empty: nobody knows.
        """
        self._routes = routes
        self._in_store = in_store
        self._clock = clock
        self._look = look
        self._follow_seconds = follow_seconds
        self._client = client

    async def switch(self, request: SwitchArmRequest) -> SwitchArmResponse:
        """Switches an arm, or the learning of a route; returns when that is durable, and in force here.

        Raises NotFound, InvalidArgument, NotRecorded when the store does not answer, and StoreAway when it did no more.
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
            _who(self._client(), request.who),
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
        try:
            await self._look()
        except StoreError as error:
            _log.error("route %s is switched, and it is not in force: %s", route.name, error)
            raise StoreAway("it is written down, and holds from when the store answers again") from None
        return SwitchArmResponse(
            off=[arm for arm in arms if arm in switches and switches[arm].state != "on"],
            frozen=frozen(switches) is not None,
            follow_seconds=self._follow_seconds,
        )


def switch_methods(service: SwitchService) -> Methods:
    """The gRPC methods, by path."""

    async def switch_arm(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.switch(parse(SwitchArmRequest, body))).SerializeToString()

    return {SERVICE + "SwitchArm": switch_arm}


def _who(client: str, said: str) -> str:
    """Who switched: the client, where it is known, and what it says of itself only beside that."""
    return f"{client} ({said})" if client and said else client or said or "an operator"
