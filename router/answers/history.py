"""What was done to a route, as a message."""

from __future__ import annotations

from collections.abc import Sequence

from protos.messages import RouteEvents
from router.call import Event

MOST = 1000
"""Events in an answer, where nobody says how many."""


def history(route: str, events: Sequence[Event], *, after: str = "", most: int = 0) -> RouteEvents:
    """The events of a route, of which these are all after `after`: the next ones, or without `after` the newest."""
    most = most or MOST
    told = RouteEvents(route=route)
    for event in events[:most] if after else events[-most:]:
        told.events.add(
            id=event.id, time=event.time, arm=event.arm, kind=event.kind, why=event.why, numbers=dict(event.numbers)
        )
    return told
