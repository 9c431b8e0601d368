"""What is read out of a route's log: the newest decisions that fit, as arrays."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandits import Log, Mask
from bandits.anytime import draw_evidence, draw_rows
from protos.messages import LogPart
from router.answers.replay import allowed_of, answered
from router.call import REWARD, Decision, Outcome, Vector
from router.config import Route as Settings
from router.learning.fitting import settings_of
from router.stores import Store

Row: TypeAlias = tuple[Decision, Outcome | None]
"""A decision, and its reward. Nothing of it is tracked by the garbage collector, which would hold up requests."""

FIRST_SECONDS = 1.0
"""How far back the log is read at first, where it is longer than what is asked for."""

SLACK = 4
"""So many times the rows that are asked for are read at most, to find out which are the newest."""

FINEST = 1e-3
"""Of how far back it is: a start is not looked for more closely."""

ROUNDING = 1e-9
"""Of a floor."""

EVERY = 64
"""Rows between two pauses."""


class Versions:
    """What the versions of policies meant: the settings of the route, by route and version. For one thread."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str], Settings] = {}
        self._texts: dict[str, Settings] = {}

    def __call__(self, store: Store, route: str, version: str) -> Settings | None:
        """The settings at a version; None when nobody knows them. Raises StoreError."""
        known = self._settings.get((route, version))
        if known is None:
            fit = store.fit(route, version)
            if fit is None:
                return None
            try:
                known = self._texts.get(fit.settings) or settings_of(fit.settings)
            except ValueError:  # of another Croupier
                return None
            self._texts[fit.settings] = self._settings[route, version] = known
        return known


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

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def part(self) -> LogPart:
        """Which part of the log it is."""
        first, last = (float(self.times[0]), float(self.times[-1])) if len(self) else (None, None)
        return LogPart(decisions=len(self), whole=self.whole, first=first, last=last, other_arms=self.other_arms)

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
        )


def newest(
    store: Store, route: str, *, most: int, now: float, total: float, pause: Callable[[], None] = lambda: None
) -> tuple[deque[Row], bool]:
    """The newest decisions of a log, at most `most`, in order, and whether these are all.

    A log is read forwards, and ids begin with the time: so a start is looked for from which it is not far to the end.
    `total` is how many decisions there ever were. Where so many came at once that no start is near enough, those are
    returned that follow the nearest one. `pause` is called now and then.
    """
    near, span, far = 0.0, FIRST_SECONDS, math.inf  # from `near` too few were read, from `far` too many
    if total <= SLACK * most:
        span = now
    while True:
        after = f"{int((now - span) * 1000):012x}" if span < now else ""
        rows: deque[Row] = deque(maxlen=most)
        read = 0
        for decision, outcomes in islice(store.log(route, after=after), SLACK * most + 1):
            if read % EVERY == 0:
                pause()
            rows.append((decision, outcomes.get(REWARD)))
            read += 1
        if read > SLACK * most:
            far = span
        elif read >= most or not after:
            return rows, not after and read <= most
        else:
            near = span
        if far < math.inf and far - near <= FINEST * far:
            return rows, False
        span = SLACK * span if far == math.inf else (near + far) / 2


def study(
    rows: Iterable[Row], settings: Settings, meant: Callable[[str], Settings | None], *, whole: bool = True
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
    )
