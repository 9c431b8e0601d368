"""Decisions of a route's log as arrays: those that fit what the route is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandits import Log, Mask
from bandits.anytime import draw_evidence, draw_rows
from protos.messages import LogPart
from router.answers.replay import allowed_of, answered
from router.call import Decision, Outcome, Vector
from router.config import Route as Settings
from router.stores import Malformed

Row: TypeAlias = tuple[Decision, Outcome | None]
"""A decision, and its reward. Nothing of it is tracked by the garbage collector, which would hold up requests."""

ROUNDING = 1e-9
"""Of a floor."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """n decisions over the K arms that a route has now, in the order of time."""

    arms: tuple[str, ...]
    first_drawn: NDArray[np.intp]  # [n], also where that arm failed and another stood in
    chosen: NDArray[np.intp]  # [n], the arm in the end
    stood_in: Mask  # [n], whether others failed before it
    answered: Mask  # [n]
    propensities: Vector  # [n], of the arm in the end
    probabilities: Vector  # [n, K]
    allowed: Mask  # [n, K]
    rewards: Vector  # [n], NaN where there is none
    times: Vector  # [n], seconds since the epoch
    units: NDArray[np.intp]  # [n], the row at which its unit came first: its own, where it drew for itself alone
    floors: Vector  # [n], that the route declared then
    contexts: Vector | None  # [n, d]; NaN where it meant something else, or none was read
    other_arms: int  # decisions that are left out, because the route had other arms then, or is not known then
    whole: bool  # whether the log holds no more
    gone: int = 0  # decisions that were taken and are in no log any more
    amiss: tuple[str, ...] = ()  # what does not add up to the sums: sentences

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def part(self) -> LogPart:
        """Which part of the log it is."""
        first, last = (float(self.times[0]), float(self.times[-1])) if len(self) else (None, None)
        return LogPart(
            decisions=len(self), whole=self.whole, first=first, last=last, other_arms=self.other_arms, gone=self.gone
        )

    @property
    def rewarded(self) -> Mask:
        """Whether the reward is known: bool[n]."""
        known: Mask = ~np.isnan(self.rewards)
        return known

    @property
    def new_unit(self) -> Mask:
        """Whether a draw is one of its own, and not that of a unit that came before: bool[n]."""
        new: Mask = self.units == np.arange(len(self))
        return new

    def due(self, window: float | None, now: float) -> Mask:
        """Whether the reward should be known, or is: bool[n]. Without a window, that is so once an arm has answered."""
        over = self.times + (window or 0.0) <= now
        return self.answered & (self.rewarded | over)

    def mismatch(self, rows: Mask) -> tuple[int, float]:
        """How many draws there are among some rows, and the evidence that arms were not drawn as the log says.

        A unit that is drawn for once and comes again is one draw.
        """
        rows = rows & self.new_unit
        n = int(rows.sum())
        if not n:
            return 0, 0.0
        try:
            return n, draw_evidence(draw_rows(self.probabilities[rows], self.first_drawn[rows]))
        except ValueError:  # an arm was drawn that the log says could not be
            return n, float("inf")

    def floor(self, rows: Mask | NDArray[np.intp]) -> float | None:
        """The least floor declared in some rows, less what is lost by rounding, if it held there for all allowed arms.

        A canary's share may be less. None where at some row no floor was declared.
        """
        least = float(self.floors[rows].min(initial=1.0)) * (1.0 - ROUNDING)
        held = (self.probabilities[rows] >= least) | ~self.allowed[rows]
        return least if least > 0.0 and held.all() else None

    def log(self, rows: Mask | NDArray[np.intp], *, low: float, high: float) -> Log:
        """Some rows, by flag or by number, which must be rewarded, for evaluations. Raises ValueError for none."""
        share = np.clip((self.rewards[rows] - low) / (high - low), 0.0, 1.0)
        contexts = None if self.contexts is None else self.contexts[rows]
        if contexts is not None and not np.isfinite(contexts).all():
            contexts = None
        return Log(
            self.chosen[rows],
            share,
            self.propensities[rows],
            len(self.arms),
            contexts,
            allowed=self.allowed[rows],
            units=None if self.new_unit.all() else self.units[rows],
            drawn_from=self.probabilities[rows],
        )


def study(
    rows: Iterable[Row],
    settings: Settings,
    meant: Callable[[str], Settings | None],
    *,
    whole: bool = True,
    gone: int = 0,
) -> Study:
    """The arrays of some rows of a log. `meant` gives the settings of a version of the policy."""
    arms = tuple(settings.arms)
    index = {arm: k for k, arm in enumerate(arms)}
    d = len(settings.schema.columns)
    unknown = (np.nan,) * d
    alike: dict[str, tuple[bool, bool, float]] = {}
    masks: dict[int, list[bool]] = {}
    first: dict[str, int] = {}
    kept: list[Decision] = []
    rewards: list[float] = []
    contexts: list[tuple[float, ...]] = []
    units: list[int] = []
    floors: list[float] = []
    others = 0
    for decision, reward in rows:
        version = decision.policy_version
        if version not in alike:
            then = meant(version)
            same_arms = then is not None and tuple(then.arms) == arms
            same_context = then is not None and then.schema.digest == settings.schema.digest
            alike[version] = same_arms, same_context, 0.0 if then is None else then.floor
        same_arms, same_context, floor = alike[version]
        if not same_arms or len(decision.probabilities or ()) != len(arms):
            others += 1
            continue
        if not all(arm in index for arm in (*decision.failed, decision.arm)):
            raise Malformed(f"decision {decision.id!r}", "arm or failed: the route had no arm of that name")
        units.append(first.setdefault(decision.unit, len(kept)) if settings.sticky and decision.unit else len(kept))
        floors.append(floor)
        kept.append(decision)
        if decision.allowed not in masks:
            masks[decision.allowed] = allowed_of(decision, len(arms)).tolist()
        rewards.append(np.nan if reward is None else reward.value)
        told = decision.context or ()
        contexts.append(told if same_context and len(told) == d else unknown)
    K = len(arms)
    return Study(
        arms=arms,
        first_drawn=np.array([index[(*each.failed, each.arm)[0]] for each in kept], dtype=np.intp),
        chosen=np.array([index[each.arm] for each in kept], dtype=np.intp),
        stood_in=np.array([bool(each.failed) and answered(each) for each in kept], dtype=np.bool_),
        answered=np.array([answered(each) for each in kept], dtype=np.bool_),
        propensities=np.array([each.propensity for each in kept], dtype=np.float64),
        probabilities=np.array([each.probabilities for each in kept], dtype=np.float64).reshape(-1, K),
        allowed=np.array([masks[each.allowed] for each in kept], dtype=np.bool_).reshape(-1, K),
        rewards=np.array(rewards, dtype=np.float64),
        times=np.array([each.time for each in kept], dtype=np.float64),
        units=np.array(units, dtype=np.intp),
        floors=np.array(floors, dtype=np.float64),
        contexts=np.array(contexts, dtype=np.float64).reshape(-1, d) if d else None,
        other_arms=others,
        whole=whole,
        gone=gone,
    )
