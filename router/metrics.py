"""What Prometheus sees of the router. Labels are names from the configuration, never what a client sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from protos.errors import Code
from protos.metrics import Counts, Histograms

BUCKETS = (
    *(1e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7.5e-3),
    *(1e-2, 2e-2, 3e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
"""Seconds; from 100 us, because a small model in this process answers in less than a millisecond."""


SECONDS = "croupier_request_seconds"
"""The time that arms took."""


class Metrics:
    """The router's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        arm = ("route", "arm")
        self.requests = Counts(
            "croupier_requests", "Inference requests answered, by gRPC status.", (*arm, "code"), registry
        )
        self.unknown_routes = Counter(
            "croupier_unknown_route_requests", "Requests for routes that there are not.", registry=registry
        )
        self.seconds = Histograms(SECONDS, "Time an arm took to answer.", arm, BUCKETS, registry)
        self.decisions = Counter("croupier_decisions", "Decisions committed to the store.", arm, registry=registry)
        self.rewards = Counter("croupier_rewards", "Rewards taken by this process.", arm, registry=registry)
        self.mean_reward = Gauge(
            "croupier_mean_reward", "Mean reward over all replicas, in the route's own range.", arm, registry=registry
        )
        metric = (*arm, "metric", "unit")
        self.metric_known = Gauge(
            "croupier_metric_known", "Decisions whose business metric is known.", metric, registry=registry
        )
        self.metric_sum = Gauge(
            "croupier_metric_sum", "Sum of a business metric over all replicas, in its unit.", metric, registry=registry
        )
        self.metric_mean = Gauge("croupier_metric_mean", "Its mean.", metric, registry=registry)
        self.probability = Gauge(
            "croupier_arm_probability", "Probability of the arm; 0 when it is left out.", arm, registry=registry
        )
        self.learner_lag = Gauge(
            "croupier_learner_lag_seconds", "Age of the oldest decision not yet committed.", registry=registry
        )
        self.waiting = Gauge("croupier_decisions_waiting", "Decisions not yet committed.", registry=registry)
        self.dropped = Counter(
            "croupier_decisions_dropped", "Decisions given up because the store was away too long.", registry=registry
        )
        self.defaults = Counter(
            "croupier_default_rewards", "Rewards that silence meant, counted by this process.", registry=registry
        )
        self.store_errors = Counter("croupier_store_errors", "Calls to the store that failed.", registry=registry)
        self.store_away = Gauge(
            "croupier_store_away_seconds", "Time for which the store has not answered.", registry=registry
        )
        self.shadows = Counter(
            "croupier_shadow_requests", "Copies for shadow arms, by outcome.", (*arm, "outcome"), registry=registry
        )
        self.shadow_seconds = Histogram(
            "croupier_shadow_seconds", "Time a shadow arm took to answer.", arm, registry=registry, buckets=BUCKETS
        )
        self.shadow_difference = Summary(
            "croupier_shadow_difference",
            "Mean absolute difference between a shadow arm's numbers and those given.",
            arm,
            registry=registry,
        )
        self.left_out = Counter(
            "croupier_targets_left_out",
            "Times that a target was left out because others of its arm do better.",
            ("target",),
            registry=registry,
        )
        self.reloads = Counter("croupier_reloads", "Configurations read, by outcome.", ("outcome",), registry=registry)


class ArmMetrics:
    """What the calls to one arm of a route come to, as Prometheus sees it: their time, and how they ended."""

    __slots__ = ("_labels", "_ok", "_requests", "_seconds")

    def __init__(self, metrics: Metrics, route: str, arm: str) -> None:
        self._labels = route, arm
        self._requests = metrics.requests
        self._seconds = metrics.seconds.labels(route, arm)
        self._ok = self._requests.labels(route, arm, Code.OK.name)
        self._requests.labels(route, arm, Code.INTERNAL.name)  # 0 until then, so that its rate is one from the first

    def answered(self, code: Code, seconds: float) -> None:
        """A call has ended with this status, after so many seconds."""
        self._seconds.observe(seconds)
        count = self._ok if code is Code.OK else self._requests.labels(*self._labels, code.name)
        count.value += 1
