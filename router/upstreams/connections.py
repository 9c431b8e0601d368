"""The upstreams in use, each opened once, however many routes and reloads refer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from protos.errors import UpstreamError
from router.config import Arm
from router.upstreams import Upstream
from router.upstreams.channel import Channel
from router.upstreams.ensemble import Ensemble
from router.upstreams.grpc_channel import GrpcChannel
from router.upstreams.http2.channel import Http2Channel
from router.upstreams.local import Models
from router.upstreams.pool import Pool, nobody
from router.upstreams.remote import SELDON_MODEL, Remote
from router.upstreams.rest import Rest
from router.upstreams.secure import header_values
from router.wire import SELDON_ROUTE

_CLIENTS: dict[str, type[GrpcChannel | Http2Channel]] = {"grpc": GrpcChannel, "http2": Http2Channel}


class Connections:
    """Opens and closes upstreams."""

    def __init__(self, models: Models | None, *, left_out: Callable[[str], None] = nobody) -> None:
        """`models` are those of this process; None when the configuration has no models folder.

        `left_out` is told each target that is left out because others of its arm do better.
        """
        self._models = models
        self._left_out = left_out
        self._open: dict[bytes, Upstream] = {}

    async def upstream(self, arm: Arm, arms: Mapping[str, Arm] | None = None) -> Upstream:
        """The upstream of an arm, warm. Raises a CallError when its model cannot be served.

        `arms` are those of its route, from which an ensemble takes its members.
        """
        if arm.ensemble is not None:
            known = {**(arms or {}), **arm.ensemble.arms}
            members = {name: await self.upstream(known[name]) for name in arm.ensemble.members}
            ensemble = Ensemble(members, arm.ensemble.members, arm.ensemble.combine)
            with suppress(UpstreamError):  # a member that is away; the guard deals with it
                await ensemble.metadata()  # members that do not go together are refused here
            return ensemble
        key = _key(arm)
        if key not in self._open:
            self._open[key] = await self._connect(arm)
        return self._open[key]

    async def keep_only(self, arms: Sequence[Arm]) -> None:
        """Closes what none of these arms needs; calls in flight are finished first."""
        wanted = {_key(one) for arm in arms for one in (arm, *arm.inline.values())}
        unwanted = [self._open.pop(key) for key in self._open.keys() - wanted]
        await asyncio.gather(*(upstream.close() for upstream in unwanted))

    async def close(self) -> None:
        """Closes all."""
        await self.keep_only([])

    async def _connect(self, arm: Arm) -> Upstream:
        if arm.the_kind == "rest":
            return Rest(arm)
        if arm.the_kind == "local":
            if self._models is None:
                raise RuntimeError("a local arm got past the configuration, which names no models folder")
            return await self._models.upstream(arm.model, arm.version)
        headers, told = header_values(arm.headers), list[str]()
        if arm.the_kind == "seldon":
            headers, told = [(SELDON_MODEL, arm.model), *headers], [SELDON_ROUTE]
        client = _CLIENTS[arm.client]
        channels: list[Channel] = [client(target, arm.tls) for _ in range(arm.connections) for target in arm.targets]
        return Remote(
            Pool(channels, retries=arm.retries, left_out=self._left_out),
            arm.model,
            arm.version,
            timeout_seconds=arm.timeout_seconds,
            headers=headers,
            told=told,
        )


def _key(arm: Arm) -> bytes:
    """What makes two arms one upstream: all of their settings but those that only concern their route."""
    return msgspec.json.encode(msgspec.structs.replace(arm, cost=None))
