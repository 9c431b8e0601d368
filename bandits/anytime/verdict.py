"""What to do with a challenger: promote it, stop it, call the question futile, or go on. With the numbers that say so.

Every interval and every evidence that is asked holds at all times at once, so the question may be put after every
decision and be settled by the first answer: a challenger that is no better is ever promoted with probability alpha at
most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from numpy.typing import ArrayLike

from bandits.anytime.differences import FEWEST, FEWEST_PLAYS, Difference, difference
from bandits.anytime.rates import rate_interval

Kind: TypeAlias = Literal["promote", "stop", "futile", "continue"]

GUARDRAIL_ALPHA = 0.01
MISMATCH_ALPHA = 0.001


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Something bad that may not pass a limit, such as the rate of errors, and the interval in which it is."""

    name: str
    low: float
    high: float
    limit: float

    @property
    def broken(self) -> bool:
        """Whether it is known to be above the limit."""
        return self.low > self.limit

    @property
    def kept(self) -> bool:
        """Whether it is known to be below the limit."""
        return self.high < self.limit

    def __str__(self) -> str:
        state = "above" if self.broken else "below" if self.kept else "perhaps above"
        return f"{self.name}: {state} the limit of {self.limit:.4g}, between {self.low:.4g} and {self.high:.4g}"


def rate_guardrail(
    name: str, events: float, n: float, limit: float, *, alpha: float = GUARDRAIL_ALPHA, tightest_at: float = 1000.0
) -> Guardrail:
    """Guard the rate of something bad: `events` among n decisions for the challenger, errors or answers too slow.

    Either end of its interval alone is wrong with probability alpha at most. Raises ValueError for counts that cannot
    be.
    """
    low, high = rate_interval(events, n, alpha=alpha, tightest_at=tightest_at)
    return Guardrail(name, low, high, limit)


def difference_guardrail(
    name: str, row: ArrayLike, margin: float, *, alpha: float = GUARDRAIL_ALPHA, tightest_at: float = 1000.0
) -> Guardrail:
    """Guard how much more of something bad the challenger has than the champion, from a row of summed terms.

    Either end of its interval alone is wrong with probability alpha at most. Raises ValueError for a row that no terms
    sum to.
    """
    known = difference(row, alpha=alpha, tightest_at=tightest_at)
    return Guardrail(name, known.low, known.high, margin)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, why, and the numbers behind it."""

    kind: Kind
    because: str
    """Sentences for people."""

    difference: Difference
    """Of rewards, challenger less champion."""

    alpha: float
    """What the interval of the difference was given: the challenger's share."""

    guardrails: tuple[Guardrail, ...]

    mismatch: float
    """Natural logarithm of the evidence that the log is wrong."""

    matured: float
    """Share of the decisions whose reward is due."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.because}"


@dataclass(frozen=True, slots=True)
class Rules:
    """When to do what with each of the challengers of one champion: the first of these that applies.

    - stop, when a guardrail is broken, or the challenger is worse by more than the margin;
    - continue, while the log is known to be wrong, for then no good news counts;
    - promote, when it is better and every guardrail is kept. With `non_inferior`, for a challenger that is cheaper, it
      is enough not to be worse by the margin;
    - futile, when neither is better by the margin, if there is one;
    - continue.

    Alpha is shared by the challengers. The intervals are tightest near n = `tightest_at`. In sentences the challenger
    goes by `name`. Raises ValueError for settings out of range.
    """

    margin: float = 0.0
    non_inferior: bool = False
    challengers: int = 1
    alpha: float = 0.05
    tightest_at: float = 1000.0
    name: str = "The challenger"

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < math.inf:
            raise ValueError(f"margin: must be a finite number not below 0, got {self.margin}")
        if self.non_inferior and self.margin == 0.0:
            raise ValueError("margin: must be above 0 where it is enough not to be worse by it")
        if self.challengers < 1:
            raise ValueError(f"challengers: must be at least 1, got {self.challengers}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha: must lie between 0 and 1, got {self.alpha}")
        if not 0.0 < self.tightest_at < math.inf:
            raise ValueError(f"tightest_at: must be a positive number, got {self.tightest_at}")

    def judge(
        self, row: ArrayLike, *, guardrails: Sequence[Guardrail] = (), mismatch: float = 0.0, matured: float = 1.0
    ) -> Verdict:
        """Judge a challenger by the row of summed terms, shape [7], of rewards that are due, it against the champion.

        `mismatch` is what `mismatch.draw_evidence` says of the log; `matured` is passed on. Raises ValueError for a row
        that no terms sum to, a mismatch that is NaN, and a share outside [0, 1].
        """
        if math.isnan(mismatch):
            raise ValueError("mismatch: must be the logarithm of an e-value, not NaN")
        if not 0.0 <= matured <= 1.0:
            raise ValueError(f"matured: must be a share, from 0 to 1, got {matured}")
        alpha = self.alpha / self.challengers
        known = difference(row, alpha=alpha, tightest_at=self.tightest_at)
        kind, because = self._first(known, alpha, guardrails, mismatch)
        if matured < 1.0:
            because += f" Of the rewards, {matured:.0%} are due."
        return Verdict(kind, because, known, alpha, tuple(guardrails), mismatch, matured)

    def _first(
        self, known: Difference, alpha: float, guardrails: Sequence[Guardrail], mismatch: float
    ) -> tuple[Kind, str]:
        broken = "; ".join(str(guardrail) for guardrail in guardrails if guardrail.broken)
        unsettled = "; ".join(str(guardrail) for guardrail in guardrails if not guardrail.kept)
        distrusted = mismatch >= -math.log(MISMATCH_ALPHA)
        early = known.low == -math.inf
        good = known.low > (-self.margin if self.non_inferior else 0.0)
        alike = -self.margin < known.low and known.high < self.margin
        better = "better" if known.low > 0.0 else f"not worse by {self.margin:.4g}"
        kept = " Every guardrail is kept." if guardrails else ""
        wanted = f"{FEWEST} and {FEWEST_PLAYS} plays of each arm are wanted"
        effect = (
            f"the difference is {known.effect:+.4g}, at all times between {known.low:+.4g} and {known.high:+.4g} with "
            f"{1 - alpha:.4g} confidence (n = {known.n:,.0f}, e-value {_e_value(known.log_evidence)})."
        )
        doubt = f"The log is wrong about how arms were drawn (e-value {_e_value(mismatch)}): find out why first."
        table: list[tuple[bool, Kind, str]] = [
            (bool(broken), "stop", f"A guardrail is broken. {broken}."),
            (known.high < -self.margin, "stop", f"{self.name} is worse: {effect}"),
            (distrusted, "continue", doubt),
            (early, "continue", f"Too early to tell: {known.n:,.0f} decisions so far, {wanted}."),
            (
                good and bool(unsettled),
                "continue",
                f"{self.name} is {better}, yet {unsettled}. Of rewards, {effect}",
            ),
            (good, "promote", f"{self.name} is {better}: {effect}{kept}"),
            (alike, "futile", f"Neither is better by {self.margin:.4g}: {effect}"),
            (True, "continue", f"Not known yet: {effect}"),
        ]
        return next((kind, because) for applies, kind, because in table if applies)


def _e_value(log_evidence: float) -> str:
    """A number while people can read it, then a power of ten."""
    if log_evidence < math.log(1e6):
        return f"{math.exp(log_evidence):.3g}"
    return "infinite" if log_evidence == math.inf else f"10^{log_evidence / math.log(10.0):.0f}"
