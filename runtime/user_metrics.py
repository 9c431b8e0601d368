"""The metrics that users' models keep themselves: by MLServer's `register` and `log`, or by prometheus_client."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)
_OURS = ("grpc_server_", "model_infer_", "process_", "python_", "rest_server_", "runtime_")


class UserMetrics(Collector):
    """They stay until the process ends, as under MLServer. A name that begins as ours do is passed over.

    Where a collector of a user's raises, the log says so, and what would follow it in its registry is left out.
    """

    def collect(self) -> Iterator[Metric]:
        told: set[str] = set()
        theirs = sys.modules.get("mlserver.metrics")  # imported by the first model that is written for it
        for registry in (REGISTRY, *([theirs.REGISTRY] if theirs else [])):
            try:
                for metric in registry.collect():
                    if metric.name not in told and not metric.name.startswith(_OURS):
                        told.add(metric.name)
                        yield metric
            except Exception:  # noqa: BLE001 - a user's code
                _log.exception("some metrics of users' models are left out, as a collector of theirs failed")
