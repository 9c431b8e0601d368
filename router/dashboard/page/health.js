/** How the server itself fares: from its readiness, and from what it tells Prometheus. */

import { html } from "./elements.js";
import { count, duration, known } from "./numbers.js";

const SAMPLE = /^(croupier_\w+)(?:\{(.*)\})? (\S+)$/gm;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of ours in a text of metrics: name, labels and value. */
export function samples(text) {
  return [...text.matchAll(SAMPLE)].map(([, name, labels = "", value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, label, said]) => [label, said])),
    value: Number(value),
  }));
}

/** The calls that each arm of a route answered, by status. */
export function callsOf(found, route) {
  const calls = new Map();
  for (const { labels, value } of found.filter((each) => each.name === "croupier_requests_total")) {
    if (labels.route === route) {
      calls.set(labels.arm, { ...calls.get(labels.arm), [labels.code]: value });
    }
  }
  return calls;
}

/** Server, store and learner, as terms and texts. */
export function healthFacts({ ready, draining, store, workers }, found) {
  const total = (name) => found.filter((each) => each.name === name).reduce((sum, each) => sum + each.value, 0);
  const lost = known(total("croupier_decisions_dropped_total"));
  const isAway = store.away_seconds > 0;
  return [
    fact("Server", draining ? "draining" : ready ? "ready" : "not ready", !ready),
    workers && fact("Workers", `${workers.up} of ${workers.of}`, workers.up < workers.of),
    fact("Store", isAway ? `away for ${duration(store.away_seconds)}` : "answers", isAway),
    fact("Learner lag", duration(total("croupier_learner_lag_seconds"))),
    fact("Waiting", count(store.waiting)),
    lost > 0 && fact("Decisions lost", count(lost), true),
  ];
}

function fact(term, text, isBad = false) {
  return html("div", { class: isBad ? "bad" : null }, html("dt", {}, term), html("dd", {}, text));
}
