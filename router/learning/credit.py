"""What feedback adds: to what the policy learns, to the plain tallies that reports read, and to comparisons of arms.

Where silence has a default, a reward waits until its window is over, and then counts beside the defaults of those that
had none: counted as they come, rewards would speak before silence does, and the arm that is drawn more of late would
seem the better one. So it is written down under the name HELD, and becomes REWARD when it is due (see `maturity`).

Every reward and metric is tallied under the arm that answered. The policy learns from a reward unless

- another arm was drawn first and failed, and the route is told not to learn from stand-ins (`failover.learn`);
- its policy reads contexts, and the decision's context meant something else.

While an apprentice only looks on, the champion is drawn with propensity 1: its rewards teach about it alone, as they
should. A policy that is frozen goes on adding up, and knows it all when it is thawed; only fitting stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from router.call import HELD, REWARD, TRUTH, Add, Credit, Decision, Feedback, Outcome, Vector
from router.config import GREATEST
from router.errors import AlreadyRewarded, BadReward, NotScored, TooLate, listed
from router.learning.fitting import arms_mark, layout_mark, policy_layout, weighed
from router.learning.lift import drawable, lift_layout
from router.route import Route
from router.safety.comparisons import weighed_row
from router.safety.tally import reported
from router.scoring import scored

SAME = 1e-9
"""Of the range: a reward that is this close to the one worked out from the truth says the same."""

GRACE_SECONDS = 10.0
"""After the end of a window: rewards that came in time are written down by then, and replicas' clocks may differ."""

Rows = dict[str, Vector]
"""What an outcome adds, by layout."""


def metric_layout(metric: str) -> str:
    """Layout of the tally of a metric: n, sum, sum of squares. That of rewards is called REWARD."""
    return f"metric:{metric}"


