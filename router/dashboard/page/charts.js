/** Charts as SVG. The numbers stand beside them as text, so that they are hidden from those who listen to the page. */

import { svg } from "./elements.js";
import { known } from "./numbers.js";

const HEIGHT = 16;
const COLOURS = 8;

/** The class that gives an arm its colour, in all charts. */
export function colour(index) {
  return `arm-${index % COLOURS}`;
}

/** Where a number lies between the ends of an axis: 0 to 100. */
function position(value, axis) {
  return Math.round(1e4 * Math.min(Math.max((value - axis.low) / (axis.high - axis.low), 0), 1)) / 100;
}

/** The axis that all these estimates fit on, and zero if asked; null when nothing is known. */
export function axisOf(estimates, { zero = false } = {}) {
  const ends = estimates.flatMap((each) => [each?.low, each?.value, each?.high]).filter((end) => known(end) !== null);
  if (ends.length === 0) {
    return null;
  }
  const low = Math.min(...ends, ...(zero ? [0] : []));
  const high = Math.max(...ends, ...(zero ? [0] : []));
  const air = high > low ? (high - low) / 20 : Math.max(Math.abs(high), 1) / 20;
  return { low: low - air, high: high + air };
}

/** An estimate as a tick in its interval. `reference`, another number, is a line behind it. */
export function whisker(estimate, axis, { kind = "", reference = null } = {}) {
  const at = (value) => position(value, axis);
  const [low, value, high] = [known(estimate?.low), known(estimate?.value), known(estimate?.high)];
  const line = (name, x1, x2, y1, y2) => svg("line", { class: name, x1, x2, y1, y2 });
  return chart(
    `whisker ${kind}`,
    line("axis", 0, 100, HEIGHT / 2, HEIGHT / 2),
    known(reference) !== null && line("reference", at(reference), at(reference), 0, HEIGHT),
    low !== null && high !== null && line("interval", at(low), at(high), HEIGHT / 2, HEIGHT / 2),
    value !== null && line("value", at(value), at(value), 2, HEIGHT - 2),
  );
}

/** A share as a bar. `mark`, another share, is a tick on it. */
export function bar(share, { name = "", mark = null } = {}) {
  const at = (value) => position(value, { low: 0, high: 1 });
  return chart(
    "bar",
    svg("rect", { class: "whole", x: 0, y: 4, width: 100, height: 8 }),
    known(share) !== null && svg("rect", { class: `part ${name}`, x: 0, y: 4, width: at(share), height: 8 }),
    known(mark) !== null && svg("line", { class: "mark", x1: at(mark), x2: at(mark), y1: 1, y2: HEIGHT - 1 }),
  );
}

function chart(name, ...parts) {
  const box = { viewBox: `0 0 100 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", { class: `chart ${name}`, ...box }, ...parts);
}
