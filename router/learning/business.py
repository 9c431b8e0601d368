"""The business metrics of a route as Prometheus series: what clients reported, over all replicas."""

from __future__ import annotations

from collections.abc import Mapping

from router.call import Vector
from router.config import Route as Settings
from router.learning.credit import metric_layout
from router.metrics import Metrics


def show_metrics(metrics: Metrics, route: str, settings: Settings, sums: Mapping[tuple[str, str], Vector]) -> None:
    """Sets the series of a route from its sums, by (layout, arm). What nobody has reported has no series yet."""
    for name, about in settings.metrics.items():
        for arm in settings.arms:
            row = sums.get((metric_layout(name), arm))
            if row is None or not row[0] > 0.0:
                continue
            labels = route, arm, name, about.unit
            metrics.metric_known.labels(*labels).set(row[0])
            metrics.metric_sum.labels(*labels).set(row[1])
            metrics.metric_mean.labels(*labels).set(row[1] / row[0])
