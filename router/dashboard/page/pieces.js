/** What panels are made of. Tables become cards on a narrow screen, and stay tables to those who listen to the page. */

import { html } from "./elements.js";
import { isoMoment, moment } from "./numbers.js";

/** A table. `columns` are headings, texts or lists of children; `rows` are made by `row`. */
export function table(label, columns, rows) {
  const head = columns.map((column) => html("th", { scope: "col", role: "columnheader" }, column));
  return html(
    "table",
    { role: "table", "aria-label": label },
    html("thead", { role: "rowgroup" }, html("tr", { role: "row" }, head)),
    html("tbody", { role: "rowgroup" }, rows),
  );
}

/** A row: the cell that names it, then others, each as [label, ...children]. */
export function row(key, name, cells, attributes = {}) {
  return html(
    "tr",
    { role: "row", "data-key": key, ...attributes },
    html("th", { scope: "row", role: "rowheader" }, name),
    cells.map(([label, ...children]) => html("td", { role: "cell", "data-label": label }, ...children)),
  );
}

/** A line of small print. */
export function small(...children) {
  return html("span", { class: "small" }, ...children);
}

/** Texts in a list of terms: [term, ...children] each. */
export function facts(pairs) {
  return pairs.map(([term, ...children]) => html("div", {}, html("dt", {}, term), html("dd", {}, ...children)));
}

/** A state in a word, with a sign for those who see no colours. */
export function badge(word, kind) {
  const sign = { good: "●", warn: "▲", bad: "■", plain: "○" }[kind];
  return html("span", { class: `badge ${kind}` }, html("span", { "aria-hidden": "true" }, sign), word);
}

/** A moment as an element: in the time of the browser, and in UTC, as logs and commands have it, where one points. */
export function when(seconds) {
  const utc = isoMoment(seconds);
  return html("time", { datetime: utc, title: utc }, moment(seconds));
}
