/** What the page asks people: a key, and whether they mean it. */

import { Away, key, post, Refused, Stranger } from "./server.js";

const WHO = "croupier.who";

const element = (id) => document.getElementById(id);

/** Asks for a key; calls `changed` when there is another one, or none. */
export function askKey(reason, changed) {
  const dialog = element("key-dialog");
  if (reason) {
    element("key-asked").textContent = reason;
  }
  dialog.querySelector("[data-do=forget]").hidden = key.get() === null;
  open(dialog, (form) => {
    key.use(form.elements.key.value.trim());
    dialog.close();
    changed();
  });
}

/** Asks who switches an arm, or the learning of a route where `arm` is empty, and why; then does it. */
export function askSwitch({ route, arm, on, consequence }, changed) {
  const dialog = element("switch-dialog");
  const does = arm ? (on ? "Switch on" : "Switch off") : on ? "Let learn" : "Freeze";
  element("switch-title").textContent = `${does} ${arm ? `arm ${arm} of ` : ""}route ${route}`;
  element("switch-consequence").textContent = consequence;
  element("switch-confirm").textContent = does;
  const form = open(dialog, async () => {
    const { who, why } = form.elements;
    sessionStorage.setItem(WHO, who.value);
    await post(`v1/routes/${encodeURIComponent(route)}/switch`, { arm, on, who: who.value, why: why.value });
    dialog.close();
    changed();
  });
  form.elements.who.value = sessionStorage.getItem(WHO) ?? "";
}

/** Asks whether to read the configuration again; then does it, and shows what the server says. */
export function askReload(changed) {
  const said = element("reloaded");
  said.textContent = "";
  open(element("reload-dialog"), async () => {
    said.textContent = "";
    const { changed: changes } = await post("reload", {});
    said.textContent = changes.join("\n") || "Read again: nothing has changed.";
    changed();
  });
}

/** Opens a dialog with an empty form; `act` runs on each submission, and what it throws is shown. */
function open(dialog, act) {
  const form = dialog.querySelector("form");
  const error = form.querySelector(".error");
  const confirm = form.querySelector(".actions button:last-child");
  form.reset();
  if (error) {
    error.textContent = "";
  }
  form.onsubmit = async (submission) => {
    submission.preventDefault();
    confirm.disabled = true; // once is enough
    try {
      await act(form);
    } catch (refusal) {
      error.textContent = sentence(refusal);
    } finally {
      confirm.disabled = false;
    }
  };
  if (!dialog.open) {
    dialog.showModal();
  }
  return form;
}

/** What went wrong, for people. */
function sentence(error) {
  if (error instanceof Away) {
    return "The server does not answer. Whether it was done is not known.";
  }
  if (error instanceof Stranger || error instanceof Refused) {
    return error.message;
  }
  throw error;
}
