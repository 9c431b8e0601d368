/** The page: asks the server again and again, and shows what it says of the route in the address. */

import { armsPanel } from "./arms.js";
import { askKey, askReload, askSwitch } from "./dialogs.js";
import { html, show } from "./elements.js";
import { eventsPanel, merged, settled } from "./events.js";
import { explanation } from "./explanation.js";
import { callsOf, healthFacts, samples } from "./health.js";
import { moment, zone } from "./numbers.js";
import { Away, get, key, Refused, Stranger, text } from "./server.js";
import { routesList } from "./routes.js";
import { isAlarmed, summary } from "./summary.js";
import { Traffic, trafficPanel } from "./traffic.js";
import { metricsPanel, valuePanel } from "./value.js";

const EVERY = 2000; // milliseconds from an answer to the next question
const SHARE = 4; // a slow server is asked less: it rests so many times as long as it worked
const EVENTS = 100; // at a time

const place = (id) => document.getElementById(id);
const now = () => Date.now() / 1000;

/** What was last heard. */
const heard = {
  routes: [],
  traffic: new Map(), // by route
  report: null,
  events: [],
  metrics: [],
  readiness: null,
  at: null, // seconds since the epoch
  problem: null,
};
let allEvents = false;
let wake = () => {};

function selected() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("route");
  return heard.routes.includes(asked) ? asked : heard.routes[0];
}

// ------------------------------------------------------------------------------------------------------- asking

async function refresh() {
  heard.routes = (await get("v1/routes")).routes;
  const route = selected();
  const answers = await Promise.allSettled([
    askReport(route),
    askEvents(route),
    text("metrics").then((said) => (heard.metrics = samples(said))),
    text("ready", { whatever: true }).then((said) => (heard.readiness = JSON.parse(said))),
  ]);
  const problems = answers.filter((each) => each.status === "rejected").map((each) => each.reason);
  // Whoever is no client, or finds nobody there, need not hear what else went wrong.
  const worst = [Stranger, Away, Refused].map((kind) => problems.find((each) => each instanceof kind)).find(Boolean);
  if (worst ?? problems[0]) {
    throw worst ?? problems[0];
  }
}

async function askReport(route) {
  if (route === undefined) {
    heard.report = null;
    return;
  }
  const report = await get(`v1/routes/${encodeURIComponent(route)}/report`);
  if (route === selected()) {
    heard.report = report;
    trafficOf(route).see(now(), report.arms);
  }
}

async function askEvents(route) {
  if (route === undefined) {
    heard.events = [];
    return;
  }
  const query = new URLSearchParams({ after: settled(heard.events), most: EVENTS });
  const { events } = await get(`v1/routes/${encodeURIComponent(route)}/events?${query}`);
  if (route === selected()) {
    heard.events = merged(heard.events, events);
  }
}

function trafficOf(route) {
  if (!heard.traffic.has(route)) {
    heard.traffic.set(route, new Traffic());
  }
  return heard.traffic.get(route);
}

// ------------------------------------------------------------------------------------------------------ showing

function render() {
  try {
    draw();
  } catch (fault) {
    show(place("notice"), html("p", { class: "notice bad" }, `This page has a fault: ${fault.message}`));
    console.error(fault);
  }
}

function draw() {
  const { report, events, metrics, routes, readiness } = heard;
  const isAway = heard.problem instanceof Away;
  show(place("routes"), routesList(routes, readiness?.routes ?? {}, selected()));
  show(place("health"), readiness && !isAway && healthFacts(readiness, metrics));
  show(place("pulse"), pulse());
  show(place("notice"), notice());
  document.body.classList.toggle("stale", heard.problem !== null && heard.at !== null);
  document.title = [report && isAlarmed(report) && "⚠", report?.route, "Croupier"].filter(Boolean).join(" · ");
  place("main").hidden = report === null;
  if (report !== null) {
    show(place("summary"), summary(report));
    show(place("arms"), armsPanel(report, callsOf(metrics, report.route), readiness?.routes[report.route]));
    const width = Math.max(place("traffic").clientWidth - 32, 200);
    show(place("traffic"), trafficPanel(trafficOf(report.route), report.arms, events, width));
    show(place("value"), valuePanel(report));
    show(place("metrics"), metricsPanel(report));
    show(place("events"), eventsPanel(events, { all: allEvents }));
  }
}

