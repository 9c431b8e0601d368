"""To begin with what another route has learnt about arms of the same names, from its log.

What its log teaches is worked out once and kept as a document, which every replica adds to the sums when it fits. So it
counts once, is never mixed with what the route learns itself, and goes when the setting goes.
"""

from __future__ import annotations

import msgspec
import numpy as np

from bandits import Policy
from router.call import REWARD, Vector
from router.config import Route as Settings
from router.errors import ConfigError
from router.stores import Store

DOCUMENTS = "warm_start"


class _Lesson(msgspec.Struct, frozen=True):
    """What a log taught, and by what it is still right."""

    origin: str  # the route, the weight, the layout and the arms, as JSON
    rows: list[list[float]]
    rewards: int


def warm_start(store: Store, name: str, settings: Settings, policy: Policy, layout: str) -> Vector:
    """The rows [K, width] that the log of another route adds to the sums of this one; zeros where that is not asked.

    `layout` names what the rows hold. Reads the whole log the first time. Raises ConfigError when contexts differ, and
    StoreError.
    """
    arms = list(settings.arms)
    if settings.warm_start is None:
        return np.zeros((len(arms), policy.width))
    origin = msgspec.json.encode((settings.warm_start, layout, arms)).decode()
    while True:
        kept = store.documents(DOCUMENTS).get(name)
        lesson = None if kept is None else msgspec.json.decode(kept.body, type=_Lesson)
        if lesson is None or lesson.origin != origin:
            lesson = _learn(store, origin, settings, policy)
            body = msgspec.json.encode(lesson)
            if not store.put(DOCUMENTS, {name: body}, expected=0 if kept is None else kept.stamp):
                continue  # another replica was faster: its lesson counts
        return np.array(lesson.rows)


def _learn(store: Store, origin: str, settings: Settings, policy: Policy) -> _Lesson:
    told = settings.warm_start
    if told is None:
        raise ValueError("no log is named to learn from")
    arms = {arm: index for index, arm in enumerate(settings.arms)}
    rows, rewards = np.zeros((len(arms), policy.width)), 0
    checked: set[str] = set()
    for decision, outcomes in store.log(told.route):
        reward = outcomes.get(REWARD)
        if (
            reward is None
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
    return _Lesson(origin, rows.tolist(), rewards)


def _check_context(store: Store, source: str, version: str, settings: Settings) -> None:
    """Raises ConfigError unless the source's contexts meant, at a version of its policy, what this route's mean."""
    fit = store.fit(source, version)
    theirs = None if fit is None else msgspec.json.decode(fit.settings).get("context")
    if theirs != msgspec.to_builtins(settings).get("context"):
        raise ConfigError(
            f"warm_start.route: {source!r} logged another context than this route reads; they must be declared alike"
        )
