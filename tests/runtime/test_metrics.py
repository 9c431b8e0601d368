from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from protos.errors import Code
from runtime.devices import Devices
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


def test_mlservers_names_say_the_same():
    registry = CollectorRegistry()
    model = Metrics(registry).of("m", "1")
    model.answered(Code.OK, 0.25)
    model.answered(Code.OK, 0.5)
    model.answered(Code.INTERNAL, 0.125)
    model.answered(Code.DEADLINE_EXCEEDED, 0.125)
    found = samples(registry)
    labels = (("model", "m"), ("version", "1"))
    assert found["model_infer_request_success_total", *labels] == 2
    assert found["model_infer_request_failure_total", *labels] == 2
    assert found["model_infer_request_duration_count", *labels] == 4
    assert found["model_infer_request_duration_sum", *labels] == 1


def test_what_is_loaded_and_how_large_it_is():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.of("served", "").begins(1000, 0.5)
    metrics.of("untold", "").begins(0, 1.5)
    metrics.of("loading", "")
    found = samples(registry)
    loaded = {key[1][1]: value for key, value in found.items() if key[0] == "runtime_model_loaded"}
    memory = {key[1][1]: value for key, value in found.items() if key[0] == "runtime_model_memory_bytes"}
    assert loaded == {"served": 1, "untold": 1, "loading": 0}
    assert memory == {"served": 1000}
    seconds = {key[1][1]: value for key, value in found.items() if key[0] == "runtime_model_load_seconds"}
    assert seconds == {"served": 0.5, "untold": 1.5}


def test_a_reload_goes_on_counting_and_an_unload_ends_the_series():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.of("m", "").answered(Code.OK, 0)
    metrics.of("m", "").answered(Code.OK, 0)
    assert samples(registry)["runtime_requests_total", ("code", "OK"), ("model", "m"), ("version", "")] == 2
    metrics.forget("m", "")
    assert not any(("model", "m") in labels for _, *labels in samples(registry))


class Cuda:
    """What PyTorch says of two GPUs, a model on the second."""

    def __init__(self, *, initialised=True, utilisation=25):
        self._initialised = initialised
        self._utilisation = utilisation

    def is_initialized(self):
        return self._initialised

    def device_count(self):
        return 2

    def memory_reserved(self, device):
        return [0, 300][device]

    def mem_get_info(self, device):
        assert device == 1, "asking would make a context on an idle GPU"
        return 600, 1000

    def utilization(self, device):
        if self._utilisation is None:
            raise ModuleNotFoundError("pynvml")
        return self._utilisation


def scraped_devices(monkeypatch, cuda):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    registry = CollectorRegistry()
    registry.register(Devices())
    return {name.removeprefix("runtime_gpu_"): (*labels, value) for (name, *labels), value in samples(registry).items()}


def test_the_gpu_that_models_lie_on_is_told():
    with pytest.MonkeyPatch.context() as patch:
        told = scraped_devices(patch, Cuda())
        untold = scraped_devices(patch, Cuda(utilisation=None))
        none = scraped_devices(patch, Cuda(initialised=False))
    where = ("device", "cuda:1")
    assert told == {
        "memory_used_bytes": (where, 400),
        "memory_total_bytes": (where, 1000),
        "memory_reserved_bytes": (where, 300),
        "utilisation_ratio": (where, 0.25),
    }
    assert untold.keys() == told.keys() - {"utilisation_ratio"}
    assert none == {}


@pytest.mark.parametrize("torch", [SimpleNamespace(), SimpleNamespace(cuda=SimpleNamespace())])
def test_pytorch_is_left_alone_while_another_thread_imports_it(monkeypatch, torch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    registry = CollectorRegistry()
    registry.register(Devices())
    assert samples(registry) == {}


@pytest.mark.gpu
def test_a_real_gpu_is_told():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weight = torch.zeros(1 << 20, device="cuda:0")
    registry = CollectorRegistry()
    registry.register(Devices())
    found = samples(registry)
    reserved = found["runtime_gpu_memory_reserved_bytes", ("device", "cuda:0")]
    used = found["runtime_gpu_memory_used_bytes", ("device", "cuda:0")]
    assert weight.nbytes <= reserved <= used <= found["runtime_gpu_memory_total_bytes", ("device", "cuda:0")]
