// The second picture: the mask, or the edit in the photo.

import { postForFile } from "/static/api.js";
import { $ } from "/static/dom.js";
import { guarded } from "/static/messages.js";
import { same } from "/static/scene.js";
import { state } from "/static/state.js";

let timer = null;

// Asks for the edit in the photo, once the edits pause.
export function blendSoon() {
  const photo = state.view.photo;
  if (photo === $("views").hidden) showBlend(photo);
  $("views").hidden = $("save-photo").hidden = !photo;
  $("save-base").hidden = state.scene.latents === null;
  $("blend").classList.toggle("stale", photo);
  $("mask-caption").hidden = photo;
  clearTimeout(timer);
  if (photo) timer = setTimeout(guarded(blendNow), 250);
}

async function blendNow() {
  const shown = state.scene;
  const picture = await postForFile("/api/blend", { scene: shown, shown: true });
  if (!same(state.scene, shown)) return;
  const old = $("blend").src;
  $("blend").src = URL.createObjectURL(picture);
  $("blend").classList.remove("stale");
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

// Shows the photo with the edit in the place of the mask, or the mask.
function showBlend(on) {
  $("blend-figure").hidden = !on;
  $("show-blend").setAttribute("aria-pressed", String(on));
  $("show-mask").setAttribute("aria-pressed", String(!on));
}

export function listenToBlend() {
  $("show-blend").addEventListener("click", () => showBlend(true));
  $("show-mask").addEventListener("click", () => showBlend(false));
}
