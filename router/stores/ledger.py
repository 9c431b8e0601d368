"""What a commit comes to, given what is there already: the one rule of the stores that decide it in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from router.call import Add, Batch, Decision, Outcome, Vector
from router.stores import DECISIONS, StoreError

Key: TypeAlias = tuple[str, str, str]
"""(route, layout, arm)"""

Named: TypeAlias = tuple[str, str]
"""(decision, name) of an outcome."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What has to be written, all of it or nothing."""

    decisions: dict[str, Decision]  # those not there yet, by id
    outcomes: dict[Named, Outcome]  # the claimed ones; a correction takes the place of what it replaces
    sums: dict[Key, Vector]  # what the touched sums become; read-only
    claims: list[bool]  # for each credit, whether it is claimed


def settle(
    batch: Batch,
    *,
    known: Container[str],
    values: Mapping[Named, float],
    stored: Callable[[Key], Vector | None],
    added: int | None,
) -> Entry:
    """Store.commit for decisions and what they led to, but for the writing. Nothing is changed.

    `known` holds the ids of the decisions there already, `values` the outcomes of the decisions that credits name (NaN
    will do where no credit of a decision corrects one, or was worked out from one), `stored` reads a sum, and `added`
    is the last number of the batch's writer.
    Raises KeyError for a credit whose decision is unknown, and StoreError for a row that cannot be added.
    """
    new: dict[str, Decision] = {}
    for decision in batch.decisions:
        if decision.id not in known:
            new.setdefault(decision.id, decision)
    counts = Counter((decision.route, decision.arm) for decision in new.values())
    adds = [Add(route, DECISIONS, arm, np.array([float(n)])) for (route, arm), n in counts.items()]
    if added is None or batch.number > added:
        adds += batch.adds

    outcomes: dict[Named, Outcome] = {}
    claims: list[bool] = []

    def there(decision: str, name: str) -> float | None:
        key = decision, name
        return outcomes[key].value if key in outcomes else values.get(key)

    for credit in batch.credits:
        outcome = credit.outcome
        if outcome.decision not in known and outcome.decision not in new:
            raise KeyError(outcome.decision)
        claimed = there(outcome.decision, outcome.name) == credit.replaces
        if claimed and credit.given is not None:
            name, value = credit.given
            claimed = there(outcome.decision, name) == value
        claims.append(claimed)
        if claimed:
            outcomes[outcome.decision, outcome.name] = outcome
            adds += credit.adds
    return Entry(new, outcomes, _add_up(adds, stored), claims)


def _add_up(adds: Iterable[Add], stored: Callable[[Key], Vector | None]) -> dict[Key, Vector]:
    """What the sums become that `adds` touches; a sum that is not there yet is as wide as the first row."""
    sums: dict[Key, Vector] = {}
    for add in adds:
        key = (add.route, add.layout, add.arm)
        total = sums.get(key)
        if total is None:
            before = stored(key)
            total = sums[key] = np.zeros(add.row.shape) if before is None else before.copy()
        if total.shape != add.row.shape:
            raise too_wide(key, total.size, add.row.size)
        total += add.row
    for key, total in sums.items():
        if not np.isfinite(total).all():
            raise endless(key)
        total.setflags(write=False)
    return sums


def too_wide(key: Key, there: int, here: int) -> StoreError:
    """A row does not fit into its sum."""
    route, layout, arm = key
    return StoreError(
        f"Route {route!r}, arm {arm!r}: the sums of layout {layout!r} are {there} wide and cannot take a row of "
        f"{here}. Another row needs another layout name."
    )


def endless(key: Key) -> StoreError:
    """A row would make its sum infinite or NaN: nothing could be learnt from that sum ever after."""
    route, layout, arm = key
    return StoreError(f"Route {route!r}, arm {arm!r}: the sums of layout {layout!r} would no longer be finite numbers.")
