"""The report of a route as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from protos.messages import RouteReport
from router.answers.tables import (
    NOTHING,
    Ink,
    alarms,
    chance,
    count,
    e_value,
    interval,
    level,
    log_part,
    middle,
    moment,
    number,
    seconds,
    share,
    table,
    wrapped,
)


def show_report(told: RouteReport, ink: Ink) -> Iterator[str]:
    """Lines for a report."""
    frozen = ", frozen: it learns nothing" if told.frozen else ""
    yield ink.heading(f"{told.route}: {told.policy}")
    yield f"version {told.policy_version}{frozen}; champion {told.champion}"
    yield from alarms(told.warnings, ink)
    yield ""
    yield from table(ink, *_traffic(told), texts=(0, 1))
    if any(arm.latency for arm in told.arms):
        yield "Latency is of calls by this process; decisions and rewards are of all replicas."
    for arm in told.arms:
        if arm.why:
            yield f"{arm.name} is {arm.state}: {arm.why}"
        if arm.HasField("shadow"):
            yield _shadow(arm.name, arm.shadow)
    yield ""
    yield from table(ink, *_earnings(told))
    span = f"Rewards lie in {number(told.reward_low)} to {number(told.reward_high)}"
    yield f"{span}. Intervals hold for all arms together, however often one looks."
    yield from wrapped(_lift(told))
    yield from wrapped(_best(told))
    if told.HasField("units"):
        yield ""
        yield from table(ink, *_by_unit(told))
        yield from wrapped(_units(told))
    if any(arm.metrics for arm in told.arms):
        yield ""
        yield from table(ink, *_metrics(told), texts=(0, 1, 2, 7))
    if told.HasField("cost_per_decision"):
        yield f"A decision has cost {number(told.cost_per_decision)} on average, as declared."
    yield ""
    yield from _canary(told)
    yield from _champion(told)
    for mismatch in told.mismatch:
        if mismatch.n:
            yield _mismatch(mismatch, ink)
    yield log_part(told.log)
    yield ""
    yield (
        f"next: croupier events {told.route}   croupier explain DECISION   croupier evaluate {told.route} --policy FILE"
    )


def _traffic(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    quantiles = [each.quantile for each in max((arm.latency for arm in told.arms), key=len, default=())]
    headings = ["arm", "state", "p now", "share", "decisions", "rewards", "matured"]
    rows = []
    for arm in told.arms:
        p = f"{arm.probability:.3f}" if arm.HasField("probability") else "varies"  # by context
        matured = share(arm.matured) if arm.HasField("matured") else NOTHING
        slow = [f"<{seconds(each.at_most)}" if each.HasField("at_most") else "longer" for each in arm.latency]
        slow += [NOTHING] * (len(quantiles) - len(slow))
        counts = [share(arm.share), count(arm.decisions), count(arm.rewards), matured]
        rows.append([arm.name, arm.state, p, *counts, *slow])
    return headings + [f"p{100 * q:g}" for q in quantiles], rows


def _shadow(name: str, told: RouteReport.Shadow) -> str:
    apart = f", by {number(told.difference.value)} on average" if told.difference.HasField("value") else ""
    return (
        f"{name} answered {count(told.compared)} copies, {count(told.different)} of them otherwise{apart}; "
        f"{count(told.failed)} failed, {count(told.dropped)} were dropped"
    )


def _earnings(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        lift = ["champion", ""]
        if arm.name != told.champion:
            lift = [middle(arm.lift, signed=True), interval(arm.lift, signed=True)]
        evidence = e_value(arm.log_e_value) if arm.HasField("log_e_value") else NOTHING
        best = chance(arm.best) if arm.HasField("best") else NOTHING
        rows.append([arm.name, middle(arm.mean), interval(arm.mean), *lift, evidence, best])
    within = level(told.alpha)
    return ["arm", "mean reward", within, "lift", within, "e-value", "P(best)"], rows


def _lift(told: RouteReport) -> str:
    compared = sum(arm.name != told.champion and arm.state != "shadow" for arm in told.arms)
    if not compared:
        return ""
    least = number(compared / told.alpha)
    return f"Lift is over {told.champion}; where its e-value is {least} or more, its interval leaves out 0."


def _best(told: RouteReport) -> str:
    if told.best_by:
        return f"P(best), the probability of earning the most, is told from {told.best_by}."
    return f"P(best) is not known. {told.best_why or 'Too little is known of the arms.'}"


def _by_unit(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        if not arm.HasField("by_unit"):
            continue
        known = arm.by_unit
        each = number(known.decisions / known.units) if known.units else NOTHING
        effect = number(known.design_effect) if known.HasField("design_effect") else NOTHING
        lift = ["champion", ""]
        if arm.name != told.champion:
            lift = [middle(known.lift, signed=True), interval(known.lift, signed=True)]
        evidence = e_value(known.log_e_value) if known.HasField("log_e_value") else NOTHING
        counts = [count(known.units), each, effect]
        rows.append([arm.name, *counts, middle(known.mean), interval(known.mean), *lift, evidence])
    within = level(told.alpha)
    headings = ["arm", "units", "rewards a unit", "design effect", "by unit: mean", within, "lift", within, "e-value"]
    return headings, rows


def _units(told: RouteReport) -> str:
    units = told.units
    return (
        f"By unit, of the log that was read: {count(units.units)} units drew {count(units.decisions)} times, one of "
        f"them {count(units.most)} times. With a design effect of 5, five decisions tell as much of the mean as one "
        "of a unit's own. There are intervals from 100 units on."
    )


def _metrics(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        for each in arm.metrics:
            numbers = [count(each.n), number(each.total), middle(each.mean), interval(each.mean)]
            rows.append([arm.name, each.name, each.unit, *numbers, f"{each.better} is better"])
    return ["arm", "metric", "unit", "n", "total", "mean", level(told.alpha), ""], rows


def _mismatch(told: RouteReport.Mismatch, ink: Ink) -> str:
    of = "" if told.of == "all" else f"{told.of} "
    how = "not drawn" if told.alarm else "drawn"
    evidence = f"sample ratio mismatch: e-value {e_value(told.log_e_value)}"
    line = f"Arms of {count(told.n)} {of}decisions were {how} as the log says ({evidence})."
    return ink.alarm(line) if told.alarm else line


def _canary(told: RouteReport) -> Iterator[str]:
    if told.HasField("canary"):
        canary = told.canary
        outcome = canary.outcome.replace("_", " ")
        yield (
            f"Canary {canary.arm}: {outcome}, step {canary.step} of {canary.steps}, with a share of "
            f"{share(canary.share)}; it began at {moment(canary.since)} UTC."
        )


def _champion(told: RouteReport) -> Iterator[str]:
    value = told.against_champion
    if not value.HasField("champion"):
        yield from wrapped(f"What {told.champion} alone would have earned cannot be told. {value.why}".rstrip())
        return
    yield (
        f"Against {told.champion} alone: {middle(value.gain, signed=True)} a decision "
        f"({interval(value.gain, signed=True)}), {middle(value.total, signed=True)} in {count(value.decisions)} "
        "rewarded decisions."
    )
    if value.HasField("by_unit"):
        units = value.by_unit
        effect = f", design effect {number(units.design_effect)}" if units.HasField("design_effect") else ""
        yield (
            f"By unit: {middle(units.gain, signed=True)} a decision ({interval(units.gain, signed=True)}), from "
            f"{count(units.units)} units{effect}."
        )
    if value.HasField("cost"):
        worth = f", {value.on_investment:.4g} for each unit spent" if value.HasField("on_investment") else ""
        yield f"They cost {value.cost:+.4g} against its cost{worth}."
    for warning in value.warnings:
        yield from wrapped(warning)
