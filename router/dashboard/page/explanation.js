/** Why a request went where it went: what was known, what could have been drawn, and whether it is drawn again. */

import { bar } from "./charts.js";
import { html } from "./elements.js";
import { decimal, known, percent, significant, UNKNOWN } from "./numbers.js";
import { badge, facts, row, small, table, when } from "./pieces.js";

/** The children that tell an Explanation. */
export function explanation(told) {
  return [
    html("p", { class: "verdict-line" }, verdict(told), " ", html("code", {}, told.decision_id)),
    told.differences.map((difference) => html("p", { class: "notice warn" }, difference)),
    html("dl", { class: "facts" }, facts(about(told))),
    arms(told),
    told.context.length > 0 && context(told),
    told.settings &&
      html("details", {}, html("summary", {}, "Settings of the route then"), html("pre", {}, indented(told.settings))),
  ];
}

function verdict(told) {
  return told.reproduced
    ? badge("made again, the choice is the same", "good")
    : badge("the choice cannot be reproduced", "bad");
}

function about(told) {
  return [
    ["Route", told.route],
    ["Taken", when(told.time)],
    ["Arm", html("b", {}, told.arm), told.answered ? " answered" : " did not answer"],
    ["Drawn with probability", decimal(told.propensity, 6)],
    ["Drawn by", told.sticky ? "its unit" : "its id", told.unit && `: ${told.unit}`],
    ...(told.rule ? [["Rule", told.rule]] : []),
    ["Policy", html("code", {}, told.policy), " ", html("code", {}, told.policy_version)],
    ...(known(told.fitted) === null ? [] : [["Fitted", when(told.fitted)]]),
    ...(known(told.canary_share) === null ? [] : [["Canary's share", percent(told.canary_share)]]),
    ...(known(told.prediction) === null ? [] : [["Prediction", significant(told.prediction, 6)]]),
    ...(told.outcomes.length === 0 ? [["Outcome", "none reported"]] : []),
    ...told.outcomes.map((outcome) => [outcome.name, significant(outcome.value, 6), " at ", when(outcome.time)]),
  ];
}

function arms(told) {
  const isOnlooking = told.arms.some((arm) => known(arm.proposed) !== null);
  const columns = ["Arm", "Probability", "Made again", ...(isOnlooking ? ["Proposed"] : []), "Score"];
  const rows = told.arms.map((arm) =>
    row(
      arm.name,
      [arm.name, arm.name === told.arm && html("span", { class: "tag" }, "drawn"), small(fate(arm))],
      [
        ["Probability", decimal(arm.probability, 6), bar(arm.probability)],
        ["Made again", decimal(arm.again, 6)],
        ...(isOnlooking ? [["Proposed", decimal(arm.proposed, 6)]] : []),
        ["Score", known(arm.score) === null ? UNKNOWN : significant(arm.score, 5)],
      ],
      { class: arm.name === told.arm ? "chosen" : null },
    ),
  );
  return [
    table("Arms that could be drawn", columns, rows),
    html("p", { class: "aside" }, "The arm with the least score is drawn."),
  ];
}

function fate(arm) {
  return arm.failed ? "drawn, did not answer" : arm.allowed ? "allowed" : "not allowed";
}

function context(told) {
  return html(
    "details",
    {},
    html("summary", {}, `Context (${told.context.length})`),
    html("dl", { class: "numbers" }, facts(told.context.map(({ column, value }) => [column, significant(value, 8)]))),
  );
}

function indented(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
