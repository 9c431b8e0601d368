"""Switches: what operators and guardrails have decided about an arm, shared by all replicas and kept over restarts.

Each is a document of the store. An operator's word is the last one: an arm that is switched off stays off, whatever
policy, rules or health say, and one that a guardrail has ejected comes back when an operator switches it on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from bandits import Mask
from router.call import Document, Event
from router.safety.events import event
from router.stores import Store

ROUTE = "*"
"""Key of the switch of the route itself: "frozen", or on."""


Position: TypeAlias = Literal["on", "off", "ejected", "frozen"]


class Switch(msgspec.Struct, frozen=True):
    """What was decided, by whom, when and why."""

    state: Position
    who: str  # an operator, or the guardrail
    why: str
    time: float  # seconds since the epoch; what happened before is not held against an arm that is on again
    version: str = ""  # of the policy that stays, where the route is frozen


def kind(route: str) -> str:
    """Kind of the documents that hold a route's switches, by arm."""
    return f"switches:{route}"


def encode(switch: Switch) -> bytes:
    """A switch as the body of its document."""
    return msgspec.json.encode(switch)


def decode(documents: Mapping[str, Document]) -> dict[str, Switch]:
    """The switches of a route by arm, from its documents. Raises ValueError for a body that is none."""
    return {key: msgspec.json.decode(each.body, type=Switch) for key, each in documents.items() if each.body}


def switched_on(switches: Mapping[str, Switch], arms: Sequence[str]) -> Mask:
    """The arms that may be used, one flag an arm."""
    return np.array([arm not in switches or switches[arm].state == "on" for arm in arms])


def watched_since(switches: Mapping[str, Switch]) -> dict[str, float]:
    """When arms were switched on again: guardrails begin anew from there."""
    return {arm: switch.time for arm, switch in switches.items() if arm != ROUTE and switch.state == "on"}


def frozen(switches: Mapping[str, Switch]) -> str | None:
    """The version of the policy that a frozen route stays with; None: it learns."""
    switch = switches.get(ROUTE)
    return switch.version if switch is not None and switch.state == "frozen" else None


def frozen_with(store: Store, route: str) -> str | None:
    """The same, of the switches in the store, where that of the route can be read. Raises StoreError."""
    try:
        return frozen(decode({ROUTE: store.documents(kind(route))[ROUTE]}))
    except (KeyError, ValueError):
        return None


def switch(store: Store, route: str, key: str, to: Switch) -> tuple[dict[str, Switch], Event]:
    """Does what an operator says of an arm or of the route, and writes down with it that it was done.

    Returns how the switches stand, and what was written down. It overrules whoever else writes at the same time.
    Raises StoreError, and then neither was written, or both were.
    """
    what = {"on": "switched_on", "off": "switched_off"}.get(to.state, to.state)
    said = event(route, what, arm="" if key == ROUTE else key, why=f"{to.who}: {to.why}", now=to.time)
    store.put(kind(route), {key: encode(to)}, events=[said])
    return decode(store.documents(kind(route))), said
