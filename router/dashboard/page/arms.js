/** The arms of a route: how they stand, what they get, and what they earn. */

import { axisOf, bar, colour, whisker } from "./charts.js";
import { html } from "./elements.js";
import { count, duration, estimate, eValue, known, percent, significant, UNKNOWN } from "./numbers.js";
import { badge, facts, row, small, table } from "./pieces.js";

const KINDS = {
  serving: "good",
  canary: "good",
  shadow: "plain",
  failing: "warn",
  off: "bad",
  ejected: "bad",
  rolled_back: "bad",
};

/** The lift that counts: net of cost where arms declare one. */
const judged = (told) => told.net_lift ?? told.lift;

/** The panel. `calls` are those that each arm answered, by status; `readiness`, where it is known, is the route's. */
export function armsPanel(report, calls, readiness) {
  const arms = report.arms;
  const axes = {
    mean: axisOf(arms.map((arm) => arm.mean)),
    lift: axisOf(arms.map(judged), { zero: true }),
  };
  const champion = arms.find((arm) => arm.name === report.champion);
  const hasCosts = arms.some((arm) => known(arm.cost) !== null);
  const columns = [
    "Arm",
    "State",
    "Traffic",
    ["Mean reward", ends(axes.mean)],
    [`${hasCosts ? "Net lift" : "Lift"} over ${report.champion}`, ends(axes.lift)],
    "P(best)",
    "Latency",
  ];
  const rows = arms.map((arm, index) => {
    const isReady = readiness?.arms[arm.name]?.ready ?? true;
    return armRow(report, arm, index, { axes, champion, calls: calls.get(arm.name), isReady });
  });
  const level = significant(100 - 100 * report.alpha, 4);
  return [
    html("h2", { id: "arms-title" }, "Arms"),
    table("Arms", columns, rows),
    html(
      "p",
      { class: "aside" },
      `Intervals hold together at ${level} %, however often one looks. Means are of the decisions that each arm got, `,
      "which differ; compare by lift. ",
      hasCosts && "Net lift and P(best) count what arms cost; mean rewards do not. ",
      report.best_by
        ? `P(best), the probability of earning the most, is told from ${report.best_by}.`
        : `P(best) is not known. ${report.best_why ?? ""}`,
    ),
    report.units && html("p", { class: "aside" }, unitsSaid(report.units)),
  ];
}

function unitsSaid({ units, decisions, most }) {
  return (
    `“By unit” is told from the log that was read: ${count(units)} units drew ${count(decisions)} times, one of them ` +
    `${count(most)} times. With a design effect of 5, five decisions tell as much as one of a unit's own. There are ` +
    "intervals from 100 units on."
  );
}

function armRow(report, arm, index, { axes, champion, calls, isReady }) {
  const isChampion = arm.name === report.champion;
  return row(arm.name, name(arm, index, isChampion), [
    ["State", state(arm, isReady), switchButton(arm)],
    [
      "Traffic",
      html("span", { class: "figure" }, percent(arm.share)),
      bar(arm.share, { name: colour(index), mark: arm.probability }),
      small(`${count(arm.decisions)} decisions`),
      known(arm.probability) !== null && small(`drawn now: ${percent(arm.probability)}`),
    ],
    ["Mean reward", ...mean(arm, axes.mean, champion)],
    ["Lift", ...(isChampion ? [small("the champion itself")] : lift(arm, axes.lift))],
    ["P(best)", ...best(arm)],
    ["Latency", ...latency(arm, calls)],
  ]);
}

function name(arm, index, isChampion) {
  return [
    html("span", { class: `swatch ${colour(index)}` }),
    html("span", { class: "name" }, arm.name),
    isChampion && html("span", { class: "tag" }, "champion"),
    (arm.target || arm.model !== arm.name) && small(arm.target ? `${arm.model} at ${arm.target}` : arm.model),
    known(arm.cost) !== null && small(`costs ${significant(arm.cost)} a decision`),
  ];
}

function state(arm, isReady) {
  return [
    badge((arm.state || "unknown").replace("_", " "), KINDS[arm.state] ?? "warn"),
    !isReady && small("its model is not ready"),
    !arm.allowed && arm.state === "serving" && small("not drawn now"),
    arm.why && small(arm.why),
  ];
}

