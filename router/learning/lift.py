"""How much more an arm earns than another, from sums that any report can read, whichever two are compared.

Every reward adds one row, to the sums of its arm in the layout that names the arms which could have been drawn: the two
that are compared must both be among them. So no arm has to be told beforehand that it is the champion, and a decision
at which rules or guard left out one of the two says nothing of the difference.

What cannot be had from sums is `bandits.anytime.aipw_terms` with running means, which asks for the order of decisions;
an evaluation of the log does that. The sums weigh instead (see `comparisons.difference_row`), which needs no order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from router.call import Vector
from router.safety.comparisons import WEIGHED, difference_row

LEAST = 1e-6
"""A probability below this counts as none: an arm so seldom drawn is known for nothing, and 1/p² drowns the others."""


def drawable(arms: tuple[str, ...], probabilities: tuple[float, ...]) -> tuple[str, ...]:
    """The arms that could have been drawn."""
    if len(arms) != len(probabilities):
        return ()
    return tuple([arm for arm, p in zip(arms, probabilities, strict=True) if p >= LEAST])


@lru_cache(4096)
def lift_layout(arms: tuple[str, ...], low: float, high: float) -> str:
    """Layout of `weighed_row`s of rewards, as parts of a range, at decisions that could have drawn any of `arms`."""
    return lift_prefix(low, high) + ",".join(sorted(arms))  # no name holds a comma


def lift_prefix(low: float, high: float) -> str:
    """How the layouts of one range of rewards begin."""
    return f"lift:{low!r}:{high!r}:"


def lift_row(sums: Mapping[tuple[str, str], Vector], arm: str, champion: str, *, low: float, high: float) -> Vector:
    """The row, shape [7], that `bandits.anytime.difference` judges: what `arm` earns more than `champion`.

    In parts of the range of rewards. `sums` are those of the route, by (layout, arm).
    """
    start = lift_prefix(low, high)
    rows = {arm: np.zeros(WEIGHED), champion: np.zeros(WEIGHED)}
    n = 0.0
    for (layout, drawn), row in sums.items():
        if layout.startswith(start) and {arm, champion} <= set(_arms(layout, start)):
            n += row[0]
            if drawn in rows:
                rows[drawn] = rows[drawn] + row
    return difference_row(rows[arm], rows[champion], n)


def _arms(layout: str, start: str) -> Sequence[str]:
    return layout[len(start) :].split(",")
