"""Whether a log adds up to the sums that were learnt: both come of one commit, and only a change by hand parts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from router.answers.study import Row
from router.call import REWARD, Vector
from router.stores import DECISIONS

ROUNDING = 1e-9
"""Of a sum, for it may have been added up in another order."""


def discrepancies(rows: Iterable[Row], sums: Mapping[tuple[str, str], Vector]) -> Iterator[str]:
    """A sentence for each arm of which a whole log, from the first decision on, has other rewards than the sums."""
    logged: dict[str, list[float]] = {}
    for decision, reward in rows:
        book = logged.setdefault(decision.arm, [0.0, 0.0, 0.0, 0.0])
        book[0] += 1.0
        if reward is not None:
            book[1] += 1.0
            book[2] += reward.value
            book[3] += abs(reward.value)
    for arm in sorted(logged.keys() | {arm for layout, arm in sums if layout == DECISIONS}):
        taken, known, total, size = logged.get(arm, [0.0] * 4)
        counted = sums.get((DECISIONS, arm), (0.0,))[0]
        rewards, learnt, _ = sums.get((REWARD, arm), (0.0, 0.0, 0.0))
        if (taken, known) != (counted, rewards) or abs(total - learnt) > ROUNDING * size:
            yield (
                f"The log of arm {arm} was changed, or its sums: it has {taken:.0f} decisions and {known:.0f} rewards, "
                f"in all {total:.6g}; counted were {counted:.0f} and {rewards:.0f}, in all {learnt:.6g}."
            )
