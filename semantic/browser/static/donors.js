// Other faces, from which the selected region is taken.

import { post } from "/static/api.js";
import { $ } from "/static/dom.js";
import { guarded } from "/static/messages.js";
import { commit } from "/static/pictures.js";
import { randomSeed, swap } from "/static/scene.js";
import { state } from "/static/state.js";

const DONORS = 6;

export const refreshDonors = guarded(async () => {
  const { about, scene } = state;
  const seeds = Array.from({ length: DONORS }, randomSeed);
  const found = await post("/api/faces", { seeds, psi: scene.psi, label: scene.label });
  if (state.about !== about) return; // another network opened meanwhile
  $("donors").replaceChildren(...found.images.map((image, i) => donorOf(seeds[i], image)));
});

function donorOf(seed, image) {
  const button = document.createElement("button");
  button.type = "button";
  button.draggable = true;
  button.dataset.seed = seed;
  button.setAttribute("aria-label", `Take the selected region from the face of seed ${seed}`);
  const picture = new Image();
  picture.src = `data:image/png;base64,${image}`;
  picture.alt = "";
  picture.draggable = false;
  button.append(picture);
  button.addEventListener("click", () => takeFrom(seed));
  button.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-seed", String(seed)));
  return button;
}

function takeFrom(seed) {
  const part = $("donor-part").value;
  commit(swap(state.scene, state.region, seed, part), `${state.region} of seed ${seed}`);
}

// Donors are clicked, or dragged onto the image.
export function listenToDonors() {
  const frame = $("frame");
  frame.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("text/x-seed")) return;
    event.preventDefault();
    frame.classList.add("over");
  });
  frame.addEventListener("dragleave", () => frame.classList.remove("over"));
  frame.addEventListener("drop", (event) => {
    const seed = event.dataTransfer.getData("text/x-seed");
    frame.classList.remove("over");
    if (!seed) return;
    event.preventDefault();
    takeFrom(Number(seed));
  });
  $("more-donors").addEventListener("click", refreshDonors);
}
