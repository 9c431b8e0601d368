"""What an experiment is worth: what it earned, against a champion that always answers."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from bandits import evaluate
from bandits.predictions import ridge_predictions
from protos.messages import RouteReport
from router.answers.costs import costs_of
from router.answers.estimates import estimate
from router.answers.paired import Paired, mean_difference, paired, times
from router.answers.study import Study
from router.answers.tables import how_many
from router.answers.units import came_back, mean_by_unit
from router.config import Route as Settings

_INDICES = re.compile(r"(play(?:s|ed): )(\d+(?:, \d+)*)")


def against_champion(study: Study, settings: Settings, champion: int, *, alpha: float) -> RouteReport.AgainstChampion:
    """What was earned at the rewarded decisions that could have gone to the champion, and what it would have earned.

    The one is a fact. The other is told from the log (`bandits.evaluate`), with an interval that holds at all times.
    The gain is the mean of what was earned less what the champion would have, so its interval is that of their
    differences. Where units came back, their decisions are not independent: then all is told by unit as well.
    """
    rows = study.rewarded & study.answered & ~study.stood_in & study.allowed[:, champion]
    n = int(rows.sum())
    told = RouteReport.AgainstChampion(decisions=n)
    if n < 2:  # noqa: PLR2004  # one has no standard error
        told.why = f"The log holds {how_many(n, 'rewarded decision')} that could have gone there."
        return told
    low, width = settings.reward.low, settings.reward.high - settings.reward.low
    log = study.log(rows, low=low, high=settings.reward.high)
    always = np.zeros((n, log.K))
    always[:, champion] = 1.0
    q = ridge_predictions(log, folds=min(5, n))
    judged = evaluate(log, always, predictions=q, floor=study.floor(rows), alpha=alpha)
    told.earned = low + width * float(log.rewards.mean())
    told.why = named(judged.why, study.arms)
    told.warnings.extend(named(warning, study.arms) for warning in judged.overlap.warnings)
    if (costs := costs_of(settings)) is not None:
        told.cost = float((costs[log.arms] - costs[champion]).sum())
    if judged.answerable:
        told.champion.CopyFrom(estimate(*(low + width * x for x in (judged.dr.value, judged.low, judged.high))))
        pairs = paired(log, always, q, settings)
        told.gain.CopyFrom(mean_difference(-pairs.lift, alpha=alpha))
        told.total.CopyFrom(times(n, told.gain))
        if pairs.net is not None:
            told.net.CopyFrom(times(n, mean_difference(-pairs.net, alpha=alpha)))
        if told.cost > 0.0:
            told.on_investment = told.net.value / told.cost
        if came_back(study) is not None:
            told.by_unit.CopyFrom(_by_unit(study.units[rows], pairs, alpha))
    return told


def _by_unit(units: NDArray[np.intp], pairs: Paired, alpha: float) -> RouteReport.AgainstChampion.ByUnit:
    n = len(units)
    value, _ = mean_by_unit(units, pairs.scores, alpha=alpha)
    gain, effect = mean_by_unit(units, -pairs.lift, alpha=alpha)
    told = RouteReport.AgainstChampion.ByUnit(
        units=len(np.unique(units)), design_effect=effect, champion=value, gain=gain, total=times(n, gain)
    )
    if pairs.net is not None:
        told.net.CopyFrom(times(n, mean_by_unit(units, -pairs.net, alpha=alpha)[0]))
    return told


def named(sentence: str, arms: tuple[str, ...]) -> str:
    """A sentence of `bandits.Overlap`, with the names of arms in the place of their indices."""
    return _INDICES.sub(lambda found: found[1] + ", ".join(arms[int(k)] for k in found[2].split(", ")), sentence)
