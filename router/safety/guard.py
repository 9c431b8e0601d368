"""Permission: which arms may be chosen. An arm that fails is left out for a while, then probed back in."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from router.config import Guard as Settings


class _State(Enum):
    SERVING = auto()
    OUT = auto()  # until its time has come
    PROBING = auto()  # the next call drawn to it is its probe
    TRIED = auto()  # its probe is on the way; nobody else gets in


class _Arm:
    __slots__ = ("failures", "seconds", "state", "until")

    def __init__(self, seconds: float) -> None:
        self.state = _State.SERVING
        self.failures = 0  # in a row
        self.seconds = seconds  # for which it is left out next time
        self.until = 0.0


class Guard:
    """Watches the outcome of calls to the arms of one route. Written by the event loop only.

    Methods that return True have changed what is allowed. The last arm in service is never left out: its own errors
    say more than a refusal. Once an arm is left out only its probe brings it back, whatever calls from before say.
    """

    def __init__(self, settings: Settings, arms: int, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._settings = settings
        self._clock = clock
        self._arms = [_Arm(settings.seconds) for _ in range(arms)]

    def allowed(self) -> NDArray[np.bool_]:
        """The arms that may be drawn now: a new mask, one flag an arm."""
        return np.array([arm.state in (_State.SERVING, _State.PROBING) for arm in self._arms])

    def drawn(self, index: int) -> bool:
        """A call goes to this arm. True: it is the arm's probe, and nobody else gets in until its outcome is known."""
        arm = self._arms[index]
        if arm.state is not _State.PROBING:
            return False
        arm.state = _State.TRIED
        return True

    def succeeded(self, index: int, *, probe: bool) -> bool:
        """The arm answered; also with an error that is its caller's fault."""
        arm = self._arms[index]
        arm.failures = 0
        if not probe:
            return False
        arm.state = _State.SERVING
        arm.seconds = self._settings.seconds
        return True

    def failed(self, index: int, *, probe: bool) -> bool:
        """The arm did not answer, or with an error of its own."""
        arm = self._arms[index]
        arm.failures += 1
        if probe:
            arm.seconds = min(arm.seconds * 2, self._settings.longest_seconds)
        elif arm.state is not _State.SERVING or arm.failures < self._settings.failures or self._last(arm):
            return False
        arm.state = _State.OUT
        arm.until = self._clock() + arm.seconds
        return True

    def abandoned(self, index: int, *, probe: bool) -> bool:
        """The caller left, or its deadline passed, before the arm's outcome was known: it proves nothing."""
        if probe:
            self._arms[index].state = _State.PROBING
        return probe

    def tick(self) -> bool:
        """Lets arms whose time has come be probed."""
        now = self._clock()
        due = [arm for arm in self._arms if arm.state is _State.OUT and arm.until <= now]
        for arm in due:
            arm.state = _State.PROBING
        return bool(due)

    def _last(self, arm: _Arm) -> bool:
        return not any(other.state is _State.SERVING and other is not arm for other in self._arms)
