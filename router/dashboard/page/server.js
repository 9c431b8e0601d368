/** The server behind this page: asked in JSON, with the key of whoever looks, where it wants one. */

const KEY = "croupier.key";
const PATIENCE = 10_000; // milliseconds

/** It does not answer. */
export class Away extends Error {}

/** It wants a key, or another one. */
export class Stranger extends Error {}

/** It says no, and why. */
export class Refused extends Error {}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  use: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The JSON at a path. */
export async function get(path) {
  return JSON.parse(await ask(path));
}

/** The text at a path. With `whatever`, also that of a refusal. */
export function text(path, { whatever = false } = {}) {
  return ask(path, { whatever });
}

/** Posts an object, and returns the JSON of the answer. */
export async function post(path, body) {
  return JSON.parse(await ask(path, { body }));
}

async function ask(path, { body, whatever = false } = {}) {
  const headers = { accept: "application/json" };
  if (key.get() !== null) {
    headers.authorization = `Bearer ${key.get()}`;
  }
  if (body !== undefined) {
    headers["content-type"] = "application/json";
  }
  const method = body === undefined ? "GET" : "POST";
  let answer;
  let said;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    answer = await fetch(path, { method, headers, body: JSON.stringify(body), cache: "no-store", signal });
    said = await answer.text();
  } catch {
    throw new Away(`no answer to ${method} ${path}`);
  }
  if (answer.status === 401) {
    throw new Stranger(sentence(answer, said));
  }
  if (!answer.ok && !whatever) {
    throw new Refused(sentence(answer, said));
  }
  return said;
}

function sentence(answer, said) {
  try {
    return String(JSON.parse(said).error);
  } catch {
    return `the server answered with status ${answer.status}`;
  }
}
