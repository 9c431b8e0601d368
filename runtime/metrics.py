"""What /metrics says about the models. Labels are the repository's names and versions, never a client's words.

The numbers are plain attributes written by the event loop, and become Prometheus' families when somebody scrapes:
counters with locks would cost each request a tenth of its time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from protos.errors import Code

_SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket that holds it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Appends the buckets, cumulative as Prometheus wants them."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


class ModelMetrics:
    """The numbers of one model version. Only the event loop writes them."""

    __slots__ = ("codes", "in_flight", "queue_seconds", "request_seconds", "rows", "run_seconds")

    def __init__(self) -> None:
        self.codes = dict.fromkeys(Code, 0)
        self.in_flight = 0
        self.request_seconds = Histogram(_SECONDS)
        self.queue_seconds = Histogram(_SECONDS)
        self.run_seconds = Histogram(_SECONDS)
        self.rows = Histogram(_ROWS)

    def answered(self, code: Code, seconds: float) -> None:
        """A request ended."""
        self.codes[code] += 1
        self.request_seconds.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """The model ran one batch."""
        self.rows.observe(rows)
        self.run_seconds.observe(seconds)


class Metrics(Collector):
    """The models' metrics as one collector of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.unknown = 0  # requests for models that are not there; whose names are nobody's label
        registry.register(self)

    def of(self, name: str, version: str) -> ModelMetrics:
        """The numbers of a model version; they outlive a reload."""
        return self._models.setdefault((name, version), ModelMetrics())

    def forget(self, name: str, version: str) -> None:
        """Ends the series of a model that was unloaded."""
        self._models.pop((name, version), None)

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client asks for them."""
        labels = ["model", "version"]
        requests = CounterMetricFamily("runtime_requests", "Inference requests by outcome.", labels=[*labels, "code"])
        unknown = CounterMetricFamily("runtime_unknown_model_requests", "Requests for models that are not loaded.")
        flight = GaugeMetricFamily("runtime_requests_in_flight", "Requests not yet answered.", labels=labels)
        histograms = {
            "request_seconds": "From the parsed request to the response.",
            "queue_seconds": "From arrival to the start of the batch.",
            "run_seconds": "One run of the model.",
            "rows": "Rows of one run.",
        }
        families = {
            name: HistogramMetricFamily(f"runtime_{name}", text, labels=labels) for name, text in histograms.items()
        }
        unknown.add_metric([], self.unknown)
        for key, model in self._models.items():
            for code, count in model.codes.items():
                if count:
                    requests.add_metric([*key, code.name], count)
            flight.add_metric(key, model.in_flight)
            for name, family in families.items():
                getattr(model, name).add_to(family, key)
        yield from (requests, unknown, flight, *families.values())
