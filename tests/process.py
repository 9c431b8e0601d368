"""A server of ours as a real process: started, asked for its metrics, signalled, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import plain_http

ROOT = Path(__file__).parent.parent
ANY_PORT = "127.0.0.1:0"
SECONDS = 60.0  # for whatever takes a moment on an idle machine

# Whoever runs the tests may have set it; most who run a server have not.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = SECONDS) -> T:
    """The first value of `condition` that is true. Fails when there is none in time."""
    start = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - start
        assert waited < seconds, f"still {value!r} after {seconds:.0f} s"
        time.sleep(max(0.01, waited / 20))  # to be asked takes time of whoever is waited for
    return value


class Process:
    """`python -m ARGUMENTS`, its output in files of `folder`. On leaving the context it is killed, if it still runs."""

    def __init__(self, *arguments: str | Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [sys.executable, "-m", *map(str, arguments)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, env=_ENVIRONMENT)

    @property
    def printed(self) -> str:
        """All of its standard output."""
        return self._out.read_text("utf-8")

    @property
    def complained(self) -> str:
        """All of its standard error."""
        return self._err.read_text("utf-8")

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit status, once it has ended by itself."""
        return self._process.wait(seconds)

    @property
    def id(self) -> int:
        """The operating system's name for it."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def children(self) -> list[int]:
        """The ids of its own processes."""
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                parent = re.search(r"^PPid:\t(\d+)$", status.read_text(), re.MULTILINE)
            except OSError:
                continue
            if parent and int(parent[1]) == self._process.pid:
                found.append(int(status.parent.name))
        return found

    def kill(self) -> None:
        """Ends it as a lost machine would: without a word."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def says(self, pattern: str) -> re.Match[str]:
        """The first match in its standard output, as soon as it is there. Fails when the process ends before."""

        def match() -> re.Match[str] | None:
            running = self._process.poll() is None
            found = re.search(pattern, self.printed, re.MULTILINE)
            assert found or running, f"it ended without {pattern!r}:\n{self.printed}\n{self.complained}"
            return found

        found = until(match)
        assert found
        return found


class Router(Process):
    """`croupier serve CONFIG`, as it is shipped."""

    def __init__(self, config: Path, folder: Path | None = None) -> None:
        super().__init__("tests.shipped", "router", "serve", config, folder=folder or config.parent)

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return self.says(r"^serving .* on (\S+:\d+) \(gRPC and REST\)")[1]

    @property
    def admin(self) -> str:
        """HOST:PORT for operators."""
        return self.says(r"metrics on http://(\S+:\d+)/metrics$")[1]

    def metrics_text(self) -> str:
        return plain_http.get(f"http://{self.admin}/metrics").raise_for_status().text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that carry these labels; 0 when there is none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.metrics_text())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class Runtime(Process):
    """`croupier runtime MODELS`."""

    def __init__(self, models: Path, folder: Path, *arguments: str, port: int = 0) -> None:
        super().__init__("runtime", models, "--port", str(port), *arguments, folder=folder)

    @property
    def welcome(self) -> str:
        """The line that it prints once it serves."""
        return self.says(r"^serving .*")[0]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.says(r"^serving .* on (\S+:\d+),")[1]


def write_config(folder: Path, routes: Mapping[str, Any], **settings: Any) -> Path:
    """Writes `folder/croupier.yaml`: these routes and settings, on any free ports, ended at once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "croupier.yaml"
    plain = {"listen": ANY_PORT, "admin": ANY_PORT, "linger_seconds": 0}
    text = yaml.safe_dump({**plain, **settings, "routes": routes}, sort_keys=False)
    partial = folder / "croupier.yaml.partial"
    partial.write_text(text, "utf-8")
    partial.replace(path)
    return path
