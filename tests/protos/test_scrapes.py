from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from protos.workers.scrapes import Scraped


def counted(model, *, calls, waiting=0, age=0.0, start=0.0):
    """What a process says that had some calls, of 1 second each."""
    registry = CollectorRegistry()
    Gauge("age_seconds", "Of the oldest call.", registry=registry).set(age)
    Gauge("waiting", "Calls.", registry=registry).set(waiting)
    Gauge("process_start_time_seconds", "When.", registry=registry).set(start)
    requests = Counter("requests", "Calls.", ["model"], registry=registry).labels(model)
    seconds = Histogram("seconds", "Of a call.", buckets=[0.5, 2], registry=registry)
    for _ in range(calls):
        requests.inc()
        seconds.observe(1)
    return generate_latest(registry)


def samples(scraped, *, created=False):
    families = text_string_to_metric_families(scraped.text().decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.endswith("_created") is created
    }


def test_processes_are_added_up_but_for_what_has_no_sum():
    first = counted("a", calls=2, waiting=1, age=3, start=10)
    second = counted("b", calls=3, waiting=4, age=-2, start=20)
    told = samples(Scraped.of(first, second, greatest=["age_seconds"]))
    assert told == {
        ("age_seconds",): 3,
        ("waiting",): 5,
        ("process_start_time_seconds",): 20,
        ("requests_total", "a"): 2,
        ("requests_total", "b"): 3,
        ("seconds_bucket", "0.5"): 0,
        ("seconds_bucket", "2.0"): 5,
        ("seconds_bucket", "+Inf"): 5,
        ("seconds_count",): 5,
        ("seconds_sum",): 5,
    }


def test_what_a_process_had_counted_outlives_it_in_series_that_are_still_there():
    scraped = Scraped.of(counted("a", calls=1, waiting=1))
    scraped.add_counts(Scraped.of(counted("a", calls=4, waiting=7), counted("unloaded", calls=9)))
    told = samples(scraped)
    assert told["requests_total", "a"] == 5
    assert told["seconds_count",] == 14
    assert told["waiting",] == 1
    assert ("requests_total", "unloaded") not in told


def test_of_gauges_that_are_not_added_up_the_greatest_may_be_below_zero():
    assert samples(Scraped.of(counted("a", calls=0, age=-2), greatest=["age_seconds"]))["age_seconds",] == -2


def test_counting_began_when_the_first_process_began(monkeypatch):
    monkeypatch.setattr("prometheus_client.metrics._use_created", True)  # a router that ran here has switched it off
    texts = [counted("a", calls=1) for _ in range(2)]
    together = samples(Scraped.of(*texts), created=True)
    first, second = (samples(Scraped.of(text), created=True) for text in texts)
    assert together == {key: min(first[key], second[key]) for key in first}
    assert len(together) == 2
