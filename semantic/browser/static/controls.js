// The controls of the selected region: new codes, sliders, and directions.

import { stream } from "/static/api.js";
import { $ } from "/static/dom.js";
import { guarded, say } from "/static/messages.js";
import { commit, preview } from "/static/pictures.js";
import { refreshRegions } from "/static/regions.js";
import * as scenes from "/static/scene.js";
import { drawOutline, fill } from "/static/stage.js";
import { indexOf, state } from "/static/state.js";
import { setSlider, slider } from "/static/widgets.js";

export function select(name) {
  state.region = name;
  $("region-name").textContent = name;
  fill($("region-chip"), state.about.regions[indexOf(name)].color);
  document.querySelectorAll("#regions input[type=radio]").forEach((radio) => { radio.checked = radio.value === name; });
  buildDirections();
  refreshControls();
  if (state.view) drawOutline(state.view, indexOf(name));
}

export function refreshControls() {
  const { directions, region, scene } = state;
  if (!scene) return;
  refreshRegions();
  setSlider($("region-psi"), scenes.truncationOf(scene, region), 2);
  for (const [name, value] of Object.entries(scenes.moveOf(scene, region))) {
    setSlider($(`move-${name}`), value, name === "rotate" ? 0 : 2);
  }
  (directions[region] || []).forEach((name, i) => {
    if ($(`direction-${i}`)) setSlider($(`direction-${i}`), scenes.strengthOf(scene, name), 1);
  });
  $("reset").disabled = scene.edits.length === 0;
}

// A slider that previews its edit while it moves. `change` returns the scene with a value.
function editSlider(id, text, range, change, labelOf) {
  return slider(id, text, range, (value) => preview(change(value)), (value) => commit(change(value), labelOf()));
}

export function buildSliders() {
  const rows = Object.entries(scenes.MOVES).map(([name, range]) =>
    editSlider(`move-${name}`, range.label, range,
      (value) => scenes.move(state.scene, state.region, { [name]: value }), () => `Move ${state.region}`));
  const psi = editSlider("region-psi", "Truncation", { min: 0, max: 1.5, step: 0.05, neutral: 1 },
    (value) => scenes.truncate(state.scene, state.region, value), () => `Truncation of ${state.region}`);
  $("sliders").replaceChildren(psi, ...rows);
}

function buildDirections() {
  const names = state.directions[state.region] || [];
  $("directions").replaceChildren(
    ...names.map((name, i) => {
      const text = name.slice(name.indexOf("/") + 1).replaceAll("-", " ");
      return editSlider(`direction-${i}`, text[0].toUpperCase() + text.slice(1), { min: -3, max: 3, step: 0.1, neutral: 0 },
        (value) => scenes.along(state.scene, state.region, name, value), () => `${text} of ${state.region}`);
    }),
  );
  $("find").hidden = state.searched.has(state.region);
  $("find").textContent = names.length ? "Find more directions" : "Find directions";
  $("save-directions").hidden = Object.values(state.directions).every((found) => found.length === 0);
}

const findDirections = guarded(async () => {
  const { about, region } = state; // people may select another one meanwhile, or open another network
  $("find").disabled = true;
  $("find-bar").hidden = false;
  try {
    await stream("/api/directions", JSON.stringify({ region }), "application/json", (line) => {
      if (line.share !== undefined) $("find-bar").value = line.share;
      if (!line.names || state.about !== about) return;
      state.directions[region] = line.names;
      state.searched.add(region);
    });
    if (state.about !== about) return;
    buildDirections();
    refreshControls();
    say(`The directions of ${region} are ready.`);
  } finally {
    $("find").disabled = false;
    $("find-bar").hidden = true;
  }
});

function newPart(part, text) {
  commit(scenes.swap(state.scene, state.region, scenes.randomSeed(), part), `New ${text} of ${state.region}`);
}

export function listenToControls() {
  $("new-shape").addEventListener("click", () => newPart("shape", "shape"));
  $("new-texture").addEventListener("click", () => newPart("texture", "texture"));
  $("new-both").addEventListener("click", () => newPart("both", "shape and texture"));
  $("find").addEventListener("click", findDirections);
}
