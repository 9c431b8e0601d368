"""Which threads of a process go first where they share a core. Linux alone is asked; where it refuses, all are equal.

The HTTP server's threads are woken for each answer. Beside quick work they wait for its end: to cut it in two costs up
to a tenth of it. A thread that computes for milliseconds they interrupt at once: behind it wait requests, and refusals.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

_HTTP = "tokio"  # h2corn's, by their name
_TASKS = Path("/proc/self/task")

_computing: set[int] = set()


def computes(niceness: int) -> None:
    """From now on, others go first before this thread, the event loop's above all: it computes for long."""
    thread = threading.get_native_id()
    _computing.add(thread)
    # Else what takes microseconds, a refusal or a quick model, waits for the ends of a slow model's time slices. Only
    # on Linux are priorities a thread's own.
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
    order_http_threads()


def ends() -> None:
    """The thread, which is at its end, computes no more."""
    _computing.discard(threading.get_native_id())
    order_http_threads()


def order_http_threads() -> None:
    """Has those that run now interrupt others, or not, by what there is to interrupt. They take an idle core anyhow."""
    if sys.platform != "linux":
        return
    policy = os.SCHED_OTHER if _computing else os.SCHED_BATCH
    for thread in _TASKS.iterdir():
        with suppress(OSError):  # it has ended, or a sandbox does not let us
            if (thread / "comm").read_text().startswith(_HTTP):
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
