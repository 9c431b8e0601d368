"""What a model's code forks is no server: the signals that it is sent are for itself.

It inherits the event loop's handlers and the socket on which they wake the loop, so that of the server would be woken.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

_kept: set[signal.Signals] = set()


def keep(signals: Iterable[signal.Signals]) -> None:
    """From now on these are heard here, and end what this process forks."""
    _kept.update(signals)


def _before() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _kept)  # one may come before a child is told what follows


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _kept)


def _in_child() -> None:
    if _kept:
        signal.set_wakeup_fd(-1)
    for number in _kept:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _kept)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
