"""How a process ends in which a user's code runs: in time, whatever that code still does."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

MOMENT = 1.0  # seconds; enough for Python to end where no thread has anything to do

_log = logging.getLogger(__name__)

_left: list[int] = []  # with which status


class Limit:
    """Ends the process where stopping takes so many seconds, and names in the log what is `unfinished` then."""

    def __init__(self, seconds: float) -> None:
        self.unfinished: Callable[[], Iterable[str]] = list
        self._seconds = seconds
        # A thread, as the code that takes so long may hold the event loop.
        self._timer = threading.Timer(seconds, self._give_up)
        self._timer.daemon = True

    def begin(self) -> None:
        """It is time to stop."""
        self._timer.start()

    def end(self) -> None:
        """All is stopped."""
        self._timer.cancel()

    def _give_up(self) -> None:
        given_up = ", ".join(map(repr, self.unfinished())) or "what is left"
        _log.error("stopping took %.0f s; given up: %s", self._seconds, given_up)
        _end(1)


def leave(status: int) -> NoReturn:
    """Ends the process, though a user's code hold a thread that Python would wait for, as that in which it loads."""
    # Python also waits for the threads of pools, which nobody can tell from those that end by themselves.
    timer = threading.Timer(MOMENT, _give_up, [status])
    timer.daemon = True
    timer.start()
    _left.append(status)
    sys.exit(status)


@atexit.register  # early, and so done late
def _at_last() -> None:
    # Behind this Python takes itself down. A daemon thread that comes back from C++ then, as from a model that somebody
    # still runs, ends the process with an abort.
    for status in _left:
        _end(status)


def _give_up(status: int) -> NoReturn:
    _log.warning("what a model's code still does is given up")
    _end(status)


def _end(status: int) -> NoReturn:
    try:
        logging.shutdown()
        sys.stdout.flush()
    finally:  # though nobody reads that any more
        os._exit(status)
