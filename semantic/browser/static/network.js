// Opens a network, and begins with its first face.

import { post, useSession } from "/static/api.js";
import { buildSliders, select } from "/static/controls.js";
import { $ } from "/static/dom.js";
import { refreshDonors } from "/static/donors.js";
import { refreshFace } from "/static/face.js";
import { alertOf, guarded } from "/static/messages.js";
import { stopPhoto } from "/static/photo.js";
import { commit } from "/static/pictures.js";
import { buildRegions } from "/static/regions.js";
import { newScene } from "/static/scene.js";
import { setSteps, state } from "/static/state.js";

// Opens a network without a picture. Null opens the server's first one.
export async function begin(network) {
  const about = await post("/api/session", { network });
  stopPhoto();
  useSession(about.session);
  Object.assign(state, { about, directions: about.directions, searched: new Set(about.searched) });
  if (about.notice) alertOf(about.notice);
  $("class-field").hidden = about.classes === 0;
  $("class").max = about.classes - 1;
  $("network").replaceChildren(
    ...about.networks.map((name) => {
      const option = document.createElement("option");
      option.value = option.textContent = name;
      option.selected = name === about.network;
      return option;
    }),
  );
  buildRegions(select);
  buildSliders();
  state.locked = new Set();
  setSteps([]);
  const usual = about.regions.find((r) => r.name === "hair") || about.regions[1];
  state.scene = about.latents ? { ...newScene(null, about.psi), latents: about.latents } : newScene(about.seed, about.psi);
  state.start = state.scene;
  refreshFace();
  select(usual.name);
}

// Opens a network and shows its first face.
export async function fresh(network) {
  await begin(network);
  await commit(state.scene, state.scene.latents ? "Photo" : `Face of seed ${state.scene.seed}`);
  await refreshDonors();
}

async function chooseNetwork() {
  $("loading").textContent = "Opening the network";
  $("frame").classList.add("busy");
  try {
    await fresh($("network").value);
  } finally {
    $("frame").classList.remove("busy");
    $("network").value = state.about.network; // the old network, where the new one did not open
  }
}

export function listenToNetwork() {
  $("network").addEventListener("change", guarded(chooseNetwork));
}
