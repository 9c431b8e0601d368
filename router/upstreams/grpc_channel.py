"""gRPC by grpcio: slower than our own client, older and in more hands. `client: grpc` chooses it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from protos.errors import Code
from router.trust import Trust, grpc_channel
from router.upstreams.channel import Answer, Metadata, Refused

_OPTIONS: list[tuple[str, Any]] = [
    # A restarted upstream is found again in seconds, not after grpc's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Each channel has its own connection: grpc would share one between equal channels.
    ("grpc.use_local_subchannel_pool", 1),
]

_DOWN = grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN


class GrpcChannel:
    """A Channel over grpc.aio. It connects when it is first asked."""

    def __init__(self, target: str, trust: Trust | None = None) -> None:
        """`target` is "HOST:PORT"; without `trust` the connection is plain."""
        self.target = target
        self._channel = grpc_channel(grpc.aio, target, trust, *_OPTIONS)
        self._methods: dict[str, Any] = {}

    @property
    def connected(self) -> bool:
        return self._channel.get_state() not in _DOWN

    async def call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Answer:
        ask = self._methods.get(method)
        if ask is None:
            ask = self._methods[method] = self._channel.unary_unary(method)
        left = deadline - asyncio.get_running_loop().time()
        call = ask(message, timeout=left, metadata=metadata)
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            code, details = Code[error.code().name], error.details() or ""
            # grpc does not tell whose word a status is, so nothing else may be asked again.
            unseen = code is Code.UNAVAILABLE and details.startswith("failed to connect to all addresses")
            raise Refused(code, details, unseen=unseen) from None
        return answer, dict(await call.initial_metadata())

    async def close(self, seconds: float) -> None:
        await self._channel.close(grace=seconds)
