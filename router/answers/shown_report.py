"""The report of a route as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from protos.messages import Estimate, RouteReport
from router.answers.tables import (
    NOTHING,
    Ink,
    alarms,
    chance,
    count,
    e_value,
    how_many,
    interval,
    level,
    log_part,
    middle,
    moment,
    next_steps,
    number,
    seconds,
    share,
    table,
    wrapped,
)


def show_report(told: RouteReport, ink: Ink, where: str = "") -> Iterator[str]:
    """Lines for a report; `where` is put behind the commands that it ends with."""
    frozen = ", frozen: it learns nothing" if told.frozen else ""
    yield ink.heading(f"{told.route}: {told.policy}")
    yield f"version {told.policy_version}{frozen}; champion {told.champion}"
    yield from alarms(told.warnings, ink)
    yield ""
    yield from table(ink, *_traffic(told), texts=(0, 1))
    yield from wrapped(_about_traffic(told))
    for arm in told.arms:
        if arm.why:
            yield f"{arm.name} is {_state(arm)}: {arm.why}"
        if arm.HasField("shadow"):
            yield _shadow(arm.name, arm.shadow)
    yield ""
    yield from table(ink, *_earnings(told))
    yield from wrapped(_about_earnings(told))
    if _has_costs(told):
        yield ""
        yield from table(ink, *_net(told))
    yield from wrapped(_best(told))
    if told.HasField("units"):
        yield ""
        yield from table(ink, *_by_unit(told))
        yield from wrapped(_units(told))
        yield from _net_by_unit(told)
    if any(arm.metrics for arm in told.arms):
        yield ""
        yield from table(ink, *_metrics(told), texts=(0, 1, 2, 3))
        if any(each.n and not each.mean.HasField("low") for arm in told.arms for each in arm.metrics):
            yield "Of a metric there is an interval from 100 numbers on, unless they are all the same."
    if told.HasField("cost_per_decision"):
        yield f"A decision has cost {number(told.cost_per_decision)} on average, as declared."
    yield ""
    yield from _canary(told)
    yield from _champion(told)
    for mismatch in told.mismatch:
        if mismatch.n:
            yield _mismatch(mismatch, ink)
    yield from wrapped(log_part(told.log))
    yield ""
    route = told.route
    yield from next_steps(f"events {route}", "explain DECISION", f"evaluate {route} --policy FILE", where=where)


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
        rows.append([arm.name, _state(arm), p, *counts, *slow])
    return headings + [f"p{100 * q:g}" for q in quantiles], rows


def _state(arm: RouteReport.Arm) -> str:
    return arm.state.replace("_", " ")


def _about_traffic(told: RouteReport) -> str:
    said = ""
    if any(arm.HasField("matured") for arm in told.arms):
        said = "Matured: of the decisions whose reward is due, how many have it. "
    if any(arm.latency for arm in told.arms):
        said += "p50 and the like are of the time arms took since this server began; all else is of all replicas."
    return said


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
        compared = count(arm.compared) if arm in _compared(told) else NOTHING
        best = [] if _has_costs(told) else [_chance(arm)]
        rows.append([arm.name, middle(arm.mean), interval(arm.mean), *lift, compared, evidence, *best])
    within = level(told.alpha)
    headings = ["arm", "mean reward", within, "lift", within, "compared", "e-value"]
    return headings + ["P(best)"] * (not _has_costs(told)), rows


def _about_earnings(told: RouteReport) -> str:
    span = f"Rewards lie in {number(told.reward_low)} to {number(told.reward_high)}"
    said = f"{span}. Intervals hold for all arms together, however often one looks."
    compared = _compared(told)
    if not compared:
        return said
    said += (
        " Means are of the decisions that each arm got, which differ; compare by lift. Lift is over "
        f"{told.champion}, at the decisions that could have gone to either: so many are compared. Where its e-value is "
        f"{number(len(compared) / told.alpha)} or more, its interval leaves out 0."
    )
    if not all(arm.HasField("lift") for arm in compared):
        said += " It is not told before 100 such decisions, and 20 of each arm."
    return said


def _compared(told: RouteReport) -> list[RouteReport.Arm]:
    return [arm for arm in told.arms if arm.name != told.champion and arm.state != "shadow"]


def _has_costs(told: RouteReport) -> bool:
    return any(arm.HasField("cost") for arm in told.arms)


def _chance(arm: RouteReport.Arm) -> str:
    return chance(arm.best) if arm.HasField("best") else NOTHING


def _net(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        lift = ["champion", ""]
        if arm.name != told.champion:
            lift = [middle(arm.net_lift, signed=True), interval(arm.net_lift, signed=True)]
        rows.append([arm.name, number(arm.cost), *lift, _chance(arm)])
    return ["net of cost: arm", "cost", "net lift", level(told.alpha), "P(best)"], rows


def _best(told: RouteReport) -> str:
    if told.best_by:
        most = "earning the most, less its cost," if _has_costs(told) else "earning the most,"
        return f"P(best), the probability of {most} is told from {told.best_by}."
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


def _net_by_unit(told: RouteReport) -> Iterator[str]:
    for arm in _compared(told):
        if arm.by_unit.HasField("net_lift"):
            known = arm.by_unit.net_lift
            yield f"By unit, the net lift of {arm.name} is {_within(known)}."


def _units(told: RouteReport) -> str:
    units = told.units
    drew = f"{how_many(units.units, 'unit')} drew {how_many(units.decisions, 'time')}"
    most = how_many(units.most, "time")
    return (
        f"By unit, of the log that was read: {drew}, one of them {most}. With a design effect of 5, five decisions tell"
        " as much of the mean as one of a unit's own. There are intervals from 100 units on."
    )


def _metrics(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        for each in arm.metrics:
            numbers = [count(each.n), number(each.total), middle(each.mean), interval(each.mean)]
            rows.append([arm.name, each.name, each.unit, each.better, *numbers])
    return ["arm", "metric", "unit", "better", "n", "total", "mean", level(told.alpha)], rows


def _mismatch(told: RouteReport.Mismatch, ink: Ink) -> str:
    of = how_many(told.n, "decision" if told.of == "all" else f"{told.of} decision")
    how = "not drawn" if told.alarm else "drawn"
    evidence = f"sample ratio mismatch: e-value {e_value(told.log_e_value)}"
    line = f"Arms of {of} were {how} as the log says ({evidence})."
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
    yield from wrapped(
        f"Against {told.champion} alone: {_within(value.gain)} a decision, {_within(value.total)} in "
        f"{how_many(value.decisions, 'rewarded decision')}."
    )
    if value.HasField("net"):
        gain, cost = number(value.total.value, signed=True), number(value.cost, signed=True)
        back = f", a return on investment of {share(value.on_investment)}" if value.HasField("on_investment") else ""
        yield from wrapped(f"Net of cost: {_within(value.net)}. That is a gain of {gain} at a cost of {cost}{back}.")
    if value.HasField("by_unit"):
        units = value.by_unit
        effect = f", design effect {number(units.design_effect)}" if units.HasField("design_effect") else ""
        net = f", net of cost {_within(units.net)}" if units.HasField("net") else ""
        yield from wrapped(
            f"By unit: {_within(units.gain)} a decision, {_within(units.total)} in all{net}, from "
            f"{how_many(units.units, 'unit')}{effect}."
        )
    for warning in value.warnings:
        yield from wrapped(warning)


def _within(known: Estimate) -> str:
    ends = interval(known, signed=True)
    return middle(known, signed=True) + ("" if ends == NOTHING else f" ({ends})")
