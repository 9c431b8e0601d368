"""The answers as text for people. Each ends with what one may want next."""

from __future__ import annotations

from collections.abc import Iterator

from protos.messages import Evaluation, Explanation, LogPart, RouteEvents, RouteReport
from router.answers.tables import (
    NOTHING,
    Ink,
    chance,
    count,
    e_value,
    interval,
    middle,
    moment,
    number,
    seconds,
    share,
    table,
)


def show_report(told: RouteReport, ink: Ink) -> Iterator[str]:
    """Lines for a report."""
    frozen = ", frozen: it learns nothing" if told.frozen else ""
    yield ink.heading(f"{told.route}: {told.policy}")
    yield f"version {told.policy_version}{frozen}; champion {told.champion}"
    yield ""
    yield from table(ink, *_traffic(told), texts=(0, 1))
    for arm in told.arms:
        if arm.why:
            yield f"{arm.name} is {arm.state}: {arm.why}"
        if arm.HasField("shadow"):
            yield _shadow(arm.name, arm.shadow)
    yield ""
    yield from table(ink, *_earnings(told))
    span = f"Rewards lie in {number(told.reward_low)} to {number(told.reward_high)}"
    yield f"{span}. Intervals hold at all times, for all arms together, with {1 - told.alpha:.4g} confidence."
    yield _best(told)
    if any(arm.metrics for arm in told.arms):
        yield ""
        yield from table(ink, *_metrics(told), texts=(0, 1, 2, 7))
    if told.HasField("cost_per_decision"):
        yield f"A decision has cost {number(told.cost_per_decision)} on average, as declared."
    yield ""
    yield from _canary(told)
    yield from _champion(told)
    for mismatch in told.mismatch:
        yield _mismatch(mismatch, ink)
    yield _log(told.log)
    yield from (ink.alarm(warning) for warning in told.warnings)
    yield ""
    yield (
        f"next: croupier events {told.route}   croupier explain DECISION   croupier evaluate {told.route} --policy FILE"
    )


def _traffic(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    quantiles = [each.quantile for each in max((arm.latency for arm in told.arms), key=len, default=())]
    headings = ["arm", "state", "p now", "share", "decisions", "rewards", "matured"]
    rows = []
    for arm in told.arms:
        p = f"{arm.probability:.3f}" if arm.HasField("probability") else NOTHING
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
    return ["arm", "mean reward", "at all times", "lift", "at all times", "e-value", "best"], rows


def _best(told: RouteReport) -> str:
    if told.best_by:
        return f"Which is best is told from {told.best_by}."
    return "Too little is known to say which is best."


def _metrics(told: RouteReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for arm in told.arms:
        for each in arm.metrics:
            numbers = [count(each.n), number(each.total), middle(each.mean), interval(each.mean)]
            rows.append([arm.name, each.name, each.unit, *numbers, f"{each.better} is better"])
    return ["arm", "metric", "unit", "n", "total", "mean", "at all times", ""], rows


def _mismatch(told: RouteReport.Mismatch, ink: Ink) -> str:
    of = "" if told.of == "all" else f"{told.of} "
    how = "not drawn" if told.alarm else "drawn"
    line = f"Arms of {count(told.n)} {of}decisions were {how} as the log says, e-value {e_value(told.log_e_value)}."
    return ink.alarm(line) if told.alarm else line


def _canary(told: RouteReport) -> Iterator[str]:
    if told.HasField("canary"):
        canary = told.canary
        yield (
            f"Canary {canary.arm}: {canary.outcome}, step {canary.step} of {canary.steps}, with a share of "
            f"{share(canary.share)}, since {moment(canary.since)}."
        )


def _champion(told: RouteReport) -> Iterator[str]:
    value = told.against_champion
    if not value.HasField("champion"):
        yield f"What {told.champion} alone would have earned cannot be told. {value.why}".rstrip()
        return
    yield (
        f"Against {told.champion} alone: {middle(value.gain, signed=True)} a decision "
        f"({interval(value.gain, signed=True)}), {middle(value.total, signed=True)} in {count(value.decisions)} "
        "rewarded decisions."
    )
    if value.HasField("cost"):
        worth = f", {value.on_investment:.4g} for each unit spent" if value.HasField("on_investment") else ""
        yield f"They cost {value.cost:+.4g} against its cost{worth}."
    yield from value.warnings


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
    yield _log(told.log)
    yield ""
    if not told.answerable:
        yield ink.alarm(f"The log cannot answer. {told.why}")
    if told.HasField("value"):
        rows = [
            ["policy", middle(told.value), interval(told.value)],
            ["as it was", middle(told.earned), interval(told.earned)],
            ["lift", middle(told.lift, signed=True), interval(told.lift, signed=True)],
        ]
        yield from table(ink, ["", "mean reward", f"at all times, {1 - told.alpha:.4g}"], rows)
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
    yield from (ink.alarm(warning) for warning in told.warnings)
    yield ""
    yield f"next: try it beside the others: set apprentice under routes.{told.route}, or croupier report {told.route}"


def show_events(told: RouteEvents, ink: Ink) -> Iterator[str]:
    """Lines for events."""
    if not told.events:
        yield f"Nothing was done to {told.route} that is written down."
        return
    rows = [[moment(each.time), each.arm or "the route", each.kind, each.why] for each in told.events]
    yield from table(ink, ["time (UTC)", "arm", "what", "why"], rows, texts=(0, 1, 2, 3))
    yield ""
    yield f"next: croupier report {told.route}"


def _log(part: LogPart) -> str:
    if not part.decisions:
        return "The log holds no decision that could be read."
    whole = "all that there are" if part.whole else "the newest"
    when = f"{moment(part.first)} to {moment(part.last)} UTC"
    return f"Of the log were read {count(part.decisions)} decisions, {whole}, {when}."
