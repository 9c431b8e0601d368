"""Load on a gRPC method by h2load, from nghttp2: a cheap generator, so that the server is what is measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What h2load saw."""

    requests: int
    seconds: float
    mean_seconds: float  # of one request, as it waits among the others


def load(address: str, method: str, message: bytes, *, requests: int, clients: int = 4, streams: int = 8) -> Load:
    """Sends a message `requests` times over `clients` connections of `streams` calls each.

    h2load reads HTTP statuses only: check that the method answers before. Raises RuntimeError when h2load is missing,
    or a request failed.
    """
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is missing: apt-get install nghttp2-client")
    with tempfile.NamedTemporaryFile() as frame:
        frame.write(b"\0" + len(message).to_bytes(4, "big") + message)
        frame.flush()
        command = ["h2load", f"-n{requests}", f"-c{clients}", f"-m{streams}", "-d", frame.name]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{method}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    done = re.search(r"(\d+) succeeded", output)
    if done is None or int(done[1]) != requests:
        raise RuntimeError(f"not every request succeeded:\n{output}")
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    latency = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
    if finished is None or latency is None:
        raise RuntimeError(f"h2load's output is not understood:\n{output}")
    return Load(requests, _seconds(finished), _seconds(latency))


def _seconds(match: re.Match[str]) -> float:
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]
