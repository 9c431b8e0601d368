"""The service that the demo talks to: the router, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 60.0


def serve_command(config: Path) -> list[str]:
    """The command line that serves a configuration."""
    return [sys.executable, "-m", "router", "serve", str(config)]


@contextmanager
def served(config: Path, log: Path) -> Iterator[str]:
    """Serves a configuration in a process, its output in `log`; gives the address for clients.

    Raises RuntimeError with the end of the log when the server does not start.
    """
    with log.open("wb") as output, subprocess.Popen(serve_command(config), stdout=output, stderr=output) as process:
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGINT)  # which waits for no load balancer


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        match = re.search(r"^serving .* on (\S+:\d+) ", log.read_text("utf-8", "replace"), re.MULTILINE)
        if match:
            return match[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start; the end of {log}:\n{log.read_text('utf-8', 'replace')[-2000:]}")
