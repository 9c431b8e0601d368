/** What a route earns: against a champion that always answers, and in the business's own numbers. */

import { axisOf, colour, whisker } from "./charts.js";
import { html } from "./elements.js";
import { count, estimate, known, percent, significant, UNKNOWN } from "./numbers.js";
import { facts, row, small, table } from "./pieces.js";

/** The panel of the experiment's value. */
export function valuePanel(report) {
  const told = report.against_champion;
  return [
    html("h2", { id: "value-title" }, `Against always ${report.champion}`),
    told?.why && html("p", { class: "nothing" }, told.why),
    !told && html("p", { class: "nothing" }, "Not known yet."),
    told && !told.why && html("dl", { class: "ledger" }, facts(ledger(told))),
    told?.warnings.map((warning) => html("p", { class: "notice warn" }, warning)),
  ];
}

function ledger(told) {
  return [
    ["Earned by a decision", significant(told.earned, 4)],
    ["The champion would have earned", ...interval(told.champion)],
    ["Gain of a decision", ...interval(told.gain, { sign: true })],
    ...(told.by_unit ? [["Gain of a decision, by unit", ...interval(told.by_unit.gain, { sign: true })]] : []),
    [`Gain of ${count(told.decisions)} decisions`, ...interval(told.total, { sign: true })],
    ...(known(told.cost) === null ? [] : [["Cost beyond the champion's", significant(told.cost)]]),
    ...(told.net ? [["Gain net of cost", ...interval(told.net, { sign: true })]] : []),
    ...(told.by_unit?.net ? [["Gain net of cost, by unit", ...interval(told.by_unit.net, { sign: true })]] : []),
    ...(known(told.on_investment) === null ? [] : [["Return on investment", percent(told.on_investment)]]),
  ];
}

function interval(given, options) {
  const { value, range } = estimate(given, options);
  return [html("span", { class: "figure" }, value), range && small(range)];
}

/** The panel of declared metrics, or nothing where a route has none. */
export function metricsPanel(report) {
  const names = [...new Set(report.arms.flatMap((arm) => arm.metrics.map((metric) => metric.name)))];
  const title = html("h2", { id: "metrics-title" }, "Business metrics");
  return names.length === 0 ? [] : [title, names.map((name) => metricTable(report, name))];
}

function metricTable(report, name) {
  const found = report.arms.map((arm) => ({ arm, metric: arm.metrics.find((each) => each.name === name) }));
  const about = found.find(({ metric }) => metric).metric;
  const said = [about.unit, about.better && `${about.better} is better`].filter(Boolean);
  const axis = axisOf(found.map(({ metric }) => metric?.mean), { zero: true });
  const rows = found.map(({ arm, metric }, index) => {
    const { value, range } = estimate(metric?.mean);
    return row(arm.name, [html("span", { class: `swatch ${colour(index)}` }), arm.name], [
      ["Mean", html("span", { class: "figure" }, value), range && small(range)],
      ["Interval", axis ? whisker(metric?.mean, axis, { reference: 0 }) : UNKNOWN],
      ["Total", significant(metric?.total, 6)],
      ["Reports", count(metric?.n)],
    ]);
  });
  return html(
    "div",
    { class: "metric", "data-key": name },
    html("h3", {}, `${name} `, small(said.join(", "))),
    table(`Metric ${name}`, ["Arm", "Mean", "Interval", "Total", "Reports"], rows),
  );
}
