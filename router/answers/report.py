"""The report of a route: its arms, what they earn, and whether its log can be trusted.

What comes from sums counts every decision there ever was, of all replicas. What needs the order of decisions, or who
might have been drawn, is worked out from a part of the log, which the report names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bandits.anytime import difference
from bandits.anytime.verdict import MISMATCH_ALPHA
from protos.messages import RouteReport
from router.answers.best import best_by_sums
from router.answers.costs import cost_per_decision, costs_of
from router.answers.estimates import estimate, less, mean_anywhere, mean_within
from router.answers.from_log import FromLog, from_log
from router.answers.study import Study
from router.answers.terms import terms
from router.answers.units import TOO_SURE
from router.call import REWARD, Vector
from router.layers.shadow import WIDTH as SHADOW_WIDTH
from router.layers.shadow import shadow_layout
from router.learning.credit import metric_layout
from router.learning.lift import lift_row
from router.route import Route
from router.safety.canary import State, share
from router.safety.switches import Switch, frozen
from router.stores import DECISIONS

QUANTILES = (0.5, 0.95, 0.99)
"""Of latency."""

Histogram = Sequence[tuple[float, float]]
"""Upper edges in seconds, the last one infinite, and how many calls did not take longer."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a report is made of, beside the route itself."""

    sums: Mapping[tuple[str, str], Vector]  # of all replicas, by (layout, arm)
    study: Study
    now: float  # seconds since the epoch
    switches: Mapping[str, Switch] = field(default_factory=dict)  # by arm
    canary: State | None = None
    latency: Mapping[str, Histogram] = field(default_factory=dict)  # by arm


def report(route: Route, known: Known, *, alpha: float, told_by_log: FromLog | None = None) -> RouteReport:
    """What is known about a route. Raises ValueError for an alpha outside (0, 1).

    `told_by_log` is what the study of the log comes to at this alpha, where that was worked out before.
    """
    settings, sums, study = route.settings, known.sums, known.study
    by_log = told_by_log or from_log(route, study, alpha=alpha)
    decisions = np.array([_row(sums, DECISIONS, arm.name, 1)[0] for arm in route.arms])
    told = RouteReport(
        route=route.name,
        policy=terms(route.in_force),
        policy_version=route.version,
        champion=route.arms[route.champion].name,
        alpha=alpha,
        frozen=route.frozen or frozen(known.switches) is not None,
        reward_low=settings.reward.low,
        reward_high=settings.reward.high,
        cost_per_decision=cost_per_decision(settings, decisions),
        log=study.part,
    )
    answering = np.array([arm.name not in settings.shadows for arm in route.arms])
    if by_log.units is not None:
        told.units.CopyFrom(by_log.units)
    best = by_log.best or best_by_sums(route.policy, route.sums, sums, settings, answering)
    told.best_by, told.best_why = best.by, best.why
    p = route.probabilities()
    matured = _matured(study, settings.reward.window_seconds, known.now)
    costs = costs_of(settings)
    for k, arm in enumerate(route.arms):
        shown = told.arms.add(name=arm.name, model=settings.arms[arm.name].model, target=settings.arms[arm.name].where)
        shown.allowed = bool(route.allowed[k])
        shown.state, shown.why = _state(route, k, known)
        shown.decisions = decisions[k]
        shown.share = decisions[k] / max(decisions.sum(), 1.0)
        if p is not None:
            shown.probability = p[k]
        if best.p is not None and answering[k]:
            shown.best = best.p[k]
        if (share_of := matured[k]) is not None:
            shown.matured = share_of
        if (cost := settings.arms[arm.name].cost) is not None:
            shown.cost = cost
        _tell_rewards(shown, route, k, known, alpha, int(answering.sum()))
        if k in by_log.by_unit:
            shown.by_unit.CopyFrom(by_log.by_unit[k])
        if costs is not None:
            _tell_net(shown, float(costs[k] - costs[route.champion]))
        if arm.name in settings.shadows:
            _tell_shadow(shown, _row(sums, shadow_layout(settings.shadows[arm.name]), arm.name, SHADOW_WIDTH), alpha)
        for q, at_most in _quantiles(known.latency.get(arm.name, ())):
            shown.latency.add(quantile=q, at_most=at_most)
    told.mismatch.extend(_mismatches(route, study, known.now))
    if known.canary is not None:
        _tell_canary(told, route, known.canary)
    told.against_champion.CopyFrom(by_log.champion)
    told.warnings.extend([*study.amiss, *_warnings(told)])
    return told


