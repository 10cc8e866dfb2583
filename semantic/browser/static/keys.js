// Keys that work anywhere on the page, but not while someone types.

import { $ } from "/static/dom.js";
import { compare, redo, undo } from "/static/history.js";
import { toggleDraw, toggleLock } from "/static/regions.js";
import { state } from "/static/state.js";

const ACTIONS = {
  c: () => compare(true),
  n: () => $("reroll").click(),
  s: () => $("new-shape").click(),
  t: () => $("new-texture").click(),
  b: () => $("new-both").click(),
  l: toggleLock,
  x: toggleDraw,
};
const TYPING = "input:not([type=range]):not([type=radio]):not([type=checkbox]), select, textarea, dialog";

export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) redo();
      else undo();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPING) || !state.scene) return;
    const action = event.repeat ? null : ACTIONS[event.key.toLowerCase()];
    if (action) {
      event.preventDefault();
      action();
    }
  });
  document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "c") compare(false); });
}
