"""Whether the store answers: for how long it has not, whether to wait for it, and when it is asked again."""

from __future__ import annotations

import asyncio

HOLD_SECONDS = 1.0
"""For which clients wait for a store that is away; then they are told at once."""

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0


class Outage:
    """Keeps the time of the running event loop."""

    def __init__(self) -> None:
        self._since: float | None = None  # None: the store answers
        self.retry_seconds = FIRST_RETRY_SECONDS

    @property
    def seconds(self) -> float:
        """For how long the store has not answered; 0 while it does."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    @property
    def is_long(self) -> bool:
        """Whether there is no hope of a commit soon: a client that is kept waiting would hang up."""
        return self.seconds > HOLD_SECONDS

    def begins(self, at: float) -> None:
        """The store did not answer what it was asked at that time; it may be known already that it is away."""
        if self._since is None:
            self._since = at

    def ends(self) -> None:
        """The store has answered."""
        self._since, self.retry_seconds = None, FIRST_RETRY_SECONDS

    def lasts(self) -> None:
        """It was asked again after `retry_seconds`: the next time, that is twice as long, up to a bound."""
        self.retry_seconds = min(2.0 * self.retry_seconds, LAST_RETRY_SECONDS)
