"""What a store promises of decisions, outcomes and sums, in the fewest lines, to compare with."""

from __future__ import annotations

import numpy as np

from router.call import Batch, Credit, Decision, Outcome
from router.stores import DECISIONS


class Model:
    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.outcomes: dict[str, dict[str, Outcome]] = {}
        self.sums: dict[tuple[str, str, str], np.ndarray] = {}
        self.numbers: dict[str, int] = {}

    def commit(self, batch: Batch) -> list[bool]:
        for one in batch.credits:
            if one.outcome.decision not in self.decisions | {d.id: d for d in batch.decisions}:
                raise KeyError(one.outcome.decision)
        for each in batch.decisions:
            if self.decisions.setdefault(each.id, each) is each:
                self.add(each.route, DECISIONS, each.arm, np.ones(1))
        if not batch.writer or batch.number > self.numbers.get(batch.writer, -1):
            for add in batch.adds:
                self.add(add.route, add.layout, add.arm, add.row)
                self.numbers[batch.writer] = batch.number
        return [self.claim(one) for one in batch.credits]

    def claim(self, one: Credit) -> bool:
        known = self.outcomes.get(one.outcome.decision, {})
        if (known[one.outcome.name].value if one.outcome.name in known else None) != one.replaces:
            return False
        if one.given is not None and (known[one.given[0]].value if one.given[0] in known else None) != one.given[1]:
            return False
        self.outcomes.setdefault(one.outcome.decision, {})[one.outcome.name] = one.outcome
        for add in one.adds:
            self.add(add.route, add.layout, add.arm, add.row)
        return True

    def add(self, route: str, layout: str, arm: str, row: np.ndarray) -> None:
        self.sums[route, layout, arm] = self.sums.get((route, layout, arm), 0) + row

    def prune(self, route: str, before: float, most: int | None, limit: int) -> int:
        ids = sorted(id for id, decision in self.decisions.items() if decision.route == route)
        gone = 0
        while gone < min(limit, len(ids)):
            id = ids[gone]
            if (most is None or len(ids) - gone <= most) and self.decisions[id].time >= before:
                break
            del self.decisions[id]
            self.outcomes.pop(id, None)
            gone += 1
        return gone
