"""A real Redis in a process of its own, on a free port of the loopback: started, killed, started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.process import until

PROGRAM = shutil.which("redis-server")


def free_port() -> int:
    """Redis cannot be asked which port it got, so it must be told one: free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class RedisServer:
    """Keeps an append-only file in `folder`, unless told otherwise by `settings`. Leaving the context kills it.

    What it acknowledges is on the disk: with Redis's default, the last of it may be lost when it is killed.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        file = {"appendonly": "yes", "appendfsync": "always", "save": ""}
        self._settings = file | {"bind": "127.0.0.1", "protected-mode": "no"} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it answers, with all that is in its file."""
        assert PROGRAM, "redis-server is not installed"
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {"port": str(self.port), "dir": str(self._folder)} | self._settings
        command = [PROGRAM, *(part for name, value in settings.items() for part in (f"--{name}", value))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers)

    def kill(self) -> None:
        """Ends it as a lost machine would: without a word."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Nothing is answered, and connections stay, as when the network between is cut."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
