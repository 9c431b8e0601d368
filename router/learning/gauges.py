"""What is known of routes, and of the learning itself, as Prometheus series: sums are those of all replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from router.call import REWARD, Vector
from router.config import Route as Settings
from router.learning.credit import metric_layout
from router.metrics import Metrics
from router.route import Route


def show_means(metrics: Metrics, route: str, settings: Settings, sums: Mapping[tuple[str, str], Vector]) -> None:
    """Sets what a route's arms earned, and its business metrics, from its sums by (layout, arm).

    What nobody has reported has no series yet.
    """
    for arm in settings.arms:
        n, total, _ = sums.get((REWARD, arm), np.zeros(3))
        if n:
            metrics.mean_reward.labels(route, arm).set(total / n)
    for name, about in settings.metrics.items():
        for arm in settings.arms:
            row = sums.get((metric_layout(name), arm))
            if row is None or not row[0] > 0.0:
                continue
            labels = route, arm, name, about.unit
            metrics.metric_known.labels(*labels).set(row[0])
            metrics.metric_sum.labels(*labels).set(row[1])
            metrics.metric_mean.labels(*labels).set(row[1] / row[0])


def show_probabilities(metrics: Metrics, routes: Iterable[Route]) -> None:
    """Sets how often the arms are drawn; 0 where none may be. Routes that read contexts have no such number."""
    metrics.probability.clear()  # of arms that are gone since a reload
    for route in routes:
        if (chances := route.probabilities()) is not None:
            for arm, p in zip(route.arms, chances, strict=True):
                metrics.probability.labels(route.name, arm.name).set(p)


def show_lag(metrics: Metrics, *, waiting: int, seconds: float, store_away: float) -> None:
    """Sets how many decisions wait, for how long the oldest one has, and for how long the store has been away."""
    metrics.waiting.set(waiting)
    metrics.learner_lag.set(seconds)
    metrics.store_away.set(store_away)
