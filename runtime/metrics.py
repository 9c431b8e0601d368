"""What /metrics says about the models. Labels are the repository's names and versions, never a client's words.

Beside our own names stand those of MLServer, from the same numbers, for the dashboards that people have. Its versions
are those that clients asked for; ours are those that answered.

The numbers are plain attributes written by the event loop, as `protos.metrics` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from protos.errors import Code
from protos.metrics import Histogram

SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LABELS = ("model", "version")
_HISTOGRAMS = {
    "request_seconds": "From the parsed request to the response.",
    "queue_seconds": "From arrival to the start of the batch.",
    "run_seconds": "One run of the model.",
    "rows": "Rows of one run.",
}
LOADS = ("loaded", "unchanged", "failed")
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ModelMetrics:
    """The numbers of one model version. Only the event loop writes them."""

    __slots__ = (
        "answered_at",
        "codes",
        "explain_seconds",
        "explanations",
        "failed_seconds",
        "in_flight",
        "load_seconds",
        "loaded",
        "memory",
        "queue_seconds",
        "request_seconds",
        "rows",
        "run_seconds",
    )

    def __init__(self) -> None:
        self.loaded = False
        self.load_seconds = 0.0  # the last load
        self.memory = 0  # bytes that it holds; 0 where its format cannot tell
        self.codes = dict.fromkeys(Code, 0)
        self.in_flight = 0
        self.answered_at = 0.0  # on the clock of perf_counter; 0: never
        self.failed_seconds = 0.0
        self.request_seconds = Histogram(SECONDS)
        self.queue_seconds = Histogram(SECONDS)
        self.run_seconds = Histogram(SECONDS)
        self.rows = Histogram(_ROWS)
        self.explanations = dict.fromkeys(Code, 0)
        self.explain_seconds = Histogram(SECONDS)

    def begins(self, memory: int, seconds: float) -> None:
        """The model serves, after so many seconds in which it was loaded and tried out."""
        self.loaded = True
        self.memory = memory
        self.load_seconds = seconds

    def answered(self, code: Code, seconds: float) -> None:
        """A request ended."""
        self.codes[code] += 1
        self.request_seconds.observe(seconds)
        self.answered_at = perf_counter()
        if code:  # all but OK
            self.failed_seconds += seconds

    def ran(self, rows: int, seconds: float) -> None:
        """The model ran one batch."""
        self.rows.observe(rows)
        self.run_seconds.observe(seconds)

    def explained(self, code: Code, seconds: float) -> None:
        """A request that asked for an explanation ended; it is also one of all requests."""
        self.explanations[code] += 1
        self.explain_seconds.observe(seconds)


class Metrics(Collector):
    """The models' metrics as one collector of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.unknown = 0  # requests for models that are not there; whose names are nobody's label
        self.loads = dict.fromkeys(LOADS, 0)  # of all models: one that does not load has no series of its own
        registry.register(self)

    def of(self, name: str, version: str) -> ModelMetrics:
        """The numbers of a model version; they outlive a reload."""
        return self._models.setdefault((name, version), ModelMetrics())

    def forget(self, name: str, version: str) -> None:
        """Ends the series of a model that was unloaded."""
        self._models.pop((name, version), None)

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client asks for them."""
        yield from self._requests()
        yield from self._histograms()
        yield from self._explanations()
        yield from self._loaded()
        yield from self._mlserver()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("runtime_requests", "Inference requests by outcome.", labels=[*_LABELS, "code"])
        unknown = CounterMetricFamily("runtime_unknown_model_requests", "Requests for models that are not loaded.")
        flight = GaugeMetricFamily("runtime_requests_in_flight", "Requests not yet answered.", labels=_LABELS)
        unknown.add_metric([], self.unknown)
        for key, model in self._models.items():
            for code, count in model.codes.items():
                if count:
                    requests.add_metric([*key, code.name], count)
            flight.add_metric(key, model.in_flight)
        yield from (requests, unknown, flight)

    def _histograms(self) -> Iterator[Metric]:
        for name, text in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"runtime_{name}", text, labels=_LABELS)
            for key, model in self._models.items():
                getattr(model, name).add_to(family, key)
            yield family

    def _explanations(self) -> Iterator[Metric]:
        """Of the models that were asked for any, which few are."""
        given = CounterMetricFamily("runtime_explanations", "Explanations by outcome.", labels=[*_LABELS, "code"])
        took = HistogramMetricFamily(
            "runtime_explain_seconds", "A request with an explanation, the model's answer included.", labels=_LABELS
        )
        for key, model in self._models.items():
            for code, count in model.explanations.items():
                if count:
                    given.add_metric([*key, code.name], count)
            if model.explain_seconds.count:
                model.explain_seconds.add_to(took, key)
        yield from (given, took)

    def _loaded(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily("runtime_model_loaded", "Processes that serve the model.", labels=_LABELS)
        memory = GaugeMetricFamily(
            "runtime_model_memory_bytes", "Weights and constants of the model, in all processes.", labels=_LABELS
        )
        took = GaugeMetricFamily("runtime_model_load_seconds", "The last load, warm-up included.", labels=_LABELS)
        loads = CounterMetricFamily("runtime_loads", "Loads that were asked for, by outcome.", labels=["outcome"])
        for outcome, count in self.loads.items():
            loads.add_metric([outcome], count)
        for key, model in self._models.items():
            loaded.add_metric(key, model.loaded)
            if model.loaded:
                took.add_metric(key, model.load_seconds)
            if model.loaded and model.memory:
                memory.add_metric(key, model.memory)
        yield from (loaded, memory, took, loads)

    def _mlserver(self) -> Iterator[Metric]:
        good = CounterMetricFamily("model_infer_request_success", "Requests answered.", labels=_LABELS)
        bad = CounterMetricFamily("model_infer_request_failure", "Requests refused or failed.", labels=_LABELS)
        took = SummaryMetricFamily("model_infer_request_duration", "Seconds of a request.", labels=_LABELS)
        for key, model in self._models.items():
            answered = model.codes[Code.OK]
            good.add_metric(key, answered)
            bad.add_metric(key, sum(model.codes.values()) - answered)
            took.add_metric(key, count_value=model.request_seconds.count, sum_value=model.request_seconds.sum)
        yield from (good, bad, took)
