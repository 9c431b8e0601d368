"""What guardrails are judged by, counted on the request path and drawn off into the sums of the store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from router.call import Add, Decision, Vector
from router.safety.comparisons import odds_row, weighed_row
from router.safety.guardrails import ERRORS, Bad, Bounds, Watch

_N, _FAILED, _FIRST = 0, 1, 2  # places in an arm's row


class Tally:
    """Counts the calls of one route in this process. Used by the event loop only."""

    __slots__ = ("_arms", "_bounds", "_limits", "_odds", "_pending", "_places", "_quick", "_route", "_rows", "_watches")

    def __init__(self, route: str, arms: Sequence[str], watches: Iterable[Watch] = ()) -> None:
        self._route = route
        self._arms = list(arms)
        self._pending: list[Add] = []
        self._rows: list[list[int]] = []
        self._watches: tuple[Watch, ...] = ()
        self._set(watches)

    def count(self, index: int, seconds: float, p: Sequence[float], *, failed: bool) -> None:
        """A call to an arm has ended, drawn with the probabilities p. `failed`: by the arm's own fault."""
        row = self._rows[index]
        row[_N] += 1
        if failed:
            row[_FAILED] += 1
            self._weigh(_FAILED, index, p)
        if seconds > self._quick:
            self._slow(index, seconds, p)

    def abandon(self, index: int, seconds: float, p: Sequence[float]) -> None:
        """A caller gave up on an arm. It may have failed or not; but longer than `seconds` it took in any case."""
        if seconds > self._quick:
            self._slow(index, seconds, p, given_up=1)

    def watch(self, watches: Iterable[Watch]) -> None:
        """Counts for these from now on. What was counted for others is kept for them."""
        watches = tuple(watches)
        if watches != self._watches:
            self._pending += self._counted()
            self._set(watches)

    def drain(self) -> list[Add]:
        """What was counted since the last time, for a commit; if that fails, `put_back`."""
        adds = self._pending + self._counted()
        self._pending = []
        self._set(self._watches)
        return adds

    def put_back(self, adds: Iterable[Add]) -> None:
        """Keeps for the next time what could not be committed."""
        self._pending = _merged([*adds, *self._pending])

    def _set(self, watches: Iterable[Watch]) -> None:
        """Begins to count from nothing."""
        self._watches = tuple(watches)
        limits = sorted({bad.seconds for watch in self._watches for bad in _of_calls(watch) if bad.seconds})
        self._limits = [(_FIRST + 2 * k, limit) for k, limit in enumerate(limits)]  # slow calls, those of them given up
        self._quick = limits[0] if limits else math.inf
        self._places = {limit: place for place, limit in self._limits}
        self._rows = [[0] * (_FIRST + 2 * len(limits)) for _ in self._arms]
        self._odds: list[tuple[int, Watch, Bounds, int, int, dict[int, Vector]]] = []
        for watch in self._watches:
            for bounds in watch.bounds:
                if bounds.times is not None:
                    arm, champion = self._arms.index(watch.arm), self._arms.index(watch.champion)
                    self._odds.append((self._place(bounds.bad), watch, bounds, arm, champion, {}))

    def _slow(self, index: int, seconds: float, p: Sequence[float], *, given_up: int = 0) -> None:
        row = self._rows[index]
        for place, limit in self._limits:
            if seconds > limit:
                row[place] += 1
                row[place + 1] += given_up
                self._weigh(place, index, p)

    def _place(self, bad: Bad) -> int:
        return self._places[bad.seconds] if bad.seconds else _FAILED

    def _weigh(self, place: int, index: int, p: Sequence[float]) -> None:
        for of, _, bounds, arm, champion, rows in self._odds:
            if of == place and index in (arm, champion):
                row = odds_row(bounds.times or 1.0, p[arm], p[champion])
                rows[index] = rows[index] + row if index in rows else row

    def _counted(self) -> list[Add]:
        adds: dict[tuple[str, str], Add] = {}
        for watch in self._watches:
            row = self._rows[self._arms.index(watch.arm)]
            for bad in _of_calls(watch):
                place = self._place(bad)
                n = row[_N] + (row[place + 1] if bad.seconds else 0)
                if n:
                    layout = watch.calls_layout(bad)
                    adds[layout, watch.arm] = Add(self._route, layout, watch.arm, np.array([n, row[place]], float))
        for _, watch, bounds, _, _, rows in self._odds:
            layout = watch.odds_layout(bounds)
            for index, odds in rows.items():
                adds[layout, self._arms[index]] = Add(self._route, layout, self._arms[index], odds)
        return list(adds.values())


def reported(
    watches: Iterable[Watch], arms: Sequence[str], decision: Decision, name: str, value: float
) -> dict[str, Vector]:
    """What an outcome of a decision adds to the sums of its arm, by layout, for guardrails and canaries to judge by.

    Nothing for decisions from before the watch. An arm that stood in for another that failed was not drawn from all,
    so it is not compared; nor is a decision at which one of the two could not be drawn. A correction adds what the new
    value adds, less what the old one did.
    """
    rows: dict[str, Vector] = {}
    for watch in watches:
        if decision.time < watch.since:
            continue
        for bounds in watch.bounds:
            if bounds.bad.outcome == name and bounds.most is not None and decision.arm == watch.arm:
                rows[watch.calls_layout(bounds.bad)] = np.array([1.0, bounds.bad.part(value)])
        if decision.failed or not _both_drawn(watch, arms, decision):
            continue
        for bad in watch.weighed():
            if bad.outcome == name:
                rows[watch.weighed_layout(bad)] = weighed_row(bad.part(value), decision.propensity)
    return rows


def _both_drawn(watch: Watch, arms: Sequence[str], decision: Decision) -> bool:
    p = decision.probabilities
    if p is None or len(p) != len(arms):
        return False
    return p[arms.index(watch.arm)] > 0.0 and p[arms.index(watch.champion)] > 0.0


def _of_calls(watch: Watch) -> Iterator[Bad]:
    yield Bad(ERRORS)  # its n is how many calls the arm has had
    yield from (each.bad for each in watch.bounds if not each.bad.outcome and each.bad.seconds)


def _merged(adds: Iterable[Add]) -> list[Add]:
    """The same sums in as few rows as possible, so that a store that is away for long does not fill the memory."""
    sums: dict[tuple[str, str, str], Vector] = {}
    for add in adds:
        key = add.route, add.layout, add.arm
        sums[key] = sums[key] + add.row if key in sums else add.row
    return [Add(*key, row) for key, row in sums.items()]
