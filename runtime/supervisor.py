"""Several processes that serve the same models on the same ports. See protos/workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from protos.workers.line import Order
from protos.workers.supervisor import Supervisor
from runtime.post import Work
from runtime.process import STOP_SECONDS, Started
from runtime.scrapes import GREATEST
from runtime.server_settings import ServerSettings

CHANGES = {"load", "load_as", "unload"}


async def supervise(models: Path, settings: ServerSettings, started: Callable[[Started], None]) -> bool:
    """Keeps `settings.parallel_workers` processes serving `models` until SIGTERM or SIGINT; then drains them.

    `started` is told when all of them serve. False if they could not even start. Raises OSError, with the address as
    its file name, when one cannot be bound.
    """

    def up(addresses: list[str], news: bytes) -> None:
        started(msgspec.structs.replace(msgspec.json.decode(news, type=Started), addresses=addresses))

    supervisor = Supervisor(
        "runtime.post",
        msgspec.json.encode(Work(str(models), settings)).decode(),
        [bind for bind, _ in settings.listeners()],
        settings.parallel_workers,
        up,
        key=_model,
        greatest=GREATEST,
    )
    supervisor.asking = {"index", "loaded"}
    supervisor.stop_seconds = STOP_SECONDS
    return await supervisor.run()


def _model(order: Order) -> str | None:
    """The model that an order changes."""
    return order.words[0] if order.what in CHANGES else None
