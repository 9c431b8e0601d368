"""A route: one experiment."""

from __future__ import annotations

from typing import get_args

from bandits import sampler
from router.config.arm import Arm
from router.config.guard import Guard
from router.config.policies import AnyPolicy, SplitPolicy
from router.config.reward import Metric, Range
from router.config.struct import Name, Struct, check_positive

KINDS = [str(kind.__struct_config__.tag) for kind in get_args(AnyPolicy)]
"""Of policies, as a file names them."""


class Route(Struct, frozen=True):
    """One experiment: what clients ask for as if it were a model."""

    arms: dict[Name, Arm]
    policy: AnyPolicy = SplitPolicy()
    reward: Range = Range()
    metrics: dict[Name, Metric] = {}
    guard: Guard = Guard()
    sticky: bool = False  # a unit keeps its arm as long as probabilities allow
    salt: str = ""  # of the draw; empty: the route's name
    strict_log: bool = False  # answers wait until their decision is committed
    max_in_flight: int = 10_000

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("arms: at least one arm is needed")
        check_positive(max_in_flight=self.max_in_flight)
        arms = list(self.arms)
        for key, build in ("policy", lambda: self.policy.build(arms)), ("salt", lambda: sampler(self.salt, arms)):
            try:
                build()
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
