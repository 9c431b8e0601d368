"""The metrics that users' models keep themselves: one that is bad hides no other."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from protos import metrics
from protos.metrics import text_of
from protos.workers.scrapes import Scraped
from runtime import user_metrics
from runtime.user_metrics import UserMetrics


@pytest.fixture
def plain(monkeypatch):
    """The registry of prometheus_client, in which users' metrics are; nothing is said yet of any."""
    registry = CollectorRegistry()
    monkeypatch.setattr(user_metrics, "REGISTRY", registry)
    monkeypatch.setattr(metrics, "_left_out", set())
    return registry


@pytest.fixture
def ours(plain):
    """The registry of a server."""
    registry = CollectorRegistry()
    Counter("runtime_loads", "Loads.", registry=registry).inc()
    registry.register(UserMetrics())
    return registry


def told(registry, accepted=""):
    encode, _ = choose_encoder(accepted)
    return asyncio.run(text_of(registry, encode)).decode()


def test_a_collector_that_fails_takes_no_other_along(plain, ours, monkeypatch, caplog):
    def fails():
        raise ConnectionError("their database is down")

    class Half(Collector):
        def collect(self):
            yield GaugeMetricFamily("first", "Of two.", 1)
            fails()

    theirs = CollectorRegistry()
    Gauge("pending", "Rows.", registry=plain).set_function(fails)
    plain.register(Half())
    Counter("asked", "Requests.", registry=plain).inc(2)
    Counter("seen", "Requests.", registry=theirs).inc(3)
    monkeypatch.setitem(sys.modules, "mlserver.metrics", SimpleNamespace(REGISTRY=theirs))
    for _ in range(2):
        text = told(ours)
        for line in ("runtime_loads_total 1.0", "asked_total 2.0", "seen_total 3.0", "first 1.0"):
            assert line in text
        assert "pending" not in text
    assert [(each.levelname, each.args[0]) for each in caplog.records] == [("WARNING", "pending"), ("WARNING", "Half")]
    assert "their database is down" in caplog.text


@pytest.mark.parametrize("accepted", ["", "application/openmetrics-text; version=1.0.0"])
@pytest.mark.parametrize(("labels", "value"), [({}, "many"), ({"model": 7}, 1), ({"model": "\ud800"}, 1)])
def test_a_metric_that_cannot_be_written_takes_no_other_along(plain, ours, caplog, accepted, labels, value):
    class Bad(Collector):
        def collect(self):
            family = GaugeMetricFamily("bad", "Not a number, or not a text.")
            for _ in range(100):
                family.add_sample("bad", labels, value)
            yield family

    plain.register(Bad())
    Counter("asked", "Requests.", registry=plain).inc(2)
    for _ in range(2):
        text = told(ours, accepted)
        assert "runtime_loads_total 1.0" in text
        assert "asked_total 2.0" in text
        assert "bad" not in text
    assert caplog.messages == ["metric 'bad' is left out of what is told, as that failed"]
    assert len(caplog.text) < 5000  # though it has many samples


def test_what_one_process_cannot_read_of_another_takes_nothing_else_along(plain, ours, caplog):
    class Reserved(Collector):
        def collect(self):
            family = GaugeMetricFamily("bad", "A label that only Prometheus itself may give.")
            family.add_sample("bad", {"__a": "b"}, 1)
            yield family

    plain.register(Reserved())
    Counter("asked", "Requests.", registry=plain).inc(2)
    text = generate_latest(ours)
    together = Scraped.of(text, text).text().decode()
    assert "runtime_loads_total 2.0" in together
    assert "asked_total 4.0" in together
    assert "bad" not in together
    assert caplog.messages == ["metric 'bad' is left out of what is told, as that failed"]
