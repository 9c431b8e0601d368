"""A real `python -m runtime`, started and stopped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class RuntimeProcess:
    """Serves a folder until it is stopped; `address` is HOST:PORT and `said` what it printed when ready."""

    def __init__(self, models: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime", str(models), "--port", "0", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        self.errors = ""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("serving "):
                self.said = line.strip()
                break
        else:
            raise AssertionError(f"it ended with {self.process.wait()}: {self.process.communicate()[1]}")
        found = re.search(r" on (\S+:\d+),", self.said)
        assert found, self.said
        self.address = found[1]

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.terminate()

    def ended(self) -> int:
        """Waits for the end; returns the exit status."""
        self.errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
