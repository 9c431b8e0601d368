/** What was done to a route, the newest first, with the numbers that justified it. */

import { html } from "./elements.js";
import { significant } from "./numbers.js";
import { badge, when } from "./pieces.js";

const KINDS = {
  bad: new Set(["ejected", "rolled_back", "switched_off"]),
  warn: new Set(["frozen", "failing"]),
  good: new Set(["promoted", "switched_on", "on"]),
};
const AT_FIRST = 20;
const LATE = 60; // seconds by which an event of another replica may be seen after one that is younger

/** Id of the last event before which none can appear any more; empty: there is no such. */
export function settled(events) {
  const newest = events.at(-1);
  return events.findLast((event) => event.time < newest.time - LATE)?.id ?? "";
}

/** The events of both lists, by time. */
export function merged(events, more) {
  const all = new Map([...events, ...more].map((event) => [event.id, event]));
  return [...all.values()].sort((a, b) => a.time - b.time || (a.id < b.id ? -1 : 1));
}

/** The panel. `events` are sorted by time; unless `all`, only the last ones are shown. */
export function eventsPanel(events, { all }) {
  const newest = events.toReversed().slice(0, all ? events.length : AT_FIRST);
  return [
    html("h2", { id: "events-title" }, "What was done"),
    events.length === 0
      ? html("p", { class: "nothing" }, "Nothing yet.")
      : html("ol", { class: "timeline", tabindex: 0, "aria-labelledby": "events-title" }, newest.map(line)),
    newest.length < events.length &&
      html("button", { type: "button", "data-do": "all-events" }, `All ${events.length} that were read`),
  ];
}

function line(event) {
  const numbers = Object.entries(event.numbers ?? {});
  return html(
    "li",
    { "data-key": event.id },
    html(
      "p",
      { class: "what" },
      when(event.time),
      badge(event.kind.replaceAll("_", " "), kindOf(event.kind)),
      html("b", {}, event.arm || "the route"),
    ),
    event.why && html("p", { class: "why" }, event.why),
    numbers.length > 0 &&
      html(
        "dl",
        { class: "numbers" },
        numbers.map(([name, value]) =>
          html("div", {}, html("dt", {}, name.replaceAll("_", " ")), html("dd", {}, significant(value, 4))),
        ),
      ),
  );
}

function kindOf(kind) {
  return Object.keys(KINDS).find((each) => KINDS[each].has(kind)) ?? "plain";
}
