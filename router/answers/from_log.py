"""What a report tells from the log alone: worked out once for each reading, as it takes longest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from protos.messages import RouteReport
from router.answers.best import Best, best_by_log
from router.answers.study import Study
from router.answers.units import by_unit, came_back
from router.answers.value import against_champion
from router.route import Route


@dataclass(frozen=True, slots=True)
class FromLog:
    """What a study of the log comes to."""

    units: RouteReport.Units | None  # None: none came back, or the route is not sticky
    by_unit: Mapping[int, RouteReport.ByUnit]  # by arm, where they did
    best: Best | None  # None: the sums know better
    champion: RouteReport.AgainstChampion


def from_log(route: Route, study: Study, *, alpha: float) -> FromLog:
    """What the log says about a route. Of twenty thousand decisions it takes a tenth of a second and more."""
    settings, units = route.settings, came_back(study)
    answering = np.array([arm not in settings.shadows for arm in study.arms])
    K = int(answering.sum())
    return FromLog(
        units,
        {}
        if units is None
        else {
            k: by_unit(study, k, route.champion, settings.reward, alpha=alpha, K=K)
            for k in np.flatnonzero(answering).tolist()
        },
        best_by_log(route.policy, study, settings, answering, together=units is not None),
        against_champion(study, settings, route.champion, alpha=alpha),
    )
