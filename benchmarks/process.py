"""A server process under measurement: started, asked for its CPU time, stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = (sys.executable,)
"""The command that runs our modules."""

_SCHEDULED = 2  # with a process's number, Linux's name for the clock of its CPU time, which counts nanoseconds


class Server:
    """A running server and its children."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and everything it started."""
        return sum(_cpu_seconds(pid) for pid in _tree(self._process.pid))

    def memory_bytes(self) -> int:
        """What the processes hold in memory now, pages that they share counted once for each."""
        return sum(_status(pid, "VmRSS") for pid in _tree(self._process.pid)) * 1024

    def open_files(self) -> int:
        """Their file handles, sockets among them."""
        return sum(1 for pid in _tree(self._process.pid) for _ in Path(f"/proc/{pid}/fd").iterdir())

    def threads(self) -> int:
        """Their threads."""
        return sum(_status(pid, "Threads") for pid in _tree(self._process.pid))

    def signal(self, number: int) -> None:
        """Sends a signal to the process that was started."""
        self._process.send_signal(number)

    def pin(self, cores: set[int]) -> None:
        """Keeps every thread of the processes to these cores, and those that they will start."""
        for pid in _tree(self._process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """The first match in what the server printed. Raises RuntimeError with the end of it when there is none."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            match = re.search(pattern, self._log.read_text("utf-8", "replace"), re.MULTILINE)
            if match:
                return match
            time.sleep(0.05)
        raise RuntimeError(f"{self._process.args!r} printed no {pattern!r}:\n{self._log.read_text()[-2000:]}")


@dataclass(frozen=True)
class Target:
    """A server that answers requests."""

    name: str
    address: str
    process: Server


@contextmanager
def server(
    command: Sequence[str], log: Path, *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Runs a command, its output in `log`, and stops it at the end."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            list(command),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        ) as process,
    ):
        try:
            yield Server(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port nobody listens on, for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(found for file in children for child in file.read_text().split() for found in _tree(int(child)))]


def _cpu_seconds(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def _status(pid: int, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
