"""What /metrics says about the GPUs that models lie on. Nothing, and at no cost, where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PERCENT = 100.0


class Devices(Collector):
    """The GPUs that PyTorch uses in this process, as a collector of a registry."""

    def collect(self) -> Iterator[Metric]:
        """Memory and use of each; those on which nothing lies are left alone, as asking would take memory there."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        used = GaugeMetricFamily("runtime_gpu_memory_used_bytes", "By all processes on the GPU.", labels=["device"])
        total = GaugeMetricFamily("runtime_gpu_memory_total_bytes", "That the GPU has.", labels=["device"])
        ours = GaugeMetricFamily("runtime_gpu_memory_reserved_bytes", "By PyTorch in this process.", labels=["device"])
        busy = GaugeMetricFamily("runtime_gpu_utilisation_ratio", "Part of the last second in use.", labels=["device"])
        for device in range(torch.cuda.device_count()):
            reserved = torch.cuda.memory_reserved(device)
            if not reserved:
                continue
            labels = [f"cuda:{device}"]
            free, there = torch.cuda.mem_get_info(device)
            used.add_metric(labels, there - free)
            total.add_metric(labels, there)
            ours.add_metric(labels, reserved)
            with suppress(ImportError, RuntimeError):  # only nvidia-ml can tell, which need not be installed
                busy.add_metric(labels, torch.cuda.utilization(device) / _PERCENT)
        yield from (used, total, ours, busy)
