"""How a process ends in which a user's code runs: in time, whatever that code still does."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

MOMENT = 0.5  # seconds; enough for a thread that has nothing to do

_log = logging.getLogger(__name__)


class Limit:
    """Ends the process where stopping takes so many seconds, and names in the log what is `unfinished` then."""

    def __init__(self, seconds: float, unfinished: Callable[[], Iterable[str]]) -> None:
        self._seconds = seconds
        self._unfinished = unfinished
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
        given_up = ", ".join(map(repr, self._unfinished())) or "what is left"
        _log.error("stopping took %.0f s; given up: %s", self._seconds, given_up)
        _end(1)


def leave(status: int) -> NoReturn:
    """Ends the process, though a user's code hold a thread that Python would wait for: that in which it loads."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(MOMENT)
            if thread.is_alive():
                _log.warning("a model that was loading is given up")
                _end(status)
    sys.exit(status)


def _end(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
