/** The list of routes, each with its readiness in a line. */

import { html } from "./elements.js";

/** The items of the list. `states` are those of the readiness, by route. */
export function routesList(routes, states, selected) {
  return routes.map((route) =>
    html(
      "li",
      { "data-key": route },
      html(
        "a",
        { href: `#${new URLSearchParams({ route })}`, "aria-current": route === selected ? "page" : null },
        html("span", { class: "name" }, route),
        html("span", { class: "small" }, states[route] ? state(states[route]) : "…"),
      ),
    ),
  );
}

function state({ ready, arms }) {
  const all = Object.values(arms);
  const found = [
    [all.filter((arm) => !arm.switched_on).length, "off"],
    [all.filter((arm) => arm.switched_on && !arm.allowed).length, "left out"],
    [all.filter((arm) => arm.allowed && !arm.ready).length, "not ready"],
  ];
  const wrong = found.filter(([n]) => n > 0).map(([n, what]) => `${n} ${what}`);
  const kind = !ready ? "bad" : wrong.length > 0 ? "warn" : "good";
  const said = [`${all.length} ${all.length === 1 ? "arm" : "arms"}`, ...wrong].join(", ");
  return [html("span", { class: `dot ${kind}` }), ready ? said : `nobody answers: ${said}`];
}
