"""The words of the router: a call, a reply, a decision, what became of it, and what is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from protos.grpc import Header
from protos.messages import ModelInferRequest

Vector: TypeAlias = NDArray[np.float64]


# Of these, one is made for each request, and a dataclass would take ten times as long.
class Call(msgspec.Struct, gc=False):
    """One inference request on its way to an arm."""

    route: str
    request: ModelInferRequest
    body: bytes  # the request as it came, for upstreams that pass it on
    unit: str = ""  # who is experimented on; empty: nobody in particular
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    deadline: float | None = None  # on the event loop's clock


class Reply(msgspec.Struct, gc=False):
    """An answer: a serialized ModelInferResponse, and what goes into the trailing metadata."""

    body: bytes
    metadata: list[Header] = msgspec.field(default_factory=list)


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]
"""A server is a function. A route, an upstream and the whole router are Handlers; all may raise a CallError."""

Layer: TypeAlias = Callable[[Handler], Handler]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """That an arm was chosen, and all that it was chosen by. Written down before anyone learns from it."""

    id: str
    route: str
    arm: str
    propensity: float  # the probability with which this arm was drawn
    time: float  # seconds since the epoch
    policy_version: str  # of the Fit that it was taken with
    unit: str = ""
    context: tuple[float, ...] | None = None  # as the policy read it
    probabilities: tuple[float, ...] | None = None  # of all arms, in the order of the route
    allowed: int = -1  # bit k: whether rules and guard allowed arm k; all bits: nothing was forbidden
    rule: str = ""  # the rule that restricted the choice
    failed: tuple[str, ...] = ()  # arms that were drawn before this one and did not answer
    proposed: tuple[float, ...] | None = None  # what the policy would have drawn from, where it only looks on
    prediction: float | None = None  # what the arm answered, where a scoring rule needs it
    upstream: str = ""  # where a mesh says that it sent the request: x-seldon-route


REWARD = "reward"
TRUTH = "truth"
HELD = "reward: held"
"""A reward that came within a window that has a default: it becomes REWARD, and counts, when the window is over."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One number that became known about a decision. Each name is known once; a correction says what it replaces."""

    decision: str
    name: str  # REWARD, TRUTH, HELD, or that of a metric
    value: float
    time: float  # of the report, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says that a decision led to: any part of it, in one call or in several."""

    decision: str
    time: float  # seconds since the epoch
    reward: float | None = None  # in the route's declared range
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth: float | None = None  # what really happened


@dataclass(frozen=True, slots=True)
class Add:
    """A row to add to the sums of one arm."""

    route: str
    layout: str  # what the row holds; sums of another layout are never touched
    arm: str
    row: Vector


@dataclass(frozen=True, slots=True)
class Credit:
    """An outcome and what it adds. Both happen, once, or neither does."""

    outcome: Outcome
    adds: tuple[Add, ...] = ()
    replaces: float | None = None  # the value that it corrects; None: it is the first of its name
    given: tuple[str, float | None] | None = None  # what it was worked out from: another outcome and its value, if any


@dataclass(frozen=True, slots=True)
class Fit:
    """What a policy knew, under the version that decisions name: enough to take them again."""

    route: str
    version: str
    settings: str  # of the route, as JSON
    sums: Vector  # what was fitted, [K, width]
    time: float  # when it was fitted, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Event:
    """That something was done to a route, and why. For people; nothing is learnt from it."""

    id: str  # sorts by time
    time: float  # seconds since the epoch
    route: str
    arm: str  # empty: the whole route
    kind: str  # such as "ejected", "rolled_back", "promoted", "switched_off", "reloaded"
    why: str  # one sentence
    numbers: Mapping[str, float] = field(default_factory=dict)  # that justified it


@dataclass(frozen=True, slots=True)
class Document:
    """A small thing that replicas share as a whole: a switch, a canary's step, the features of a unit."""

    stamp: int  # later writes have greater ones
    body: bytes  # empty: it was deleted


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written in one transaction."""

    decisions: Sequence[Decision] = ()
    credits: Sequence[Credit] = ()
    adds: Sequence[Add] = ()  # that hang on no outcome, such as counts of calls
    writer: str = ""  # whose `adds` these are; empty: they are added however often they are sent
    number: int = 0  # of this writer's adds, which grows: those with a number that was added already are left out
    fits: Sequence[Fit] = ()  # those that the decisions name
