/**
 * Where a route's decisions went, from counts that were seen while the page is open: the share of each arm among the
 * decisions of the last half minute, drawn as layers that add up to one.
 */

import { colour } from "./charts.js";
import { html, svg } from "./elements.js";
import { moment, percent, significant, UNKNOWN } from "./numbers.js";

const WINDOW = 30; // seconds
const KEPT = 900; // seconds
const SHORTEST = 60; // seconds, of the axis of time
const HEIGHT = 180;
const AIR = 6;

/** What was seen of one route. */
export class Traffic {
  #seen = [];

  /** Notes how many decisions each arm has, at a moment in seconds. */
  see(time, arms) {
    const counts = new Map(arms.map((arm) => [arm.name, arm.decisions]));
    const last = this.#seen.at(-1);
    if (last && ![...last.counts].every(([name, before]) => (counts.get(name) ?? -1) >= before)) {
      this.#seen = []; // an arm is gone, or the store begins anew
    }
    this.#seen.push({ time, counts });
    this.#seen = this.#seen.filter((each) => each.time >= time - KEPT);
  }

  /** The moments seen after the first: the decisions a second, and each arm's share of them if there were any. */
  get points() {
    return this.#seen.slice(1).map((now, index) => {
      const before = this.#seen.find((each, i) => i >= index || each.time >= now.time - WINDOW);
      const taken = [...now.counts].map(([name, count]) => [name, count - (before.counts.get(name) ?? 0)]);
      const total = taken.reduce((sum, [, n]) => sum + n, 0);
      const shares = total > 0 ? new Map(taken.map(([name, n]) => [name, n / total])) : null;
      return { time: now.time, rate: total / (now.time - before.time), shares };
    });
  }
}

/** The panel: a chart as wide as `width` pixels, and its legend. Events that fall into it are marked. */
export function trafficPanel(traffic, arms, events, width) {
  const points = traffic.points;
  const names = arms.map((arm) => arm.name);
  const last = points.at(-1);
  return [
    html("h2", { id: "traffic-title" }, "Share of traffic"),
    points.some((point) => point.shares)
      ? chart(points, names, events, width)
      : html("p", { class: "nothing" }, "Drawn from the decisions that are taken while this page is open."),
    html(
      "ul",
      { class: "legend" },
      names.map((name, index) =>
        html(
          "li",
          {},
          html("span", { class: `swatch ${colour(index)}` }),
          `${name} `,
          html("b", {}, last?.shares ? percent(last.shares.get(name)) : UNKNOWN),
        ),
      ),
    ),
    html("p", { class: "aside" }, `Of the last ${WINDOW} s, ${significant(last?.rate)} decisions a second.`),
  ];
}

function chart(points, names, events, width) {
  const end = points.at(-1).time;
  const start = Math.min(points[0].time, end - SHORTEST);
  const x = (time) => round(((time - start) / (end - start)) * width);
  const y = (share) => round(AIR + (1 - share) * (HEIGHT - 2 * AIR));
  const latest = points.findLast((point) => point.shares).shares;
  const said = names.map((name) => `${name} ${percent(latest.get(name))}`).join(", ");
  return html(
    "figure",
    {},
    svg(
      "svg",
      { class: "traffic", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Share of traffic: ${said}` },
      runs(points).flatMap((run) => layers(run, names, x, y)),
      [0, 0.5, 1].map((share) => svg("line", { class: "grid", x1: 0, x2: width, y1: y(share), y2: y(share) })),
      events
        .filter((event) => event.time >= start && event.time <= end)
        .map((event) =>
          svg(
            "line",
            { class: "event", x1: x(event.time), x2: x(event.time), y1: 0, y2: HEIGHT },
            svg("title", {}, `${event.arm} ${event.kind}`),
          ),
        ),
    ),
    html("figcaption", {}, html("span", {}, moment(start)), html("span", {}, moment(end))),
  );
}

/** Stretches of points with traffic: what lies between is not drawn. */
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point.shares) {
      found.at(-1).push(point);
    } else if (found.at(-1).length > 0) {
      found.push([]);
    }
  }
  return found.filter((run) => run.length > 0);
}

/** One layer an arm, the first on top. */
function layers(run, names, x, y) {
  const edges = run.map((point) => {
    let rest = 1;
    return names.map((name) => ({ top: rest, bottom: (rest -= point.shares.get(name) ?? 0) }));
  });
  // One moment alone is drawn a little wide, or nothing would be seen of it.
  const across = run.length > 1 ? run.map((point) => x(point.time)) : [x(run[0].time) - 2, x(run[0].time)];
  const rows = run.length > 1 ? edges : [edges[0], edges[0]];
  return names.map((_, arm) => {
    const top = rows.map((row, i) => `${across[i]},${y(row[arm].top)}`);
    const bottom = rows.map((row, i) => `${across[i]},${y(row[arm].bottom)}`).reverse();
    return svg("polygon", { class: `layer ${colour(arm)}`, points: [...top, ...bottom].join(" ") });
  });
}

function round(value) {
  return Math.round(10 * value) / 10;
}
