"""What an experiment is worth: what it earned, against a champion that always answers."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from bandits import Log, evaluate
from bandits.predictions import ridge_predictions
from protos.messages import Estimate, RouteReport
from router.answers.estimates import estimate
from router.answers.study import Study
from router.answers.units import came_back, mean_by_unit
from router.call import Vector
from router.config import Route as Settings

_INDICES = re.compile(r"(play(?:s|ed): )(\d+(?:, \d+)*)")


def cost_of(settings: Settings, arm: str) -> float | None:
    """What a decision for an arm costs, as declared, in the unit of the reward; None where nothing is."""
    return settings.arms[arm].cost


def cost_per_decision(settings: Settings, decisions: Vector) -> float | None:
    """What a decision has cost on average, from how many each arm got; None where nothing is declared."""
    costs = [cost_of(settings, arm) for arm in settings.arms]
    if all(cost is None for cost in costs) or not decisions.sum() > 0.0:
        return None
    return float(decisions @ np.array([cost or 0.0 for cost in costs]) / decisions.sum())


def against_champion(study: Study, settings: Settings, champion: int, *, alpha: float) -> RouteReport.AgainstChampion:
    """What was earned at the rewarded decisions that could have gone to the champion, and what it would have earned.

    The one is a fact. The other is told from the log (`bandits.evaluate`), with an interval that holds at all times.
    Where units came back, their decisions are not independent: then both are told by unit as well.
    """
    rows = study.rewarded & study.answered & ~study.stood_in & study.allowed[:, champion]
    n = int(rows.sum())
    told = RouteReport.AgainstChampion(decisions=n)
    if n < 2:  # noqa: PLR2004  # one has no standard error
        told.why = f"There are {n} rewarded decisions."
        return told
    low, width = settings.reward.low, settings.reward.high - settings.reward.low
    log = study.log(rows, low=low, high=settings.reward.high)
    always = np.zeros((n, log.K))
    always[:, champion] = 1.0
    q = ridge_predictions(log, folds=min(5, n))
    judged = evaluate(log, always, predictions=q, floor=study.floor(rows), alpha=alpha)
    told.earned = earned = low + width * float(log.rewards.mean())
    told.why = named(judged.why, study.arms)
    told.warnings.extend(named(warning, study.arms) for warning in judged.overlap.warnings)
    costs = np.array([cost_of(settings, arm) or 0.0 for arm in study.arms])
    if costs.any():
        told.cost = float((costs[log.arms] - costs[champion]).sum())
    if judged.answerable:
        value, least, most = (low + width * x for x in (judged.dr.value, judged.low, judged.high))
        told.champion.CopyFrom(estimate(value, least, most))
        told.gain.CopyFrom(estimate(earned - value, earned - most, earned - least))
        told.total.CopyFrom(estimate(n * (earned - value), n * (earned - most), n * (earned - least)))
        if told.HasField("cost") and told.cost > 0.0:
            told.on_investment = told.total.value / told.cost
        if came_back(study) is not None:
            scores = q[:, champion] + log.weights(always) * (log.rewards - q[np.arange(n), log.arms])
            told.by_unit.CopyFrom(_by_unit(study.units[rows], log, scores, low, width, alpha))
    return told


def _by_unit(
    units: NDArray[np.intp], log: Log, scores: Vector, low: float, width: float, alpha: float
) -> RouteReport.AgainstChampion.ByUnit:
    """The gain is the mean, over decisions, of what one earned less what the champion would have: `scores`, [n].

    The two are subtracted decision by decision, so that what makes all rewards of a unit good is in neither.
    """
    n = len(log)
    value, _ = mean_by_unit(units, low + width * scores, alpha=alpha)
    gain, effect = mean_by_unit(units, width * (log.rewards - scores), alpha=alpha)
    total = Estimate(value=n * gain.value)
    if gain.HasField("low"):
        total.low, total.high = n * gain.low, n * gain.high
    return RouteReport.AgainstChampion.ByUnit(
        units=len(np.unique(units)), design_effect=effect, champion=value, gain=gain, total=total
    )


def named(sentence: str, arms: tuple[str, ...]) -> str:
    """A sentence of `bandits.Overlap`, with the names of arms in the place of their indices."""
    return _INDICES.sub(lambda found: found[1] + ", ".join(arms[int(k)] for k in found[2].split(", ")), sentence)
