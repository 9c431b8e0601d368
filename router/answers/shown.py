"""The answers as text for people. Each ends with what one may want next."""

from __future__ import annotations

from collections.abc import Iterator

from protos.messages import Evaluation, Explanation, RouteEvents, SwitchArmResponse
from router.answers.candidate import EVALUATED
from router.answers.tables import (
    NOTHING,
    Ink,
    alarms,
    count,
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


def show_explanation(told: Explanation, ink: Ink, where: str = "") -> Iterator[str]:
    """Lines for an explanation; `where` is put behind the commands that it ends with."""
    yield ink.heading(f"{told.route}: decision {told.decision_id}")
    unit = f"; unit {told.unit}" if told.unit else ""
    yield f"{moment(told.time)} UTC; version {told.policy_version} of {told.policy or 'the policy'}{unit}"
    if told.context:
        yield ""
        yield from table(ink, ["known", "value"], [[each.column, number(each.value)] for each in told.context])
    yield ""
    yield f"Rule {told.rule!r} restricted the choice." if told.rule else "No rule restricted the choice."
    yield from table(ink, *_race(told), texts=(0, 1, 2))
    key = "the unit" if told.sticky else "the decision's id"
    yield f"The score is the hash of {key} and the arm, by probability: of those that did not fail the least is drawn."
    yield f"Drawn: {told.arm}, with probability {told.propensity!r}{'' if told.answered else '; nobody answered'}."
    if told.HasField("canary_share"):
        yield f"The canary's share then was {number(told.canary_share)}."
    for outcome in told.outcomes:
        after = seconds(max(0.0, outcome.time - told.time))
        yield f"{outcome.name}: {number(outcome.value)}, reported {after} later"
    if not told.outcomes:
        yield "Nothing was reported of it yet."
    yield ""
    if told.reproduced:
        yield "Reproduced: made again from what is written down, the choice is the same in all."
    else:
        yield ink.alarm("Not reproduced:")
        yield from (f"  {difference}" for difference in told.differences)
    yield from next_steps(f"report {told.route}", where=where)


def _race(told: Explanation) -> tuple[list[str], list[list[str]]]:
    headings = ["arm", "model", "", "probability", "made again", "score"]
    looks_on = any(arm.HasField("proposed") for arm in told.arms)
    rows = []
    for arm in told.arms:
        state = "failed" if arm.failed else "drawn" if arm.name == told.arm else "" if arm.allowed else "not allowed"
        again = f"{arm.again:.6f}" if arm.HasField("again") else NOTHING
        score = number(arm.score) if arm.HasField("score") else NOTHING
        row = [arm.name, arm.model, state, f"{arm.probability:.6f}", again, score]
        if looks_on:
            row.append(f"{arm.proposed:.6f}" if arm.HasField("proposed") else NOTHING)
        rows.append(row)
    return headings + ["proposed"] * looks_on, rows


def show_evaluation(told: Evaluation, ink: Ink, where: str = "") -> Iterator[str]:
    """Lines for an evaluation; `where` is put behind the commands that it ends with."""
    yield ink.heading(f"{told.route}, had it been served by {told.policy}")
    learnt = f", having learnt from {count(told.learnt_from)} before" if told.learnt_from else ""
    yield f"Judged on {how_many(told.judged_on, 'rewarded decision')}{learnt}."
    yield from wrapped(f"{EVALUATED}.")
    yield from wrapped(log_part(told.log))
    yield ""
    if not told.answerable:
        yield from alarms([f"The log cannot answer. {told.why}"], ink)
    if told.HasField("value"):
        rows = [
            ["policy", middle(told.value), interval(told.value)],
            ["as it was", middle(told.earned), interval(told.earned)],
            ["lift", middle(told.lift, signed=True), interval(told.lift, signed=True)],
        ]
        if told.HasField("net_lift"):
            rows.append(["net lift", middle(told.net_lift, signed=True), interval(told.net_lift, signed=True)])
        if told.HasField("by_unit"):
            units = told.by_unit
            rows.append(["policy, by unit", middle(units.value), interval(units.value)])
            rows.append(["lift, by unit", middle(units.lift, signed=True), interval(units.lift, signed=True)])
            if units.HasField("net_lift"):
                net = units.net_lift
                rows.append(["net lift, by unit", middle(net, signed=True), interval(net, signed=True)])
        yield from table(ink, ["", "mean reward", level(told.alpha)], rows)
        if not told.lift.HasField("low"):
            yield "A lift has an interval from 100 decisions on, unless all of them would have earned the same."
        yield from _evaluated_by_unit(told)
        if told.HasField("cost"):
            costs = f"costs {number(told.cost)} on average, and did cost {number(told.had_cost)}, as declared"
            yield from wrapped(f"A decision {costs}. Net lift is less what it costs more; all else is before cost.")
        yield ""
        shares = [[arm.name, share(arm.share), share(arm.wanted)] for arm in told.arms]
        yield from table(ink, ["arm", "share", "would have"], shares)
        yield ""
        rows = [[each.name, number(each.value), number(each.error)] for each in told.estimators]
        yield from table(ink, ["estimator", "mean reward", "standard error"], rows)
        yield (
            f"The log tells as much as {how_many(round(told.effective_rows), 'decision')} of the policy's own; the "
            f"heaviest counts {number(told.largest_weight)} times."
        )
    yield from alarms(told.warnings, ink)
    yield ""
    if told.answerable:
        yield f"To try it beside the champion, set apprentice under routes.{told.route}."
    yield from next_steps(f"report {told.route}", where=where)


def _evaluated_by_unit(told: Evaluation) -> Iterator[str]:
    if told.HasField("by_unit"):
        units = told.by_unit
        effect = f", with a design effect of {number(units.design_effect)}" if units.HasField("design_effect") else ""
        yield f"By unit: from {how_many(units.units, 'unit')}{effect}; there are intervals from 100 on."


def show_events(told: RouteEvents, ink: Ink, where: str = "") -> Iterator[str]:
    """Lines for events; `where` is put behind the commands that it ends with."""
    if not told.events:
        yield f"Nothing was done to {told.route} that is written down."
        return
    rows = [[moment(each.time), each.arm or "the route", each.kind, each.why] for each in told.events]
    yield from table(ink, ["time (UTC)", "arm", "what", "why"], rows, texts=(0, 1, 2, 3))
    yield ""
    yield from next_steps(f"report {told.route}", where=where)


def show_switches(told: SwitchArmResponse, ink: Ink, _where: str = "") -> Iterator[str]:
    """Lines for how the switches of a route stand."""
    yield ink.alarm(f"Out: {', '.join(told.off)}.") if told.off else "No arm is out."
    if told.frozen:
        yield ink.alarm("The route is frozen: its policy stays as it is.")
    yield f"That holds on this server now, and on other replicas within about {seconds(told.follow_seconds)}."
