"""The metrics that users' models keep themselves: by MLServer's `register` and `log`, or by prometheus_client."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from protos.metrics import leave_out

_OURS = ("grpc_server_", "model_infer_", "process_", "python_", "rest_server_", "runtime_")


class UserMetrics(Collector):
    """They stay until the process ends, as under MLServer. A name that begins as ours do is passed over.

    Where a collector of a user's raises, the log says so once, and the rest is told.
    """

    def collect(self) -> Iterator[Metric]:
        told: set[str] = set()
        theirs = sys.modules.get("mlserver.metrics")  # imported by the first model that is written for it
        for registry in (REGISTRY, *([theirs.REGISTRY] if theirs else [])):
            # `registry.collect` ends with the first that raises.
            for collector, names in list(registry._collector_to_names.items()):  # noqa: SLF001 - see above
                try:
                    for metric in collector.collect():
                        if metric.name not in told and not metric.name.startswith(_OURS):
                            told.add(metric.name)
                            yield metric
                except Exception as error:  # noqa: BLE001 - a user's code
                    leave_out(names[0] if names else type(collector).__name__, error)