function switchButton(arm) {
  const on = arm.state === "off" || arm.state === "ejected";
  const does = on ? "Switch on" : "Switch off";
  const label = `${does} arm ${arm.name}`;
  const asks = { "data-do": "switch", "data-arm": arm.name, "data-on": String(on) };
  return html("button", { type: "button", class: on ? null : "risky", "aria-label": label, ...asks }, `${does}…`);
}

function mean(arm, axis, champion) {
  const { value, range } = estimate(arm.mean);
  const matured = known(arm.matured) === null ? "" : `, ${percent(arm.matured)} of those due`;
  return [
    html("span", { class: "figure" }, value),
    axis && whisker(arm.mean, axis, { reference: champion?.mean?.value }),
    range && small(range),
    small(`${count(arm.rewards)} rewards${matured}`),
    arm.by_unit && byUnit(arm.by_unit.mean, `${count(arm.by_unit.units)} units`, arm.by_unit.design_effect),
    arm.shadow && small(shadow(arm.shadow)),
  ];
}

function lift(arm, axis) {
  const { value, range } = estimate(judged(arm), { sign: true });
  const [low, high] = [known(judged(arm)?.low), known(judged(arm)?.high)];
  if (arm.state === "shadow") {
    return [small("a shadow answers nobody")];
  }
  if (low === null || high === null) {
    return [small(`not told yet, from ${count(arm.compared)} decisions`)];
  }
  const [kind, verdict] = low > 0 ? ["better", "better"] : high < 0 ? ["worse", "worse"] : ["open", "not told apart"];
  return [
    html("span", { class: "figure" }, value, html("span", { class: `verdict ${kind}` }, verdict)),
    axis && whisker(judged(arm), axis, { kind, reference: 0 }),
    small(range),
    arm.net_lift && small(beforeCost(arm)),
    small(`${arm.net_lift ? "" : `e-value ${eValue(arm.log_e_value)}, `}${count(arm.compared)} decisions`),
    arm.by_unit && byUnit(judged(arm.by_unit), eValueByUnit(arm.by_unit), null, { sign: true }),
  ];
}

/** The e-value is of the lift before cost, so it stands with that. */
function beforeCost(arm) {
  const { value, range } = estimate(arm.lift, { sign: true });
  return `before cost ${value} (${range}), e-value ${eValue(arm.log_e_value)}`;
}

function eValueByUnit(told) {
  return told.net_lift ? "" : `e-value ${eValue(told.log_e_value)}`;
}

/** What units say beside what decisions say: the interval, if there is one, and how much it is wider. */
function byUnit(given, said, effect, options) {
  const { range } = estimate(given, options);
  const parts = [range || "no interval yet", said, known(effect) !== null && `design effect ${significant(effect)}`];
  return small(html("b", {}, "by unit: "), parts.filter(Boolean).join(", "));
}

function shadow({ compared, different, failed, dropped }) {
  return `${count(compared)} copies answered, ${count(different)} otherwise; ${count(failed)} failed, ${count(dropped)} dropped`;
}

function best(arm) {
  if (known(arm.best) === null) {
    return [html("span", { class: "figure" }, UNKNOWN)];
  }
  return [html("span", { class: "figure" }, percent(arm.best)), bar(arm.best)];
}

function latency(arm, calls) {
  const failed = Object.entries(calls ?? {}).filter(([code, n]) => code !== "OK" && n > 0);
  const quantiles = arm.latency.map((each) => [`p${significant(100 * each.quantile)}`, atMost(each)]);
  return [
    quantiles.length > 0 ? html("dl", { class: "quantiles" }, facts(quantiles)) : small("no calls yet"),
    failed.length > 0 && small(failed.map(([code, n]) => `${count(n)} ${code}`).join(", ")),
  ];
}

function atMost(quantile) {
  return known(quantile.at_most) === null ? "off the scale" : `≤ ${duration(quantile.at_most)}`;
}

function ends(axis) {
  return (
    axis &&
    html(
      "span",
      { class: "ends", "aria-hidden": "true" },
      html("span", {}, significant(axis.low)),
      html("span", {}, significant(axis.high)),
    )
  );
}
