"""What is done to a route, in words and with the numbers that justified it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from router.call import Event
from router.config import Change


def event(
    route: str, kind: str, *, arm: str = "", why: str, now: float, numbers: Mapping[str, float] | None = None
) -> Event:
    """An event of this moment; its id begins with the milliseconds since the epoch, so that ids sort by time.

    The rest of the id is a digest of what the event says: said twice, it is the same event.
    """
    said = "\n".join((route, arm, kind, why, repr(sorted((numbers or {}).items()))))
    id = f"{round(now * 1000):012x}{blake2b(said.encode(), digest_size=10).hexdigest()}"
    return Event(id, now, route, arm, kind, why, dict(numbers or {}))


def reloaded(changed: Iterable[Change], now: float, who: str = "") -> list[Event]:
    """What is written down of a reload: an event for each route that it changed, and who asked for it, if known."""
    said: dict[str, list[str]] = {}
    for change in changed:
        if change.route:
            said.setdefault(change.route, []).append(change.what)
    asked = f"{who}: " if who else ""
    return [event(route, "reloaded", why=asked + "; ".join(lines), now=now) for route, lines in said.items()]
