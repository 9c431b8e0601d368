"""The GPUs that models lie on: what /metrics says about them, and those that are lost to this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PERCENT = 100.0

lost: dict[str, str] = {}
"""Devices that do nothing more for this process, and why. Only a process that is started anew can use them."""


class Devices(Collector):
    """The GPUs that PyTorch uses in this process, as a collector of a registry. Nothing, at no cost, without one."""

    def collect(self) -> Iterator[Metric]:
        """Memory and use of each; those on which nothing lies are left alone, as asking would take memory there."""
        cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
        if not hasattr(cuda, "is_initialized") or not cuda.is_initialized():  # another thread may just import it
            return
        used = GaugeMetricFamily("runtime_gpu_memory_used_bytes", "By all processes on the GPU.", labels=["device"])
        total = GaugeMetricFamily("runtime_gpu_memory_total_bytes", "That the GPU has.", labels=["device"])
        ours = GaugeMetricFamily(
            "runtime_gpu_memory_reserved_bytes", "By PyTorch in all processes of this server.", labels=["device"]
        )
        busy = GaugeMetricFamily("runtime_gpu_utilisation_ratio", "Part of the last second in use.", labels=["device"])
        for device in range(cuda.device_count()):
            reserved = cuda.memory_reserved(device)
            if not reserved:
                continue
            labels = [f"cuda:{device}"]
            ours.add_metric(labels, reserved)
            # A GPU that is lost tells nothing, and nvidia-ml, which need not be installed, has errors of its own.
            with suppress(Exception):
                free, there = cuda.mem_get_info(device)
                used.add_metric(labels, there - free)
                total.add_metric(labels, there)
            with suppress(Exception):
                busy.add_metric(labels, cuda.utilization(device) / _PERCENT)
        yield from (used, total, ours, busy)
