"""The answers as text for people. Each ends with what one may want next."""

from __future__ import annotations

from collections.abc import Iterator

from protos.messages import Evaluation, Explanation, RouteEvents
from router.answers.candidate import EVALUATED
from router.answers.tables import (
    NOTHING,
    Ink,
    alarms,
    count,
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


def show_explanation(told: Explanation, ink: Ink) -> Iterator[str]:
    """Lines for an explanation."""
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
    yield f"next: croupier report {told.route}"


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


def show_evaluation(told: Evaluation, ink: Ink) -> Iterator[str]:
    """Lines for an evaluation."""
    yield ink.heading(f"{told.route}, had it been served by {told.policy}")
    learnt = f", having learnt from {count(told.learnt_from)} older ones" if told.learnt_from else ""
    yield f"Judged on {count(told.judged_on)} rewarded decisions{learnt}."
    yield from wrapped(f"{EVALUATED}.")
    yield log_part(told.log)
    yield ""
    if not told.answerable:
        yield from alarms([f"The log cannot answer. {told.why}"], ink)
    if told.HasField("value"):
        rows = [
            ["policy", middle(told.value), interval(told.value)],
            ["as it was", middle(told.earned), interval(told.earned)],
            ["lift", middle(told.lift, signed=True), interval(told.lift, signed=True)],
        ]
        if told.HasField("by_unit"):
            units = told.by_unit
            rows.append(["policy, by unit", middle(units.value), interval(units.value)])
            rows.append(["lift, by unit", middle(units.lift, signed=True), interval(units.lift, signed=True)])
        yield from table(ink, ["", "mean reward", level(told.alpha)], rows)
        yield from _evaluated_by_unit(told)
        if told.HasField("cost"):
            yield f"A decision costs {number(told.cost)} on average, and did cost {number(told.had_cost)}, as declared."
        yield ""
        shares = [[arm.name, share(arm.share), share(arm.wanted)] for arm in told.arms]
        yield from table(ink, ["arm", "share", "would have"], shares)
        yield ""
        rows = [[each.name, number(each.value), number(each.error)] for each in told.estimators]
        yield from table(ink, ["estimator", "mean reward", "standard error"], rows)
        yield (
            f"The log tells as much as {count(told.effective_rows)} decisions of the policy's own; the heaviest counts "
            f"{number(told.largest_weight)} times."
        )
    yield from alarms(told.warnings, ink)
    yield ""
    yield f"next: try it beside the others: set apprentice under routes.{told.route}, or croupier report {told.route}"


def _evaluated_by_unit(told: Evaluation) -> Iterator[str]:
    if told.HasField("by_unit"):
        units = told.by_unit
        effect = f", with a design effect of {number(units.design_effect)}" if units.HasField("design_effect") else ""
        yield f"By unit: from {count(units.units)} units{effect}; there are intervals from 100 on."


def show_events(told: RouteEvents, ink: Ink) -> Iterator[str]:
    """Lines for events."""
    if not told.events:
        yield f"Nothing was done to {told.route} that is written down."
        return
    rows = [[moment(each.time), each.arm or "the route", each.kind, each.why] for each in told.events]
    yield from table(ink, ["time (UTC)", "arm", "what", "why"], rows, texts=(0, 1, 2, 3))
    yield ""
    yield f"next: croupier report {told.route}"