function pulse() {
  if (heard.problem !== null) {
    const last = heard.at === null ? "nothing heard yet" : `last heard ${moment(heard.at)}`;
    return [html("span", { class: "dot bad" }), last];
  }
  return heard.at === null ? "asking" : [html("span", { class: "dot good" }), `live, ${moment(heard.at)} ${zone()}`];
}

function notice() {
  const { problem, at } = heard;
  if (problem === null) {
    return [];
  }
  if (problem instanceof Away) {
    const since = at === null ? "" : ` What you see is of ${moment(at)}.`;
    return html("p", { class: "notice bad" }, `The server does not answer.${since} It is asked again and again.`);
  }
  return html("p", { class: "notice bad" }, problem.message);
}

// ------------------------------------------------------------------------------------------------------ the loop

/** Never asks while nobody looks, and not before a stranger has given a key. */
async function watch() {
  for (;;) {
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      continue;
    }
    const began = performance.now();
    try {
      await refresh();
      heard.problem = null;
      heard.at = now();
    } catch (error) {
      heard.problem = error;
    }
    render();
    const woken = new Promise((resolve) => (wake = resolve));
    if (heard.problem instanceof Stranger) {
      askKey(heard.problem.message, again);
      await woken;
    } else {
      const rest = Math.max(EVERY, SHARE * (performance.now() - began));
      await Promise.race([woken, new Promise((resolve) => setTimeout(resolve, rest))]);
    }
  }
}

/** Asks at once. */
function again() {
  wake();
}

// -------------------------------------------------------------------------------------------------------- acting

const actions = {
  key: () => askKey("", again),
  forget: (button) => {
    key.forget();
    button.closest("dialog").close();
    location.reload(); // what the key opened is gone from the page as well
  },
  close: (button) => button.closest("dialog").close(),
  reload: () => askReload(again),
  "all-events": () => {
    allEvents = true;
    render();
  },
  switch: ({ dataset }) => {
    const { report } = heard;
    const on = dataset.on === "true";
    askSwitch({ route: report.route, arm: dataset.arm, on, consequence: consequence(report, dataset.arm, on) }, again);
  },
};

function consequence(report, arm, on) {
  if (!arm) {
    return on
      ? "The policy learns again, also from what came in meanwhile."
      : "The policy stays as it is, whatever is learnt. Requests are answered as before.";
  }
  if (on) {
    return "It may be drawn again at once, by all replicas.";
  }
  const others = report.arms.filter((each) => each.name !== arm && each.allowed);
  return others.length === 0
    ? "No other arm may be drawn now: requests of this route will be refused, by all replicas."
    : `It is drawn no more, by all replicas. Its requests go to ${others.map((each) => each.name).join(", ")}.`;
}

document.addEventListener("click", (click) => {
  const button = click.target.closest("[data-do]");
  if (button) {
    actions[button.dataset.do](button);
  }
});

place("explain").addEventListener("submit", async (submission) => {
  submission.preventDefault();
  const id = submission.target.elements.decision.value.trim();
  try {
    show(place("explanation"), explanation(await get(`v1/decisions/${encodeURIComponent(id)}`)));
  } catch (error) {
    const said = error instanceof Away ? "The server does not answer." : error.message;
    show(place("explanation"), html("p", { class: "notice bad" }, said));
  }
});

addEventListener("hashchange", () => {
  heard.report = null;
  heard.events = [];
  allEvents = false;
  render();
  again();
});
addEventListener("resize", render);
addEventListener("online", again);

watch();
