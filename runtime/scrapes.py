"""What of a runtime's metrics is not added up where several processes count."""

from __future__ import annotations

GREATEST = frozenset(
    {
        "runtime_gpu_memory_total_bytes",
        "runtime_gpu_memory_used_bytes",
        "runtime_gpu_utilisation_ratio",
        "runtime_model_load_seconds",
    }
)
"""Of these gauges every process says the same, or there is no sense in a sum: the greatest counts."""
