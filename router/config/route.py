"""A route: one experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from bandits import Conservative, Floor, HalfLife, Policy, sampler
from router.config.arm import Arm, check_ensembles
from router.config.context import Feature, Schema, schema_of
from router.config.guard import Guard
from router.config.learning import Budget, Retention, WarmStart
from router.config.policies import AnyPolicy, SplitPolicy
from router.config.reward import Metric, Range, Reward, check_metrics
from router.config.rules import Rule, RuleTest, conditions_of, zone_of
from router.config.safety import (
    AnyGuardrail,
    Canary,
    Failover,
    Schedule,
    Shadow,
    check_canary,
    check_guardrails,
    check_schedule,
)
from router.config.struct import Name, Struct, check_positive
from router.errors import listed

KINDS = [str(kind.__struct_config__.tag) for kind in get_args(AnyPolicy)]
"""Of policies, as a file names them."""


class Route(Struct, frozen=True):
    """One experiment: what clients ask for as if it were a model."""

    arms: dict[Name, Arm]  # the alternatives
    champion: str = ""  # the arm that others are compared with; empty: the first
    context: dict[str, Feature] = {}  # what is known about a request, in the order in which a policy reads it
    rules: tuple[Rule, ...] = ()  # which arms are allowed; the first that holds decides
    rule_tests: tuple[RuleTest, ...] = ()  # what the rules have to say; run by `croupier check` and at each load
    timezone: str = "UTC"  # of the hour and the weekday that rules read
    policy: AnyPolicy = SplitPolicy()  # how likely each allowed arm is
    floor: float = 0.0  # the least probability of an allowed arm; below one over how many arms there are
    budget: Budget | None = None  # what trying other arms than the champion may cost
    half_life_seconds: float | None = None  # after which a reward counts half; none: all count alike
    warm_start: WarmStart | None = None  # none: begin with nothing
    apprentice: bool = False  # the champion always answers; the log says what the policy would have done
    reward: Reward = Reward()  # what is learnt from
    metrics: dict[Name, Metric] = {}  # what else clients report, for people to read
    guard: Guard = Guard()  # leaves out arms that fail again and again
    failover: Failover = Failover()  # who stands in for an arm that fails
    guardrails: dict[Name, AnyGuardrail] = {}  # what may not go wrong, and what is done when it does
    canary: Canary | None = None  # a new arm, on its way in
    schedule: Schedule | None = None  # of the shares of a split
    shadows: dict[Name, Shadow] = {}  # arms that get copies of requests, and answer nobody
    sticky: bool = False  # a unit keeps its arm as long as probabilities allow
    salt: str = ""  # of the draw; empty: the route's name
    strict_log: bool = False  # answers wait until their decision is committed
    retention: Retention | None = None  # none: decisions are kept for ever
    max_in_flight: int = 10_000  # calls at once, in each process; more are RESOURCE_EXHAUSTED

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("arms: at least one arm is needed")
        check_metrics(self.metrics)
        check_positive(max_in_flight=self.max_in_flight)
        arms = list(self.arms)
        if self.champion and self.champion not in self.arms:
            raise ValueError(f"champion: {self.champion!r} is none of the arms ({listed(arms)})")
        if self.floor and self.budget:
            raise ValueError("budget: a floor would take what the budget does not bear; set one of the two")
        checks: dict[str, Callable[[], object]] = {
            "arms": lambda: check_ensembles(self.arms),
            "context": lambda: self.schema,
            "timezone": lambda: zone_of(self.timezone),
            "rules": lambda: conditions_of(self.rules, self.context, arms),
            "policy": lambda: self.policy.build(arms, self.schema),
            "guardrails": lambda: check_guardrails(
                self.guardrails, reward=self.reward, metrics=self.metrics, canary=self.canary
            ),
            "canary": self._check_canary,
            "schedule": self._check_schedule,
            "shadows": self._check_shadows,
            "half_life_seconds": lambda: self.half_life,
            "floor": self._check_floor,
            "salt": lambda: sampler(self.salt, arms),
        }
        for key, check in checks.items():
            try:
                check()
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None

    def _check_floor(self) -> None:
        dealt = len(self.arms) - len(self.shadows)
        if not 0 <= self.floor < 1 / dealt:
            raise ValueError(
                f"must be at least 0 and below {1 / dealt:g}, for an equal share of {dealt} leaves nothing to learn;"
                f" got {self.floor}"
            )

    def _check_canary(self) -> None:
        if self.canary is not None:
            check_canary(self.canary, arms=self.arms, champion=self.the_champion, guardrails=self.guardrails)

    def _check_schedule(self) -> None:
        if self.schedule is None:
            return
        check_schedule(self.schedule, self.arms)
        if self.policy != SplitPolicy():
            raise ValueError("it moves the shares of a split, so policy must be {kind: split}, without weights")

    def _check_shadows(self) -> None:
        if unknown := self.shadows.keys() - self.arms.keys():
            raise ValueError(f"{listed(unknown)}: none of the arms ({listed(self.arms)})")
        if self.shadows.keys() >= self.arms.keys():
            raise ValueError("one arm at least has to answer")
        if self.the_champion in self.shadows:
            raise ValueError(f"{self.the_champion} is the champion, and has to answer")

    @property
    def schema(self) -> Schema:
        """The numbers that the context of a request becomes."""
        return schema_of(self.context)

    @property
    def the_champion(self) -> str:
        """The arm that others are compared with."""
        return self.champion or next(iter(self.arms))

    @property
    def worths(self) -> Range:
        """What a decision may be worth: its reward, less the cost of its arm."""
        costs = [arm.cost or 0.0 for arm in self.arms.values()]
        return Range(low=self.reward.low - max(costs), high=self.reward.high - min(costs))

    def share(self, arm: str, reward: float) -> float:
        """What a policy learns from a reward of an arm: where its worth lies between the least and the greatest."""
        worths = self.worths
        cost = self.arms[arm].cost or 0.0 if arm in self.arms else 0.0
        share = (reward - cost - worths.low) / (worths.high - worths.low)
        return min(max(share, 0.0), 1.0)

    @property
    def half_life(self) -> HalfLife | None:
        """How rewards are forgotten, if they are."""
        return None if self.half_life_seconds is None else HalfLife(self.half_life_seconds)

    def build_policy(self) -> Policy:
        """The policy over the arms, in their order, within what it may do."""
        arms = list(self.arms)
        policy = self.policy.build(arms, self.schema)
        if self.budget is not None:
            champion = arms.index(self.the_champion)
            policy = Conservative(policy, champion, share=self.budget.share, alpha=self.budget.alpha)
        return Floor(policy, self.floor) if self.floor else policy
