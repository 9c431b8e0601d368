"""The upstreams in use, each opened once, however many routes and reloads refer to it."""

from __future__ import annotations

from typing import TypeAlias

from router.config import Arm
from router.upstreams import Upstream
from router.upstreams.local import Models
from router.upstreams.remote import Remote

Key: TypeAlias = tuple[str, str, str, float]


class Connections:
    """Opens and closes upstreams."""

    def __init__(self, models: Models | None) -> None:
        """`models` are those of this process; None when the configuration has no models folder."""
        self._models = models
        self._open: dict[Key, Upstream] = {}

    async def upstream(self, arm: Arm) -> Upstream:
        """The upstream of an arm, warm. Raises a CallError when its model cannot be served."""
        key = _key(arm)
        if key not in self._open:
            self._open[key] = await self._connect(arm)
        return self._open[key]

    async def keep_only(self, arms: list[Arm]) -> None:
        """Closes what none of these arms needs; calls in flight are finished first."""
        wanted = {_key(arm) for arm in arms}
        for key in self._open.keys() - wanted:
            await self._open.pop(key).close()

    async def close(self) -> None:
        """Closes all."""
        await self.keep_only([])

    async def _connect(self, arm: Arm) -> Upstream:
        if arm.target:
            return Remote(arm.target, arm.model, arm.version, timeout_seconds=arm.timeout_seconds)
        if self._models is None:
            raise RuntimeError("an arm without a target got past the configuration, which names no models folder")
        return await self._models.upstream(arm.model, arm.version)


def _key(arm: Arm) -> Key:
    return arm.target, arm.model, arm.version, arm.timeout_seconds
