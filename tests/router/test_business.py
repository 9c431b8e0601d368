"""Business metrics as Prometheus series: what the store's sums say, under names from the configuration alone."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry

from router.config import Arm, Metric, Route
from router.learning.credit import metric_layout
from router.learning.gauges import show_means
from router.metrics import Metrics

SETTINGS = Route(
    arms={"a": Arm(model="a"), "b": Arm(model="b")}, metrics={"pnl": Metric(unit="GBP"), "minutes": Metric(unit="min")}
)


def test_totals_means_and_how_many_they_are_of():
    registry = CollectorRegistry()
    sums = {
        (metric_layout("pnl"), "a"): np.array([4.0, -10.0, 90.0]),
        (metric_layout("pnl"), "gone"): np.array([1.0, 1.0, 1.0]),
        (metric_layout("dropped"), "a"): np.array([1.0, 1.0, 1.0]),
        (metric_layout("minutes"), "b"): np.array([0.0, 0.0, 0.0]),
    }
    show_means(Metrics(registry), "credit", SETTINGS, sums)
    shown = {
        (sample.name, sample.labels["arm"], sample.labels["metric"], sample.labels["unit"]): sample.value
        for family in registry.collect()
        if family.name.startswith("croupier_metric_")
        for sample in family.samples
    }
    assert shown == {
        ("croupier_metric_known", "a", "pnl", "GBP"): 4.0,
        ("croupier_metric_sum", "a", "pnl", "GBP"): -10.0,
        ("croupier_metric_mean", "a", "pnl", "GBP"): -2.5,
    }
