from __future__ import annotations

import sys
from types import SimpleNamespace

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from runtime import user_metrics
from runtime.user_metrics import UserMetrics


def test_a_collector_that_fails_takes_nothing_along_that_is_not_its_own(monkeypatch, caplog):
    def fails():
        raise ConnectionError("their database is down")

    ours, plain, theirs = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    Counter("runtime_loads", "Loads.", registry=ours).inc()
    Counter("asked", "Requests.", registry=plain).inc(2)
    Gauge("pending", "Rows.", registry=plain).set_function(fails)
    Counter("seen", "Requests.", registry=theirs).inc(3)
    monkeypatch.setattr(user_metrics, "REGISTRY", plain)
    monkeypatch.setitem(sys.modules, "mlserver.metrics", SimpleNamespace(REGISTRY=theirs))
    ours.register(UserMetrics())
    text = generate_latest(ours).decode()
    assert "runtime_loads_total 1.0" in text
    assert "asked_total 2.0" in text
    assert "seen_total 3.0" in text
    assert "pending" not in text
    assert "their database is down" in caplog.text
