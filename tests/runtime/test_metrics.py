from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from protos.errors import Code
from runtime.metrics import Metrics


def samples(registry):
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_the_numbers_of_a_model_are_scraped():
    registry = CollectorRegistry()
    model = Metrics(registry).of("m", "1")
    model.in_flight = 2
    model.answered(Code.OK, 0.0003)
    model.answered(Code.OK, 7)
    model.answered(Code.RESOURCE_EXHAUSTED, 0)
    model.queue_seconds.observe(0.01)
    model.ran(4, 0.002)
    found = samples(registry)
    labels = (("model", "m"), ("version", "1"))
    assert found["runtime_requests_in_flight", *labels] == 2
    assert found["runtime_requests_total", ("code", "OK"), *labels] == 2
    assert found["runtime_requests_total", ("code", "RESOURCE_EXHAUSTED"), *labels] == 1
    assert found["runtime_request_seconds_bucket", ("le", "0.0001"), *labels] == 1
    assert found["runtime_request_seconds_bucket", ("le", "0.0002"), *labels] == 1
    assert found["runtime_request_seconds_bucket", ("le", "0.0005"), *labels] == 2
    assert found["runtime_request_seconds_bucket", ("le", "+Inf"), *labels] == 3
    assert found["runtime_request_seconds_count", *labels] == 3
    assert found["runtime_request_seconds_sum", *labels] == 7.0003
    assert found["runtime_queue_seconds_bucket", ("le", "0.01"), *labels] == 1
    assert found["runtime_run_seconds_count", *labels] == 1
    assert found["runtime_rows_sum", *labels] == 4


def test_a_reload_goes_on_counting_and_an_unload_ends_the_series():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.of("m", "").answered(Code.OK, 0)
    metrics.of("m", "").answered(Code.OK, 0)
    assert samples(registry)["runtime_requests_total", ("code", "OK"), ("model", "m"), ("version", "")] == 2
    metrics.forget("m", "")
    assert samples(registry) == {("runtime_unknown_model_requests_total",): 0}
