"""What is counted is told without holding up the event loop."""

from __future__ import annotations

import asyncio
import threading

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from protos.metrics import text_of


class Two(Collector):
    """Two families, and where they were made."""

    def __init__(self):
        self.made = []

    def collect(self):
        for name in ("first", "second"):
            self.made.append(threading.current_thread().name)
            yield CounterMetricFamily(name, "One of two.", value=1)


def test_families_are_made_in_the_event_loop_one_a_turn_and_written_elsewhere():
    registry, two = CollectorRegistry(), Two()
    registry.register(two)
    two.made.clear()
    turns, wrote = [], []

    def encode(counted):
        wrote.append(threading.current_thread().name)
        return generate_latest(counted)

    async def others():
        while True:
            turns.append(len(two.made))
            await asyncio.sleep(0)

    async def scenario():
        busy = asyncio.create_task(others())
        text = await text_of(registry, encode)
        busy.cancel()
        return text

    assert asyncio.run(scenario()) == generate_latest(registry)
    assert two.made[:2] == ["MainThread"] * 2
    assert {1, 2} <= set(turns)
    assert wrote
    assert "MainThread" not in wrote
