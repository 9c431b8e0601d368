"""Which of several targets that serve the same are left out for a while, because the others do better.

The rule: once a second, and twenty calls a target, one is left out whose share of bad calls is 50 points above that of
the best; bad is what fails by the server's fault, or takes over five times as long as the quickest target's mean.
After ten seconds it is tried with one call a second, and the first good one brings it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from protos.errors import Code

WINDOW_SECONDS, WINDOW_CALLS = 1.0, 20  # before targets are compared; of each, on average, and at least half as many
MORE = 0.5  # of its calls must be bad, beyond the share of the best
SLOWER, SLOWER_SECONDS = 5.0, 0.01  # times as long, and by so much at least: what is quick anyway need not be even
OUT_SECONDS = 10.0, 60.0  # at first, and at most: it doubles until a comparison finds no fault
PROBE_SECONDS = 1.0  # between the calls that try a target
SHARE = 0.5  # of the targets that may be left out

_LATE = Code.DEADLINE_EXCEEDED
_NOT_ITS_FAULT = Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED


class Target:
    """What is known of one target. It is in service while `until` is 0."""

    __slots__ = ("bad", "name", "refused", "seconds", "since", "spent", "timed", "until", "why")

    def __init__(self, name: str) -> None:
        self.name = name
        self.since = -inf  # calls that began before tell of what it was then
        self.until = 0.0  # when it is tried again
        self.seconds = OUT_SECONDS[0]  # for which it is left out next time
        self.why = ""  # it was left out, unless that is for not being ready
        self.forget()

    def forget(self) -> None:
        """Begins to count anew."""
        self.timed = 0  # calls
        self.spent = 0.0  # seconds, in these
        self.refused = 0  # calls that do not say how long an answer takes
        self.bad = 0  # of all

    @property
    def calls(self) -> int:
        """All that ended."""
        return self.timed + self.refused

    @property
    def share(self) -> float:
        """Of its calls that were bad."""
        return self.bad / self.calls


class Outliers:
    """Compares targets by how the calls to them end. All times are seconds on one clock that never goes back.

    Where all do as badly, all are used: who was left out before comes back. Nor are more than half ever left out.
    """

    def __init__(self, names: Iterable[str], now: float) -> None:
        self.targets = {name: Target(name) for name in names}
        self._limit = inf  # seconds, above which a call is bad
        self._due = now + WINDOW_SECONDS

    def try_again(self, target: Target, now: float) -> bool:
        """Whether a call may go to a target that is left out, to see how it does; then for a while no other may."""
        if now < target.until:
            return False
        target.until = now + PROBE_SECONDS
        return True

    def not_ready(self, target: Target, now: float) -> None:
        """It said so: it is left out at once, until it is tried."""
        target.since, target.until = now, now + PROBE_SECONDS

    def ended(self, target: Target, began: float, now: float, code: Code | None = None) -> Sequence[Target]:
        """A call was refused with `code`, or took so long: it was answered, or its caller left.

        Returns the targets that have gone out of service by comparison, or come back.
        """
        if began < target.since:
            return ()
        took = now - began
        timed = code is None or code is _LATE
        bad = took > self._limit if timed else code not in _NOT_ITS_FAULT
        if target.until:
            return self._tried(target, now, bad=bad)
        if timed:
            target.timed += 1
            target.spent += took
        else:
            target.refused += 1
        if bad:
            target.bad += 1
        return self._compare(now) if now >= self._due else ()

    def _tried(self, target: Target, now: float, *, bad: bool) -> Sequence[Target]:
        if bad:
            self._leave_out(target, now, target.why)
            return ()
        known = target.why
        self._take_back(target, now)
        return (target,) if known else ()

    def _compare(self, now: float) -> Sequence[Target]:
        if sum(target.calls for target in self.targets.values()) < WINDOW_CALLS * len(self.targets):
            return ()
        self._due = now + WINDOW_SECONDS
        changed = self._judge(now)
        for target in self.targets.values():
            target.forget()
        return changed

    def _judge(self, now: float) -> Sequence[Target]:
        out = [target for target in self.targets.values() if target.until]
        judged = [target for target in self.targets.values() if not target.until and target.calls >= WINDOW_CALLS / 2]
        if not judged:
            return ()
        best = min(judged, key=lambda target: target.share)
        changed = []
        if best.share > MORE:
            for target in out:
                self._take_back(target, now)
            changed = out
        for target in sorted(judged, key=lambda target: -target.share):
            if target.share < best.share + MORE:
                target.seconds = OUT_SECONDS[0]
            elif len(out) + len(changed) < int(SHARE * len(self.targets)):
                self._leave_out(target, now, self._comparison(target, best))
                changed.append(target)
        means = [target.spent / target.timed for target in judged if target.timed]
        if means:
            self._limit = max(SLOWER * min(means), SLOWER_SECONDS + min(means))
        return changed

    def _leave_out(self, target: Target, now: float, why: str) -> None:
        target.since, target.until, target.why = now, now + target.seconds, why
        target.seconds = min(2 * target.seconds, OUT_SECONDS[1])

    @staticmethod
    def _take_back(target: Target, now: float) -> None:
        target.since, target.until, target.why = now, 0.0, ""
        target.forget()

    def _comparison(self, target: Target, best: Target) -> str:
        slow = f" or took over {self._limit * 1e3:.0f} ms" if self._limit < inf else ""
        return f"{target.bad} of {target.calls} calls failed{slow}; at {best.name}, {best.bad} of {best.calls}"
