"""The words of the router: a call, a reply, a decision, a reward."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from protos.messages import ModelInferRequest

Vector: TypeAlias = NDArray[np.float64]


@dataclass(slots=True)
class Call:
    """One inference request on its way to an arm."""

    route: str
    request: ModelInferRequest
    body: bytes  # the request as it came, for upstreams that pass it on
    unit: str = ""  # who is experimented on; empty: nobody in particular
    context: Vector | None = None  # features a contextual policy reads
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None  # on the event loop's clock


@dataclass(slots=True)
class Reply:
    """An answer: a serialized ModelInferResponse, and what goes into the trailing metadata."""

    body: bytes
    metadata: list[tuple[str, str]] = field(default_factory=list)


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]
"""A server is a function. A route, an upstream and the whole router are Handlers; all may raise a CallError."""

Layer: TypeAlias = Callable[[Handler], Handler]


# One is made for each request, and a dataclass would take ten times as long.
class Decision(msgspec.Struct, frozen=True, gc=False):
    """That an arm was chosen, and with what probability. Written down before anyone learns from it."""

    id: str
    route: str
    arm: str
    propensity: float
    time: float  # seconds since the epoch
    policy_version: str
    unit: str = ""
    context: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reward:
    """What a decision earned, as its client reported it."""

    decision: str
    value: float  # in the route's declared range
    time: float  # seconds since the epoch
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth: float | None = None


@dataclass(frozen=True, slots=True)
class Add:
    """A row to add to the sums of one arm."""

    route: str
    layout: str  # what the row holds; sums of another layout are never touched
    arm: str
    row: Vector


@dataclass(frozen=True, slots=True)
class Credit:
    """A reward and what it adds. Both happen, once, or neither does."""

    reward: Reward
    adds: tuple[Add, ...]
