"""Sums that nothing reads any more: those of eras long past, and of what another configuration asked for.

An era's end is the same for all who learn into its layout, so those that count nothing are forgotten at once. What one
replica does not read, another that still runs an older configuration may, and so may this one when it is rolled back.
So it is noted when a layout was found unread, as a document; whoever reads it takes the note away. What nobody has
taken away for long is forgotten.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from router.learning.fitting import Sums, policy_layout
from router.learning.lift import lift_prefix
from router.route import Route
from router.stores import Store

KINDS = ("policy:", "lift:", "watched:", "odds:", "weighed:")
"""How layouts begin that belong to a configuration. Tallies of decisions, rewards and metrics are everybody's."""

LEAST_SECONDS = 7 * 86_400.0
"""For which what nobody reads is kept at least: a configuration may be rolled back, and find what it had learnt."""


def documents_of(route: str) -> str:
    """Kind of the documents that say since when, in seconds since the epoch, layouts of a route are unread."""
    return f"unread:{route}"


def past(route: Route, sums: Sums, now: float) -> set[str]:
    """Layouts of the eras that count nothing at `now`, nor for a replica whose clock is behind by an era."""
    half_life = route.settings.half_life
    if half_life is None:
        return set()
    start, oldest = policy_layout(route) + "@", half_life.oldest(now) - 1
    return {layout for layout, _ in sums if layout.startswith(start) and int(layout.removeprefix(start)) < oldest}


def unread(route: Route, sums: Sums) -> set[str]:
    """Layouts that belong to a configuration, and not to the one that the route runs by."""
    learns, reward = policy_layout(route), route.settings.reward
    compares = lift_prefix(reward.low, reward.high)
    watched = {layout for watch in route.watches for layout in watch.layouts()}
    return {
        layout
        for layout, _ in sums
        if layout.startswith(KINDS)
        and layout != learns
        and not layout.startswith((learns + "@", compares))
        and layout not in watched
    }


def forget_unread(store: Store, route: Route, now: float, *, after: float) -> None:
    """Forgets the sums of a route that nobody has read for `after` seconds, and notes what is unread from now on.

    Raises StoreError.
    """
    sums = store.sums(route.name)
    if gone := past(route, sums, now):
        store.drop(route.name, gone)
    idle, kind = unread(route, sums), documents_of(route.name)
    notes = store.documents(kind)
    _note(store, kind, idle - notes.keys(), b"%.0f" % now)
    _note(store, kind, notes.keys() - idle, b"")
    for layout in idle & notes.keys():
        note = notes[layout]
        # Nobody has taken the note away, nor does so now.
        if now - float(note.body) >= max(after, LEAST_SECONDS) and store.put(kind, {layout: b""}, expected=note.stamp):
            store.drop(route.name, [layout])


def _note(store: Store, kind: str, layouts: AbstractSet[str], body: bytes) -> None:
    if layouts:
        store.put(kind, dict.fromkeys(layouts, body))
