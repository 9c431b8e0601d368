"""Where does a request's time go? Python instructions by function: a figure that no busy machine can change.

Most of what our servers do for a request is Python, at 20 to 30 ns an instruction in a process that answers others at
the same time. A server is started, h2load sends it requests, and every instruction is counted where it runs, in all of
its threads. What C and Rust do inside a call is not seen: `overhead` and `hop` time the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import hop
from benchmarks.h2load import load
from benchmarks.process import PYTHON, Target
from benchmarks.targets import METHOD, check, message, our_full_router, our_router, our_runtime

ROOT = Path(__file__).parents[1]
SHOWN = 40
SECONDS = 30  # that the counts may take to be written


class Count:
    """Counts instructions and calls by function, in every thread, from the first signal to the second."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._on = False
        self._instructions: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    def install(self) -> None:
        """Has SIGUSR1 begin and SIGUSR2 end; threads that are there already, other than the main one, are not seen."""
        threading.settrace(self._trace)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, *_: object) -> None:
        self._on = True
        sys.settrace(self._trace)

    def _end(self, *_: object) -> None:
        self._on = False
        sys.settrace(None)
        written = self._out.with_suffix(".part")
        written.write_text(json.dumps({"instructions": self._instructions, "calls": self._calls}))
        written.rename(self._out)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not self._on:
            return None
        code = frame.f_code
        place = f"{code.co_filename}:{code.co_qualname}"
        if event == "call":
            self._calls[place] += 1
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self._instructions[place] += 1
        return self._trace


@contextmanager
def remote_router(folder: Path, python: Sequence[str]) -> Iterator[Target]:
    """`croupier serve` in front of an echo, as in `hop`."""
    (folder / "echo").mkdir()
    with hop.echo(folder / "echo") as behind, hop.router(folder, behind.address, python=python) as target:
        yield target


SERVERS: dict[str, Callable[[Path, Sequence[str]], AbstractContextManager[Target]]] = {
    "runtime": our_runtime,
    "router": our_router,
    "full": our_full_router,
    "hop": remote_router,
}


def measure(name: str, requests: int) -> dict[str, dict[str, float]]:
    """Instructions and calls a request of each function, those with most first."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = folder / "counts.json"
        counted = (*PYTHON, "-m", "benchmarks.instructions", "--inside", str(out))
        target = stack.enter_context(SERVERS[name](folder, counted))
        check(target, message())
        load(target.address, METHOD, message(), requests=2 * requests)
        target.process.signal(signal.SIGUSR1)
        load(target.address, METHOD, message(), requests=requests)
        time.sleep(1.0)  # what is done behind the requests ends
        target.process.signal(signal.SIGUSR2)
        end = time.monotonic() + SECONDS
        while not out.exists():
            if time.monotonic() > end:
                raise RuntimeError("the server has written no counts")
            time.sleep(0.05)
        seen = json.loads(out.read_text())
    ranked = sorted(seen["instructions"].items(), key=lambda each: -each[1])
    return {
        _short(place): {"instructions": n / requests, "calls": seen["calls"].get(place, 0) / requests}
        for place, n in ranked
    }


def _short(place: str) -> str:
    path, _, function = place.rpartition(":")
    return f"{path.removeprefix(f'{ROOT}{os.sep}').rpartition('site-packages' + os.sep)[2]}:{function}"


def main() -> int:
    """Prints the functions that cost a request most."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("server", nargs="?", choices=SERVERS, help="one of them; all, where none is named")
    parser.add_argument("--quick", action="store_true", help="few requests")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        out, _, module, *rest = arguments.inside
        Count(Path(out)).install()
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    names = [arguments.server] if arguments.server else list(SERVERS)
    figures = {name: measure(name, 300 if arguments.quick else 2000) for name in names}
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, rows in figures.items():
        print(f"{name}: {sum(row['instructions'] for row in rows.values()):,.0f} instructions a request")
        print(f"{'instructions':>14}{'calls':>8}  function")
        for place, row in list(rows.items())[:SHOWN]:
            print(f"{row['instructions']:>14.1f}{row['calls']:>8.2f}  {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
