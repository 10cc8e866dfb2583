// Shows scenes: previews while a control moves, and whole pictures, each a step of the history.

import { $ } from "/static/dom.js";
import { guarded, say } from "/static/messages.js";
import { request } from "/static/requests.js";
import { same } from "/static/scene.js";
import { drawOutline, drawView } from "/static/stage.js";
import { indexOf, setSteps, state, stepOf } from "/static/state.js";

const MAX_HISTORY = 100;
const follow = { change: [], show: [] };

// Adds functions that run when the scene changes, before its picture is there.
export const afterChange = (...actions) => follow.change.push(...actions);

// Adds functions that run when a step of the history is shown.
export const afterShow = (...actions) => follow.show.push(...actions);

export const preview = guarded(async (changed) => {
  change(changed);
  const found = await request({ scene: changed, preview: true });
  if (found && same(state.scene, changed)) {
    state.view = found;
    await draw(found);
  }
});

// Draws a scene as a new step. With `anew` it is the start of a new history.
export const commit = guarded(async (changed, label, { anew = false } = {}) => {
  change(changed);
  const found = await request({ scene: changed, preview: false });
  if (!found || !same(state.scene, changed)) return;
  state.view = found;
  if (anew) state.start = changed;
  const { steps, at } = anew ? { steps: [], at: -1 } : state;
  if (at >= 0 && same(steps[at].scene, changed)) {
    await show();
    return;
  }
  setSteps([...steps.slice(0, at + 1), stepOf(changed, found, label)].slice(-MAX_HISTORY));
  await show();
  say(label);
});

function change(scene) {
  state.scene = scene;
  follow.change.forEach((action) => action());
}

// Shows the present step of the history. The page counts the shown steps.
export async function show() {
  const { scene, view } = state.steps[state.at];
  Object.assign(state, { scene, view });
  await draw(view);
  $("command").value = view.command;
  follow.show.forEach((action) => action());
  document.body.dataset.shown = String(Number(document.body.dataset.shown || 0) + 1);
}

export async function draw(view) {
  await drawView(view, state.about.regions);
  drawOutline(view, indexOf(state.region));
  $("loading").hidden = true;
}
