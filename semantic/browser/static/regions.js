// The list of regions: the selected one, the locked ones, and the ones that are left out.

import { $ } from "/static/dom.js";
import { say } from "/static/messages.js";
import { commit } from "/static/pictures.js";
import { drop, isDropped } from "/static/scene.js";
import { fill } from "/static/stage.js";
import { state } from "/static/state.js";

// Builds the list. `onSelect` gets the name of the region that someone selects in it.
export function buildRegions(onSelect) {
  $("regions").replaceChildren(...state.about.regions.map((r) => {
    const label = document.createElement("label");
    label.className = "region";
    label.id = `region-${r.index}`;
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "region", value: r.name });
    radio.addEventListener("change", () => onSelect(r.name));
    const chip = document.createElement("canvas");
    chip.className = "chip";
    chip.width = chip.height = 1;
    fill(chip, r.color);
    chip.setAttribute("aria-hidden", "true");
    const text = document.createElement("span");
    text.textContent = label.title = r.name;
    const mark = document.createElement("span");
    mark.className = "mark";
    label.append(radio, chip, text, mark);
    return label;
  }));
}

// Marks of locked and left out regions. Screen readers hear them with the name of the region.
export function refreshRegions() {
  const { about, locked, region, scene } = state;
  for (const r of about.regions) {
    const label = $(`region-${r.index}`);
    const [lockedNow, gone] = [locked.has(r.name), isDropped(scene, r.name)];
    label.classList.toggle("gone", gone);
    label.querySelector(".mark").hidden = !lockedNow;
    label.querySelector("input").setAttribute("aria-label", r.name + (lockedNow ? ", locked" : "") + (gone ? ", left out" : ""));
  }
  $("draw").checked = !isDropped(scene, region);
  $("lock").checked = locked.has(region);
}

function setLock(on) {
  const { locked, region } = state;
  if (on) locked.add(region);
  else locked.delete(region);
  refreshRegions();
  say(on ? `A new face keeps ${region}.` : `A new face changes ${region}.`);
}

const setDraw = (on) => commit(drop(state.scene, state.region, !on), `${on ? "Show" : "Leave out"} ${state.region}`);

export const toggleLock = () => setLock(!state.locked.has(state.region));
export const toggleDraw = () => setDraw(isDropped(state.scene, state.region));

export function listenToRegions() {
  $("lock").addEventListener("change", () => setLock($("lock").checked));
  $("draw").addEventListener("change", () => setDraw($("draw").checked));
}
