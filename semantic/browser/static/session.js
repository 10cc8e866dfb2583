// Session files: all steps of the history, and the latents and directions that they need.

import { ServerError, post } from "/static/api.js";
import { select } from "/static/controls.js";
import { $ } from "/static/dom.js";
import { guarded, say } from "/static/messages.js";
import { begin } from "/static/network.js";
import { stopPhoto } from "/static/photo.js";
import { show } from "/static/pictures.js";
import { request } from "/static/requests.js";
import { indexOf, setSteps, state, stepOf } from "/static/state.js";
import { save } from "/static/widgets.js";

const KIND = "semantic-stylegan-session";
const VERSION = 1;

const saveSession = guarded(async () => {
  const { about, at, locked, region, steps } = state;
  const kept = await post("/api/session/save", { scenes: steps.map((step) => step.scene) });
  const data = { kind: KIND, version: VERSION, network: about.network, at, region, locked: [...locked],
    steps: steps.map((step) => ({ scene: step.scene, label: step.label })), kept };
  save(new Blob([JSON.stringify(data)], { type: "application/json" }), "session.json");
});

export const openSession = guarded(async (file) => {
  const data = await read(file);
  if (data.network !== state.about.network) await begin(data.network);
  stopPhoto();
  const restored = await post("/api/session/open", { kept: data.kept });
  const known = (name) => indexOf(name) >= 0;
  Object.assign(state, { directions: restored.directions, searched: new Set(restored.searched) });
  state.locked = new Set((data.locked || []).filter(known));
  const found = [];
  for (const step of data.steps) {
    const scene = renamed(step.scene, restored.latents);
    const view = await request({ scene, preview: false });
    if (!view) return;
    found.push(stepOf(scene, view, String(step.label)));
  }
  setSteps(found, Math.min(Math.max(Number(data.at) || 0, 0), found.length - 1));
  state.start = found[0].scene;
  select(known(data.region) ? data.region : state.about.regions[1].name);
  await show();
  say("The session is open.");
});

async function read(file) {
  let data;
  try {
    data = JSON.parse(await file.text());
  } catch {
    throw new ServerError(`${file.name} is not a session file: it is not JSON.`, 400);
  }
  if (data.kind !== KIND || data.version !== VERSION || !Array.isArray(data.steps) || !data.steps.length) {
    throw new ServerError(`${file.name} is not a session file of this editor.`, 400);
  }
  return data;
}

// A scene with the names that the server gave to the latents of the file.
function renamed(scene, names) {
  return {
    ...scene,
    latents: scene.latents === null ? null : names[scene.latents] ?? scene.latents,
    edits: scene.edits.map((e) => (e.latents ? { ...e, latents: names[e.latents] ?? e.latents } : e)),
  };
}

export function listenToSession() {
  $("save-session").addEventListener("click", saveSession);
  $("open-session").addEventListener("click", () => $("session-file").click());
  $("session-file").addEventListener("change", () => {
    if ($("session-file").files[0]) openSession($("session-file").files[0]);
    $("session-file").value = "";
  });
}
