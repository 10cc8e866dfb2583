// What the page says: a line that goes away, and errors that stay until they are closed.

import { ServerError } from "/static/api.js";
import { $ } from "/static/dom.js";

let statusTimer = null;
export function say(text) {
  $("status").textContent = text;
  clearTimeout(statusTimer);
  statusTimer = setTimeout(() => { $("status").textContent = ""; }, 4000);
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (error instanceof ServerError && error.status === 409) return; // overtaken
  const text = error instanceof ServerError ? error.message : `The editor lost its server: ${error.message}.`;
  alertOf(text);
}

export function alertOf(text) {
  $("alert-text").textContent = text;
  $("alert").hidden = false;
}

export function guarded(action) {
  return async (...args) => {
    try {
      await action(...args);
    } catch (error) {
      complain(error);
    }
  };
}