def _tell_rewards(shown: RouteReport.Arm, route: Route, k: int, known: Known, alpha: float, K: int) -> None:
    """K arms answer, and share alpha."""
    settings, reward, name = route.settings, route.settings.reward, shown.name
    tally = _row(known.sums, REWARD, name, 3)
    shown.rewards = tally[0]
    shown.mean.CopyFrom(mean_within(tally, reward, alpha=alpha / K))
    for metric, about in settings.metrics.items():
        n, total, _ = row = _row(known.sums, metric_layout(metric), name, 3)
        better = about.better
        mean = mean_anywhere(row, alpha=alpha / K)
        shown.metrics.add(name=metric, unit=about.unit, better=better, n=n, total=total, mean=mean)
    if k == route.champion or name in settings.shadows:
        return
    champion = route.arms[route.champion].name
    row = lift_row(known.sums, name, champion, low=reward.low, high=reward.high)
    lift, width = difference(row, alpha=alpha / (K - 1)), reward.high - reward.low
    shown.compared = lift.n
    if math.isfinite(lift.low):  # before, even the effect is no more than noise
        shown.lift.CopyFrom(estimate(width * lift.effect, width * lift.low, width * lift.high))
        shown.log_e_value = lift.log_evidence


def _tell_net(shown: RouteReport.Arm, cost: float) -> None:
    """The lifts, less what the arm costs more than the champion: known for certain, so the intervals only move."""
    if shown.HasField("lift"):
        shown.net_lift.CopyFrom(less(shown.lift, cost))
    if shown.by_unit.HasField("lift"):
        shown.by_unit.net_lift.CopyFrom(less(shown.by_unit.lift, cost))


def _tell_shadow(shown: RouteReport.Arm, row: Vector, alpha: float) -> None:
    compared, different, _, _, _, failed, dropped = row.tolist()
    difference = mean_anywhere(row[2:5], alpha=alpha)
    shown.shadow.CopyFrom(
        RouteReport.Shadow(
            compared=compared, different=different, difference=difference, failed=failed, dropped=dropped
        )
    )


def _state(route: Route, k: int, known: Known) -> tuple[str, str]:
    """How an arm stands, and why: first what others have decided, and then how it does."""
    arm, settings = route.arms[k].name, route.settings
    switch = known.switches.get(arm)
    canary = settings.canary is not None and settings.canary.arm == arm
    outcome = known.canary.outcome if known.canary is not None else "running"
    if switch is not None and switch.state != "on":
        return switch.state, f"{switch.who}: {switch.why}"
    if arm in settings.shadows:
        return "shadow", ""
    if not route.switched_on[k]:
        return "off", ""
    if canary and outcome == "rolled_back":
        return "rolled_back", ""
    if not route.guard.allowed()[k]:
        return "failing", ""
    return ("canary" if canary and outcome != "promoted" else "serving"), ""


def _matured(study: Study, window: float | None, now: float) -> list[float | None]:
    due = study.due(window, now)
    shares: list[float | None] = []
    for k in range(len(study.arms)):
        mine = due & (study.chosen == k)
        shares.append(float(study.rewarded[mine].mean()) if mine.any() else None)
    return shares


def _mismatches(route: Route, study: Study, now: float) -> Iterator[RouteReport.Mismatch]:
    """Of all decisions, and of the rewarded ones among those whose reward is due: younger ones may only be slow."""
    window = route.settings.reward.window_seconds
    everything = np.ones(len(study), dtype=np.bool_)
    old = everything if window is None else study.times + window <= now
    for of, rows in ("all", everything), ("rewarded", study.rewarded & old):
        n, evidence = study.mismatch(rows)
        yield RouteReport.Mismatch(of=of, n=n, log_e_value=evidence, alarm=evidence >= -math.log(MISMATCH_ALPHA))


def _tell_canary(told: RouteReport, route: Route, state: State) -> None:
    settings = route.settings.canary
    if settings is None:
        return
    told.canary.CopyFrom(
        RouteReport.Canary(
            arm=settings.arm,
            step=state.step + 1,
            steps=len(settings.steps),
            share=share(settings, state),
            outcome=state.outcome,
            since=state.since,
        )
    )


def _quantiles(histogram: Histogram) -> Iterator[tuple[float, float | None]]:
    """Each quantile, and the edge that it lies below; None beyond the last edge. Nothing while there were no calls."""
    n = histogram[-1][1] if histogram else 0.0
    for q in QUANTILES if n else ():
        edge = next(edge for edge, count in histogram if count >= q * n)
        yield q, edge if math.isfinite(edge) else None


def _warnings(told: RouteReport) -> Iterator[str]:
    for mismatch in told.mismatch:
        if mismatch.alarm and mismatch.of == "all":
            yield "Arms were not drawn as the log says: no other number here is worth much until it is known why."
        elif mismatch.alarm:
            yield "Rewards come from some arms more than from others: some get lost, or come late; lifts are biased."
    if told.HasField("units"):
        yield TOO_SURE


def _row(sums: Mapping[tuple[str, str], Vector], layout: str, arm: str, width: int) -> Vector:
    return sums.get((layout, arm), np.zeros(width))
