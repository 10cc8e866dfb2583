// The history: a list of small pictures, undo and redo, and the comparison with the start.

import { $ } from "/static/dom.js";
import { guarded, say } from "/static/messages.js";
import { commit, draw, show } from "/static/pictures.js";
import { same } from "/static/scene.js";
import { state } from "/static/state.js";

let comparing = false;

const goTo = guarded(async (index) => {
  if (index < 0 || index >= state.steps.length) return;
  state.at = index;
  await show();
  say(state.steps[state.at].label);
});

export const undo = () => goTo(state.at - 1);
export const redo = () => goTo(state.at + 1);

export function refreshHistory() {
  const { steps, at } = state;
  $("undo").disabled = at <= 0;
  $("redo").disabled = at >= steps.length - 1;
  $("history").replaceChildren(...steps.map(itemOf));
  const current = $("history").children[at];
  if (current) $("history").scrollLeft = current.offsetLeft - $("history").clientWidth / 2;
}

function itemOf(step, i) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Step ${i + 1}: ${step.label}`);
  button.setAttribute("aria-current", String(i === state.at));
  button.title = step.label;
  const image = new Image();
  image.src = step.url;
  image.alt = "";
  button.append(image);
  button.addEventListener("click", () => goTo(i));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// Shows the start of the history, or the present picture again.
export function compare(on) {
  if (on === comparing || !state.steps.length) return;
  comparing = on;
  $("compare").setAttribute("aria-pressed", String(on));
  const first = state.steps.find((step) => same(step.scene, state.start)) || state.steps[0];
  $("pointed").textContent = on ? "the start" : "";
  guarded(draw)(on ? first.view : state.view);
}

export function listenToHistory() {
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("reset").addEventListener("click", () => commit({ ...state.scene, edits: [] }, "No edits"));
  $("compare").addEventListener("pointerdown", () => compare(true));
  for (const name of ["pointerup", "pointerleave", "blur"]) $("compare").addEventListener(name, () => compare(false));
  $("compare").addEventListener("keydown", (event) => { if ([" ", "Enter"].includes(event.key)) compare(true); });
  $("compare").addEventListener("keyup", () => compare(false));
  window.addEventListener("blur", () => compare(false));
}
