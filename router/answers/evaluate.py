"""What another policy would have earned, told from the log of a route."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandits import Log, Policy, Split, evaluate, target_of
from bandits.anytime import mean_interval
from bandits.predictions import ridge_predictions
from bandits.wrapper import Wrapper
from protos.errors import InvalidArgument
from protos.messages import Evaluation
from router.answers.costs import costs_of
from router.answers.estimates import estimate
from router.answers.paired import mean_difference, paired
from router.answers.study import Study
from router.answers.tables import how_many
from router.answers.terms import terms
from router.answers.units import TOO_SURE, came_back, mean_by_unit
from router.answers.value import named
from router.call import Vector
from router.config import Route as Settings
from router.errors import ConfigError
from router.learning.warm_start import Lesson

Warm: TypeAlias = Callable[[Policy, float], Lesson]
"""What a policy begins with by its warm start, from the rewards that were known before a time."""

FEWEST = 4
"""Decisions: half of them to learn from, and two to be judged on."""


def evaluation(study: Study, name: str, settings: Settings, *, alpha: float, warm: Warm | None = None) -> Evaluation:
    """What the policy of `settings` would have earned at the rewarded decisions of a log; `name` is the route's.

    That is the value of what would have been served, had it been in charge of every draw: with its floor or budget,
    among the arms that rules, guard and switches allowed at each decision, as logged.

    What learns has learnt from the older half, and is judged on the newer one, for a log that it had learnt from would
    flatter it. It begins with its warm start, read by `warm`, as far as that was known before the first decision that
    it is judged on. One from the route's own log is left out, for it would count twice.

    The estimate is doubly robust, its interval holds at all times. The lift is of the same decisions, so its interval
    is that of their differences: an asymptotic one, so none before a hundred.
    Raises InvalidArgument for a policy that cannot be fitted, and for one that reads a context that is not in the log.
    """
    policy = settings.build_policy()
    rows = np.flatnonzero(study.rewarded & study.answered & ~study.stood_in)
    if policy.features and study.contexts is not None:
        rows = rows[np.isfinite(study.contexts[rows]).all(axis=1)]
    older = rows[: len(rows) // 2] if _learns(policy) else rows[:0]
    newer = rows[len(older) :]
    told = Evaluation(
        route=name,
        policy=terms(settings),
        alpha=alpha,
        learnt_from=len(older),
        judged_on=len(newer),
        log=study.part,
        warnings=study.amiss,
    )
    for arm in study.arms:
        told.arms.add(name=arm)
    if len(rows) < FEWEST:
        told.why = f"The log holds {how_many(len(rows), 'rewarded decision')} that it could be told from."
        return told
    low, high = settings.reward.low, settings.reward.high
    log = study.log(newer, low=low, high=high)
    try:
        sums = _learnt(policy, settings, study, older)
        if settings.warm_start is not None and _learns(policy):
            sums += _begun_with(told, settings, policy, float(study.times[newer[0]]), warm)
        target = target_of(policy, sums, log)
    except (ValueError, ConfigError) as error:
        raise InvalidArgument(f"policy: it cannot be judged on this log: {error}") from None
    _tell(told, log, target, study, newer, settings)
    if told.learnt_from:
        told.warnings.append(
            f"It was judged as it stood after {how_many(told.learnt_from, 'reward')}; serving, it would have learnt on."
        )
    return told


def _tell(told: Evaluation, log: Log, target: Vector, study: Study, rows: NDArray[np.intp], settings: Settings) -> None:
    n, alpha = len(log), told.alpha
    low, width = settings.reward.low, settings.reward.high - settings.reward.low
    q = ridge_predictions(log, folds=min(5, n))
    judged = evaluate(log, target, predictions=q, floor=study.floor(rows), alpha=alpha)
    arms = tuple(arm.name for arm in told.arms)
    told.answerable, told.why = judged.answerable, named(judged.why, arms)
    told.warnings.extend(named(warning, arms) for warning in judged.overlap.warnings)
    told.effective_rows, told.largest_weight = judged.overlap.effective_rows, judged.overlap.largest_weight
    for k, arm in enumerate(told.arms):
        arm.share, arm.wanted = float((log.arms == k).mean()), float(target[:, k].mean())
    for name, each in judged.estimates.items():
        told.estimators.add(name=name, value=low + width * each.value, error=width * each.error)
    told.value.CopyFrom(estimate(*(low + width * x for x in (judged.dr.value, judged.low, judged.high))))
    mean = float(log.rewards.mean())
    told.earned.CopyFrom(estimate(*(low + width * x for x in (mean, *mean_interval(log.rewards, alpha=alpha)))))
    pairs = paired(log, target, q, settings)
    told.lift.CopyFrom(mean_difference(pairs.lift, alpha=alpha))
    if (costs := costs_of(settings)) is not None and pairs.net is not None:
        told.cost, told.had_cost = float((target @ costs).mean()), float(costs[log.arms].mean())
        told.net_lift.CopyFrom(mean_difference(pairs.net, alpha=alpha))
    if came_back(study) is not None:
        units = study.units[rows]
        value, _ = mean_by_unit(units, pairs.scores, alpha=alpha)
        lift, effect = mean_by_unit(units, pairs.lift, alpha=alpha)
        number = len(np.unique(units))
        told.by_unit.CopyFrom(Evaluation.ByUnit(units=number, design_effect=effect, value=value, lift=lift))
        if pairs.net is not None:
            told.by_unit.net_lift.CopyFrom(mean_by_unit(units, pairs.net, alpha=alpha)[0])
        told.warnings.append(TOO_SURE)


def _learnt(policy: Policy, settings: Settings, study: Study, rows: NDArray[np.intp]) -> Vector:
    """The sums that some rows teach, as of the last of them: by what they were worth, as the route teaches."""
    sums = np.zeros((len(study.arms), policy.width))
    if not len(rows):
        return sums
    log = study.log(rows, low=settings.reward.low, high=settings.reward.high)
    if policy.features and log.contexts is None:
        raise ValueError("it reads a context, and the log has none of that meaning")
    half_life = settings.half_life_seconds
    ages = study.times[rows[-1]] - study.times[rows]
    weights = np.ones(len(rows)) if half_life is None else np.exp2(-ages / half_life)
    for i, (arm, reward, propensity) in enumerate(zip(log.arms, study.rewards[rows], log.propensities, strict=True)):
        context = None if log.contexts is None or not policy.features else log.contexts[i]
        worth = settings.share(study.arms[arm], float(reward))
        sums[arm] += weights[i] * policy.delta(worth, context, float(propensity))
    return sums


def _begun_with(told: Evaluation, settings: Settings, policy: Policy, before: float, warm: Warm | None) -> Vector:
    """The sums that the warm start gives, and says so."""
    source = settings.warm_start.route if settings.warm_start is not None else ""
    nothing = np.zeros((len(told.arms), policy.width))
    if source == told.route:
        told.warnings.append("Its warm start is left out: that is the route's own log, and would count twice.")
        return nothing
    if warm is None:
        told.warnings.append(f"Its warm start from route {source!r} is left out: that log is not at hand.")
        return nothing
    lesson = warm(policy, before)
    told.warnings.append(
        f"It began with {how_many(lesson.rewards, 'reward')} of route {source!r}, its warm start: those that were "
        "known before the first decision that it was judged on"
        + ("." if lesson.whole else ", of the oldest decisions of that log; the rest was not read.")
    )
    return lesson.rows


def _learns(policy: Policy) -> bool:
    """Whether its probabilities depend on rewards: not those of a plain split."""
    held_back = False
    while isinstance(policy, Wrapper):
        held_back = held_back or hasattr(policy, "champion")
        policy = policy.policy
    return held_back or not isinstance(policy, Split)
