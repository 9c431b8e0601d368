"""The table that moves while the days go by, read from the server as any operator could."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bandits.anytime.rates import rate_interval
from protos.messages import RouteDescription
from router.client import AsyncClient
from router.demo.replay import Replay, Replayed
from router.demo.routes import PLAIN
from runtime.finance import Samples

_SECONDS = 0.25
_BAR = 24


async def watched(target: str, samples: Samples, console: Console) -> Mapping[str, Replayed]:
    """Replays `samples` under a live table of the plain route; what came of it, by route."""
    replay = Replay(target, samples)
    running = asyncio.create_task(replay.run())
    async with AsyncClient(target) as operator:
        with Live(console=console, auto_refresh=False) as live:
            while not running.done():
                await asyncio.wait([running], timeout=_SECONDS)
                live.update(_table(await operator.describe(PLAIN), replay), refresh=True)
    console.print()
    return await running


def _table(described: RouteDescription, replay: Replay) -> Table:
    done = replay.done[PLAIN]
    seconds = done.seconds[np.isfinite(done.seconds)]
    pace = (
        f"p50 {np.median(seconds) * 1e3:.1f} ms, p99 {np.quantile(seconds, 0.99) * 1e3:.1f} ms" if len(seconds) else ""
    )
    errors = sum(done.errors.values())
    table = Table(
        box=SIMPLE_HEAD,
        title=(
            f"{replay.day}   {len(seconds)} of {len(replay.samples)} forecasts, {done.rewards} rewards, {errors} errors"
        ),
        caption=f"answer at the client: {pace}",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("arm", "chosen now", "", "share", "mean reward", "95 %, at all times"):
        table.add_column(column, justify="left" if column in ("arm", "") else "right", no_wrap=True)
    total = sum(arm.decisions for arm in described.arms) or 1.0
    for arm in described.arms:
        low, high = rate_interval(arm.reward.sum, arm.reward.n)
        table.add_row(
            arm.name,
            f"{arm.probability:.1%}",
            "█" * round(arm.probability * _BAR),
            f"{arm.decisions / total:.1%}",
            f"{arm.reward.sum / arm.reward.n:.3f}" if arm.reward.n else "-",
            f"{low:.3f} to {high:.3f}",
        )
    return table
