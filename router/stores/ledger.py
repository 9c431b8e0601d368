"""What a commit comes to, given what is there already: the one rule of the stores that decide it in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from router.call import Add, Credit, Decision, Reward, Vector
from router.stores import DECISIONS, StoreError

Key: TypeAlias = tuple[str, str, str]
"""(route, layout, arm)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What has to be written, all of it or nothing."""

    decisions: dict[str, Decision]  # those not there yet, by id
    rewards: dict[str, Reward]  # the claimed ones, by decision
    sums: dict[Key, Vector]  # what the touched sums become; read-only
    claims: list[bool]  # for each credit, whether it is claimed


def settle(
    decisions: Sequence[Decision],
    credits: Sequence[Credit],
    *,
    known: Container[str],
    rewarded: Container[str],
    stored: Callable[[Key], Vector | None],
) -> Entry:
    """Store.commit, but for the writing. Nothing is changed.

    `known` holds the ids of the decisions there already, `rewarded` those with a reward, and `stored` reads a sum.
    Raises KeyError for a credit whose decision is unknown, and StoreError for a row that cannot be added.
    """
    new: dict[str, Decision] = {}
    for decision in decisions:
        if decision.id not in known:
            new.setdefault(decision.id, decision)
    counts = Counter((decision.route, decision.arm) for decision in new.values())
    adds = [Add(route, DECISIONS, arm, np.array([float(n)])) for (route, arm), n in counts.items()]

    rewards: dict[str, Reward] = {}
    claims: list[bool] = []
    for credit in credits:
        id = credit.reward.decision
        if id not in known and id not in new:
            raise KeyError(id)
        claimed = id not in rewarded and id not in rewards
        claims.append(claimed)
        if claimed:
            rewards[id] = credit.reward
            adds += credit.adds
    return Entry(new, rewards, _add_up(adds, stored), claims)


def _add_up(adds: Iterable[Add], stored: Callable[[Key], Vector | None]) -> dict[Key, Vector]:
    """What the sums become that `adds` touches; a sum that is not there yet is as wide as the first row.

    A row that would make its sum infinite or NaN is refused: nothing could be learnt from that sum ever after.
    """
    sums: dict[Key, Vector] = {}
    for add in adds:
        key = (add.route, add.layout, add.arm)
        total = sums.get(key)
        if total is None:
            before = stored(key)
            total = sums[key] = np.zeros(add.row.shape) if before is None else before.copy()
        if total.shape != add.row.shape:
            raise StoreError(
                f"Route {add.route!r}, arm {add.arm!r}: the sums of layout {add.layout!r} are {total.size} wide and "
                f"cannot take a row of {add.row.size}. Another row needs another layout name."
            )
        total += add.row
    for (route, layout, arm), total in sums.items():
        if not np.isfinite(total).all():
            raise StoreError(
                f"Route {route!r}, arm {arm!r}: the sums of layout {layout!r} would no longer be finite numbers."
            )
        total.setflags(write=False)
    return sums
