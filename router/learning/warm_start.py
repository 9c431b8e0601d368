"""To begin with what another route has learnt about arms of the same names, from its log.

What its log teaches is worked out once and kept as a document, which every replica adds to the sums when it fits. So it
counts once, is never mixed with what the route learns itself, and goes when the setting goes. What it was worked out by
names the document: replicas that run by other settings, in a rolling reload, leave each other's alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import msgspec
import numpy as np

from bandits import Policy
from router.call import REWARD, Vector
from router.config import Route as Settings
from router.errors import ConfigError
from router.stores import Store

_log = logging.getLogger(__name__)

EVERY = 64
"""Decisions between two pauses."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a log teaches."""

    rows: Vector  # [K, width]
    rewards: int  # that they are from
    whole: bool  # whether the log was read to its end, or to the time that was asked for


def documents_of(route: str) -> str:
    """Kind of the documents that hold the rows that logs have taught a route, by the digest of what those are for."""
    return f"warm_start:{route}"


def warm_start(store: Store, name: str, settings: Settings, policy: Policy, layout: str) -> Vector:
    """The rows [K, width] that the log of another route adds to the sums of this one; zeros where that is not asked.

    `layout` names what the rows hold. Reads the whole log the first time. Raises ConfigError when contexts differ, and
    StoreError.
    """
    arms = list(settings.arms)
    if settings.warm_start is None:
        return np.zeros((len(arms), policy.width))
    origin = msgspec.json.encode((settings.warm_start, layout, arms))
    kind, key = documents_of(name), blake2b(origin, digest_size=8).hexdigest()
    while (document := store.documents(kind).get(key)) is None:
        lesson = taught(store, settings, policy)
        if not lesson.rewards:
            _log.warning("route %s begins with nothing: %r has no reward for it", name, settings.warm_start.route)
        # Another replica may be faster: then its lesson counts.
        store.put(kind, {key: msgspec.json.encode(lesson.rows.tolist())}, expected=0)
    return np.array(msgspec.json.decode(document.body, type=list[list[float]]))


def taught(
    store: Store,
    settings: Settings,
    policy: Policy,
    before: float = math.inf,
    *,
    most: int | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Lesson:
    """What the log that `settings.warm_start` names teaches a policy, by the rewards that were known `before` a time.

    Reads the log, or the first `most` decisions of it, and writes nothing; `pause` is called now and then. Raises
    ValueError where no log is named, ConfigError when contexts differ, and StoreError.
    """
    told = settings.warm_start
    if told is None:
        raise ValueError("warm_start: no log is named to learn from")
    arms = {arm: index for index, arm in enumerate(settings.arms)}
    rows, rewards = np.zeros((len(arms), policy.width)), 0
    checked: set[str] = set()
    log = store.log(told.route)
    for read, (decision, outcomes) in enumerate(islice(log, most)):
        if read % EVERY == 0:
            pause()
        if decision.time >= before:
            return Lesson(rows, rewards, whole=True)
        reward = outcomes.get(REWARD)
        if (
            reward is None
            or reward.time >= before
            or decision.arm not in arms
            or not settings.reward.low <= reward.value <= settings.reward.high
        ):
            continue
        context = None
        if policy.features:
            if decision.policy_version not in checked:
                _check_context(store, told.route, decision.policy_version, settings)
                checked.add(decision.policy_version)
            context = np.array(decision.context)
        share = settings.share(decision.arm, reward.value)
        rows[arms[decision.arm]] += told.weight * policy.delta(share, context, decision.propensity)
        rewards += 1
    return Lesson(rows, rewards, whole=next(log, None) is None)


def _check_context(store: Store, source: str, version: str, settings: Settings) -> None:
    """Raises ConfigError unless the source's contexts meant, at a version of its policy, what this route's mean."""
    fit = store.fit(source, version)
    theirs = None if fit is None else msgspec.json.decode(fit.settings).get("context")
    if theirs != msgspec.to_builtins(settings).get("context"):
        raise ConfigError(
            f"warm_start.route: {source!r} logged another context than this route reads; they must be declared alike"
        )