class Crediting:
    """How a route credits what is reported about its decisions, as it is now."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.rules = route.settings.reward
        self._layout = policy_layout(route)
        self._marks = layout_mark(route), arms_mark(route)
        self._arms = tuple(arm.name for arm in route.arms)
        self._wait = (self.rules.window_seconds or 0.0) + GRACE_SECONDS  # the age at which a decision counts

    def looks_back(self, decision: Decision, feedback: Feedback) -> bool:
        """Whether `credits` has to be told what is known of the decision."""
        return self.rules.corrections == "replace" or self._is_late(decision, feedback.time)

    def credits(
        self, decision: Decision, feedback: Feedback, known: Mapping[str, Outcome], *, due: bool = False
    ) -> list[Credit]:
        """The outcomes that a feedback reports, each with all that it adds; `due` says that no reward has to wait.

        Those that are known already are left out, or corrected where the route takes corrections. Raises BadReward for
        what the route cannot take, TooLate for a reward alone that comes after its window, NotScored for a truth alone
        that no reward can be worked out from, AlreadyRewarded where nothing is left, and ValueError for a decision that
        the policy cannot learn from.
        """
        self.check(feedback)
        reward, late = self._reward(decision, feedback), self._is_late(decision, feedback.time)
        replaces = self.rules.corrections == "replace"
        values: dict[str, float] = {}
        if reward is not None:
            if replaces or REWARD in known or not late:
                waits = not (due or REWARD in known) and self._waits(decision, feedback.time)
                values[HELD if waits else REWARD] = reward
            elif not feedback.metrics and feedback.truth is None and HELD not in known:
                raise TooLate(decision.id, self.rules.window_seconds or 0.0)
        values |= feedback.metrics
        if feedback.truth is not None:
            values[TRUTH] = feedback.truth
        made = []
        for name, value in values.items():
            outcome, old = Outcome(decision.id, name, value, feedback.time), known.get(name)
            if old is not None and (not replaces or old.value == value):
                continue
            if name == HELD:
                made.append(Credit(outcome, (), None if old is None else old.value, given=(REWARD, None)))
            elif old is None:
                made.append(self._credit(decision, outcome))
            else:
                made.append(self._correction(decision, outcome, old))
        if not made:
            raise AlreadyRewarded(decision.id, replaced=replaces)
        return made

    def matured(self, decision: Decision, held: Outcome | None, now: float) -> Credit | None:
        """What counts for a decision whose window is over: the reward that was held, or the default.

        None where neither is there. It holds only while nobody has reported another reward.
        """
        if held is not None:
            outcome = Outcome(decision.id, REWARD, held.value, held.time)
        elif (default := self._default(decision)) is not None:
            outcome = Outcome(decision.id, REWARD, default, now)
        else:
            return None
        return replace(self._credit(decision, outcome), given=(HELD, None if held is None else held.value))

    def check(self, feedback: Feedback) -> None:
        """Raises BadReward, naming what is wrong, unless the route can take all that a feedback says."""
        route, metrics = self.route.name, self.route.settings.metrics
        if feedback.reward is None and not feedback.metrics and feedback.truth is None:
            raise BadReward("the feedback says nothing: send a reward, a metric or a truth")
        low, high = self.rules.low, self.rules.high
        if feedback.reward is not None and not low <= feedback.reward <= high:
            raise BadReward(f"reward: route {route!r} takes {low} to {high}; this one is outside, or not a number")
        for name, value in feedback.metrics.items():
            if name not in metrics:
                raise BadReward(f"metrics: route {route!r} declares {listed(metrics) or 'none'}, not {name[:100]!r}")
            if not abs(value) <= GREATEST:
                raise BadReward(f"metrics: {name} must be a number from {-GREATEST} to {GREATEST}")
        if feedback.truth is not None and not abs(feedback.truth) <= GREATEST:
            raise BadReward(f"truth: must be a number from {-GREATEST} to {GREATEST}")

    def _reward(self, decision: Decision, feedback: Feedback) -> float | None:
        """The reward that was sent, or that follows from the truth; where both are there, they must say the same."""
        rule = self.rules.score
        if rule is None or feedback.truth is None:
            return feedback.reward
        if decision.prediction is None:
            if feedback.reward is None:
                raise NotScored(decision.id)
            return feedback.reward
        reward = scored(rule, decision.prediction, feedback.truth, self.rules)
        if feedback.reward is not None and abs(feedback.reward - reward) > SAME * (self.rules.high - self.rules.low):
            raise BadReward("reward: another one follows from the truth; send one of the two, or both alike")
        return reward

    def _default(self, decision: Decision) -> float | None:
        """What silence means: nothing where nobody answered, for nothing could come."""
        return None if decision.arm in decision.failed else self.rules.default

    def _waits(self, decision: Decision, time: float) -> bool:
        """Whether a decision is yet to count; where one has counted after all, by another clock, nothing is held."""
        return self._default(decision) is not None and time <= decision.time + self._wait

    def _is_late(self, decision: Decision, time: float) -> bool:
        window = self.rules.window_seconds
        return window is not None and time > decision.time + window

    def _credit(self, decision: Decision, outcome: Outcome) -> Credit:
        rows = self._rows(decision, outcome, learns=self._learns(decision), compares=True)
        return Credit(outcome, self._adds(decision, rows))

    def _correction(self, decision: Decision, outcome: Outcome, old: Outcome) -> Credit:
        """Takes back what the old value added. What it taught is known only while the route learns as it did then."""
        alike = self._learnt_alike(decision)
        learns = alike and self._learns(decision)
        rows = self._rows(decision, outcome, learns=learns, compares=alike)
        for layout, row in self._rows(decision, old, learns=learns, compares=alike).items():
            rows[layout] = rows[layout] - row if layout in rows else -row
        return Credit(outcome, self._adds(decision, rows), replaces=old.value)

    def _adds(self, decision: Decision, rows: Rows) -> tuple[Add, ...]:
        return tuple([Add(decision.route, layout, decision.arm, row) for layout, row in rows.items()])

    def _rows(self, decision: Decision, outcome: Outcome, *, learns: bool, compares: bool) -> Rows:
        name, value = outcome.name, outcome.value
        if name == TRUTH:
            return {}
        layout = REWARD if name == REWARD else metric_layout(name)
        rows = {layout: np.array([1.0, value, value * value])}
        if self.route.watches:
            rows |= reported(self.route.watches, self._arms, decision, name, value)
        if name == REWARD:
            low, high = self.rules.low, self.rules.high
            if learns:
                # Not younger than its report: a replica's clock may be ahead.
                worth = self.route.settings.share(decision.arm, value)
                layout, row = self._lesson(decision, worth, min(decision.time, outcome.time))
                rows[layout] = row
            if compares and not decision.failed and self._has_same_arms(decision):
                arms = drawable(self._arms, decision.probabilities or ())
                share = min(max((value - low) / (high - low), 0.0), 1.0)
                if decision.arm in arms:
                    rows[lift_layout(arms, low, high)] = weighed_row(share, decision.propensity)
        return rows

    def _lesson(self, decision: Decision, share: float, time: float) -> tuple[str, Vector]:
        """What the policy learns from the worth of a decision, as a part of its range, and where it is added."""
        context = None if decision.context is None else np.array(decision.context)
        row = self.route.policy.delta(share, context, decision.propensity)
        return weighed(self.route.settings.half_life, self._layout, row, time)

    def _learns(self, decision: Decision) -> bool:
        if decision.failed and self.route.settings.failover.learn == "none":
            return False
        return not self.route.policy.features or self._learnt_alike(decision)

    def _learnt_alike(self, decision: Decision) -> bool:
        return decision.policy_version[: len(self._marks[0])] == self._marks[0]

    def _has_same_arms(self, decision: Decision) -> bool:
        return decision.policy_version[len(self._marks[0]) :].partition("-")[0] == self._marks[1]
