// The controls of the whole face: seed, class, and truncation.

import { refreshDonors } from "/static/donors.js";
import { $ } from "/static/dom.js";
import { commit, preview } from "/static/pictures.js";
import { randomSeed, reroll } from "/static/scene.js";
import { state } from "/static/state.js";
import { setSlider } from "/static/widgets.js";

export function refreshFace() {
  const { scene } = state;
  $("seed").value = scene.seed ?? "";
  $("seed").placeholder = scene.latents ? "of a photo" : "";
  setSlider($("psi"), scene.psi, 2);
  $("psi").disabled = scene.latents !== null;
  $("class").value = scene.label;
}

function newFace(seed) {
  commit(reroll(state.scene, seed, state.locked), `Face of seed ${seed}`);
}

// The whole number in a field, within its limits.
const numberIn = (id, max) => Math.min(Math.max(Math.floor(Number($(id).value)) || 0, 0), max);

export function listenToFace() {
  $("seed").addEventListener("change", () => newFace(numberIn("seed", 4294967295)));
  $("reroll").addEventListener("click", () => newFace(randomSeed()));
  $("class").addEventListener("change", () => {
    const label = numberIn("class", state.about.classes - 1);
    commit({ ...state.scene, label }, `Class ${label}`).then(refreshDonors);
  });
  const truncated = (psi) => ({ ...state.scene, psi: Number(psi) });
  $("psi").addEventListener("input", () => preview(truncated($("psi").value)));
  $("psi").addEventListener("change", () => {
    commit(truncated($("psi").value), `Truncation ${$("psi").value}`).then(refreshDonors);
  });
  $("psi").addEventListener("dblclick", () => commit(truncated(state.about.psi), `Truncation ${state.about.psi}`));
}
