"""Counts for the request path: plain numbers of one thread, which become Prometheus' families when somebody scrapes.

prometheus_client's own take a lock and some 200 Python instructions for each value: a tenth of a request's time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_log = logging.getLogger(__name__)
_left_out: set[str] = set()


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket that holds it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values it has seen."""
        return sum(self._counts)

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Appends the buckets, cumulative as Prometheus wants them."""
        bounds: list[str] = [floatToGoString(bound) for bound in (*self._bounds, math.inf)]  # type: ignore[no-untyped-call]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self.sum)


class Count:
    """How often something happened."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histograms(Collector):
    """A histogram for each combination of labels, in a registry."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._family = name, text
        self._names = labels
        self._bounds = bounds
        self._known: dict[tuple[str, ...], Histogram] = {}
        registry.register(self)

    def labels(self, *values: str) -> Histogram:
        """The one for these values, which is shown from now on."""
        return self._known.setdefault(values, Histogram(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """The family, as prometheus_client asks for it."""
        family = HistogramMetricFamily(*self._family, labels=self._names)
        for values, histogram in self._known.items():
            histogram.add_to(family, values)
        yield family


class Counts(Collector):
    """A counter for each combination of labels, in a registry."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._family = name, text
        self._names = labels
        self._known: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The one for these values, which is shown from now on."""
        return self._known.setdefault(values, Count())

    def collect(self) -> Iterator[Metric]:
        """The family, as prometheus_client asks for it."""
        family = CounterMetricFamily(*self._family, labels=self._names)
        for values, count in self._known.items():
            family.add_metric(values, count.value)
        yield family


class _Collected(Collector):
    """Families as they were a moment ago."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


async def text_of(counted: Collector, encode: Callable[[Collector], bytes] = generate_latest) -> bytes:
    """What is counted, in Prometheus' words; what cannot be said in them is left out.

    Two hundred models are a megabyte of them, a tenth of a second of work: requests are answered meanwhile.
    """
    families = []
    for family in counted.collect():
        families.append(family)
        await asyncio.sleep(0)
    return await asyncio.to_thread(_written, families, encode)


def leave_out(name: str, error: Exception) -> None:
    """Says in the log that a metric is left out of what is told, and why; once in the life of the process."""
    if name not in _left_out:
        _left_out.add(name)
        _log.warning("metric %r is left out of what is told, as that failed", name, exc_info=error)


def _written(families: Sequence[Metric], encode: Callable[[Collector], bytes]) -> bytes:
    with suppress(Exception):  # one metric that cannot be said shall not hide the others
        return encode(_Collected(families))
    return encode(_Collected(family for family in families if _is_writable(family, encode)))


def _is_writable(family: Metric, encode: Callable[[Collector], bytes]) -> bool:
    try:
        encode(_Collected([family]))
    except Exception as error:  # noqa: BLE001 - a metric of a user's may hold anything
        error.args = error.args[:1]  # to which prometheus_client adds the metric with all its samples
        leave_out(family.name, error)
        return False
    return True
