/** The route at a glance: what it is, how it stands, and what needs somebody's eye. */

import { html } from "./elements.js";
import { count, eValue, known, moment, percent, significant, UNKNOWN } from "./numbers.js";
import { badge, facts, when } from "./pieces.js";

const CANARY = { running: "plain", left_alone: "plain", promoted: "good", rolled_back: "bad" };

/** The heading, alarms and facts of a report. */
export function summary(report) {
  return [
    html("div", { class: "heading" }, html("h2", {}, report.route), standing(report), freezeButton(report)),
    report.warnings.map((warning) => html("p", { class: "notice warn" }, warning)),
    html("dl", { class: "tiles" }, facts(tiles(report))),
    html("dl", { class: "facts" }, facts(about(report))),
  ];
}

/** Whether arms were drawn as the log says: the alarm that makes every other number doubtful. */
export function isAlarmed(report) {
  return report.mismatch.some((mismatch) => mismatch.alarm);
}

function standing(report) {
  const out = report.arms.filter((arm) => !["serving", "shadow", "canary", "rolled_back"].includes(arm.state));
  const isBack = report.canary?.outcome === "rolled_back"; // which has a badge of its own
  return html(
    "span",
    { class: "badges" },
    out.length === 0 && !isBack && badge("all arms serving", "good"),
    out.map((arm) => badge(`${arm.name} ${arm.state}`, arm.state === "failing" ? "warn" : "bad")),
    report.frozen && badge("learning frozen", "warn"),
    isAlarmed(report) && badge("sample ratio mismatch", "bad"),
    report.canary && canaryBadge(report.canary.outcome),
  );
}

function canaryBadge(outcome) {
  return badge(`canary ${outcome.replace("_", " ")}`, CANARY[outcome] ?? "warn");
}

function freezeButton(report) {
  const does = report.frozen ? "Learn again" : "Freeze learning";
  const asks = { "data-do": "switch", "data-arm": "", "data-on": String(report.frozen) };
  return html("button", { type: "button", class: report.frozen ? null : "risky", ...asks }, `${does}…`);
}

function tiles(report) {
  const decisions = total(report.arms, "decisions");
  const rewards = total(report.arms, "rewards");
  const shown = [
    ["Decisions", figure(count(decisions))],
    ["Rewards", figure(count(rewards)), note(decisions > 0 ? `${percent(rewards / decisions)} of decisions` : "")],
    ...report.mismatch.map((mismatch) => [
      mismatch.of === "all" ? "Sample ratio" : "Sample ratio of rewards",
      mismatch.alarm ? figure("mismatch", "bad") : figure(mismatch.n > 0 ? "as logged" : UNKNOWN),
      note(`e-value ${eValue(mismatch.log_e_value)}, ${count(mismatch.n)} decisions`),
    ]),
  ];
  if (report.canary) {
    const { arm, step, steps, share, since, outcome } = report.canary;
    const ended = { promoted: "promoted", rolled_back: "rolled back" }[outcome];
    const open = outcome === "left_alone" ? ", nothing is known after the last step" : "";
    const where = note(`at ${percent(share)}${open}, began ${moment(since)}`);
    shown.push([`Canary ${arm}`, figure(ended ?? `step ${step} of ${steps}`), where]);
  }
  if (known(report.cost_per_decision) !== null) {
    shown.push(["Cost of a decision", figure(significant(report.cost_per_decision))]);
  }
  return shown;
}

function about(report) {
  const log = report.log;
  const read = log && `${count(log.decisions)} decisions, ${log.whole ? (log.gone ? "all that are kept" : "all") : "the newest"}`;
  const span = known(log?.first) !== null && [" from ", when(log.first), " to ", when(log.last)];
  return [
    ["Policy", html("code", {}, report.policy)],
    ["Version", html("code", {}, report.policy_version)],
    ["Champion", report.champion],
    ["Rewards lie in", `${significant(report.reward_low, 6)} to ${significant(report.reward_high, 6)}`],
    ...(log ? [["Log read", read, span]] : []),
    ...(log?.gone ? [["Kept no more", `${count(log.gone)} decisions`]] : []),
    ...(log?.other_arms ? [["Left out", `${count(log.other_arms)} decisions, taken when the route had other arms`]] : []),
  ];
}

function figure(text, kind = "") {
  return html("span", { class: `figure ${kind}` }, text);
}

function note(text) {
  return text && html("span", { class: "small" }, text);
}

function total(arms, what) {
  return arms.reduce((sum, arm) => sum + (known(arm[what]) ?? 0), 0);
}
