// The editor: draws what the server computes, and turns what people do into scenes.

import { ServerError, bytes, post, postForFile, stream, useSession } from "/static/api.js";
import { alertOf, guarded, say } from "/static/messages.js";
import * as scenes from "/static/scene.js";
import { drawOutline, drawView, fill, indexAt, inflate } from "/static/stage.js";
import { dropFiles, save, setSlider, slider } from "/static/widgets.js";

const $ = (id) => document.getElementById(id);
const MAX_HISTORY = 100;
const DONORS = 6;

let about = null; // what the server says of the network
let scene = null;
let start = null; // the scene that comparing shows
let view = null; // the last picture: { image: Blob, mask: Uint8Array, size, command, photo }
let steps = []; // see `stepOf`
let at = -1;
let region = null; // name of the selected region
let locked = new Set();
let directions = {}; // by region: names
let searched = new Set(); // regions whose directions were searched
let donorSeeds = [];
let busy = null; // the request that is under way
let wanted = null; // the request that waits for it
let turn = 0;
let photoJob = null;
let comparing = false;

// ------------------------------------------------------------------ drawing

async function asView(answer) {
  const image = new Blob([bytes(answer.image)], { type: "image/png" });
  return { image, mask: await inflate(bytes(answer.mask)), size: answer.size, command: answer.command, photo: answer.photo };
}

// A step of the history. Its small picture has an address until the step is forgotten.
const stepOf = (scene, view, label) => ({ scene, view, label, url: URL.createObjectURL(view.image) });

function setSteps(found) {
  const kept = new Set(found);
  steps.filter((step) => !kept.has(step)).forEach((step) => URL.revokeObjectURL(step.url));
  steps = found;
}

async function draw(shown) {
  await drawView(shown, about.regions);
  drawOutline(shown, indexOf(region));
  $("loading").hidden = true;
}

const indexOf = (name) => about.regions.findIndex((r) => r.name === name);

function regionAt(event, canvas = $("image")) {
  const k = indexAt(event, canvas, view);
  return k < 0 ? null : about.regions[k].name;
}

// ------------------------------------------------------------------ asking for pictures

// One request at a time: while one is under way, only the newest wish waits.
function request(wish) {
  if (busy && wanted) wanted.drop();
  return new Promise((resolve, reject) => {
    const job = { wish, resolve, reject, drop: () => resolve(null) };
    if (busy) wanted = job;
    else run(job);
  });
}

async function run(job) {
  busy = job;
  const slow = setTimeout(() => $("frame").classList.add("busy"), 300);
  try {
    turn += 1;
    job.resolve(await asView(await post("/api/view", { ...job.wish, turn })));
  } catch (error) {
    job.reject(error);
  } finally {
    busy = null;
    clearTimeout(slow);
    $("frame").classList.remove("busy");
    const next = wanted;
    wanted = null;
    if (next) run(next);
  }
}

const preview = guarded(async (changed) => {
  scene = changed;
  refreshControls();
  const found = await request({ scene: changed, preview: true });
  if (found && scenes.same(scene, changed)) {
    view = found;
    await draw(found);
  }
});

const commit = guarded(async (changed, label) => {
  scene = changed;
  refreshControls();
  const found = await request({ scene: changed, preview: false });
  if (!found || !scenes.same(scene, changed)) return;
  view = found;
  if (at >= 0 && scenes.same(steps[at].scene, changed)) {
    await show();
    return;
  }
  setSteps([...steps.slice(0, at + 1), stepOf(changed, found, label)].slice(-MAX_HISTORY));
  at = steps.length - 1;
  await show();
  say(label);
});

async function show() {
  ({ scene, view } = steps[at]);
  await draw(view);
  $("command").value = view.command;
  refreshControls();
  refreshHistory();
  blendSoon();
  document.body.dataset.shown = String(Number(document.body.dataset.shown || 0) + 1);
}

const goTo = guarded(async (index) => {
  if (index < 0 || index >= steps.length) return;
  at = index;
  await show();
  say(steps[at].label);
});

// ------------------------------------------------------------------ the blended photo

let blendTimer = null;
function blendSoon() {
  const photo = view.photo;
  if (photo === $("views").hidden) showBlend(photo);
  $("views").hidden = $("save-photo").hidden = !photo;
  $("save-base").hidden = scene.latents === null;
  $("blend").classList.toggle("stale", photo);
  $("mask-caption").hidden = photo;
  clearTimeout(blendTimer);
  if (photo) blendTimer = setTimeout(guarded(blendNow), 250);
}

// Shows the photo with the edit in the place of the mask, or the mask.
function showBlend(on) {
  $("blend-figure").hidden = !on;
  $("show-blend").setAttribute("aria-pressed", String(on));
  $("show-mask").setAttribute("aria-pressed", String(!on));
}

async function blendNow() {
  const shown = scene;
  const picture = await postForFile("/api/blend", { scene: shown, shown: true });
  if (!scenes.same(scene, shown)) return;
  const old = $("blend").src;
  $("blend").src = URL.createObjectURL(picture);
  $("blend").classList.remove("stale");
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

// ------------------------------------------------------------------ controls

function refreshHistory() {
  $("undo").disabled = at <= 0;
  $("redo").disabled = at >= steps.length - 1;
  $("history").replaceChildren(
    ...steps.map((step, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Step ${i + 1}: ${step.label}`);
      button.setAttribute("aria-current", String(i === at));
      button.title = step.label;
      const image = new Image();
      image.src = step.url;
      image.alt = "";
      button.append(image);
      button.addEventListener("click", () => goTo(i));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  const current = $("history").children[at];
  if (current) $("history").scrollLeft = current.offsetLeft - $("history").clientWidth / 2;
}

function buildRegions() {
  $("regions").replaceChildren(...about.regions.map((r) => {
    const label = document.createElement("label");
    label.className = "region";
    label.id = `region-${r.index}`;
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "region", value: r.name });
    radio.addEventListener("change", () => select(r.name));
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
function refreshRegions() {
  for (const r of about.regions) {
    const label = $(`region-${r.index}`);
    const [lockedNow, gone] = [locked.has(r.name), scenes.isDropped(scene, r.name)];
    label.classList.toggle("gone", gone);
    label.querySelector(".mark").hidden = !lockedNow;
    label.querySelector("input").setAttribute("aria-label", r.name + (lockedNow ? ", locked" : "") + (gone ? ", left out" : ""));
  }
  $("draw").checked = !scenes.isDropped(scene, region);
  $("lock").checked = locked.has(region);
}

function setLock(on) {
  if (on) locked.add(region);
  else locked.delete(region);
  refreshRegions();
  say(on ? `A new face keeps ${region}.` : `A new face changes ${region}.`);
}

const setDraw = (on) => commit(scenes.drop(scene, region, !on), `${on ? "Show" : "Leave out"} ${region}`);

function buildSliders() {
  const rows = Object.entries(scenes.MOVES).map(([name, range]) =>
    slider(`move-${name}`, range.label, range,
      (value) => preview(scenes.move(scene, region, { [name]: value })),
      (value) => commit(scenes.move(scene, region, { [name]: value }), `Move ${region}`)));
  const psi = slider("region-psi", "Truncation", { min: 0, max: 1.5, step: 0.05, neutral: 1 },
    (value) => preview(scenes.truncate(scene, region, value)),
    (value) => commit(scenes.truncate(scene, region, value), `Truncation of ${region}`));
  $("sliders").replaceChildren(psi, ...rows);
}

function buildDirections() {
  const names = directions[region] || [];
  $("directions").replaceChildren(
    ...names.map((name, i) => {
      const text = name.slice(name.indexOf("/") + 1).replaceAll("-", " ");
      return slider(`direction-${i}`, text[0].toUpperCase() + text.slice(1), { min: -3, max: 3, step: 0.1, neutral: 0 },
        (value) => preview(scenes.along(scene, region, name, value)),
        (value) => commit(scenes.along(scene, region, name, value), `${text} of ${region}`));
    }),
  );
  $("find").hidden = searched.has(region);
  $("find").textContent = names.length ? "Find more directions" : "Find directions";
  $("save-directions").hidden = Object.values(directions).every((found) => found.length === 0);
}

function refreshControls() {
  if (!scene) return;
  $("seed").value = scene.seed ?? "";
  $("seed").placeholder = scene.latents ? "of a photo" : "";
  setSlider($("psi"), scene.psi, 2);
  $("psi").disabled = scene.latents !== null;
  $("class").value = scene.label;
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

function select(name) {
  region = name;
  $("region-name").textContent = name;
  fill($("region-chip"), about.regions[indexOf(name)].color);
  document.querySelectorAll("#regions input[type=radio]").forEach((radio) => { radio.checked = radio.value === name; });
  buildDirections();
  refreshControls();
  if (view) drawOutline(view, indexOf(name));
}

const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;

const refreshDonors = guarded(async () => {
  donorSeeds = Array.from({ length: DONORS }, randomSeed);
  const found = await post("/api/faces", { seeds: donorSeeds, psi: scene.psi, label: scene.label });
  $("donors").replaceChildren(
    ...found.images.map((image, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.draggable = true;
      button.dataset.seed = donorSeeds[i];
      button.setAttribute("aria-label", `Take the selected region from the face of seed ${donorSeeds[i]}`);
      const picture = new Image();
      picture.src = URL.createObjectURL(new Blob([bytes(image)], { type: "image/png" }));
      picture.alt = "";
      picture.draggable = false;
      button.append(picture);
      button.addEventListener("click", () => takeFrom(donorSeeds[i]));
      button.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-seed", String(donorSeeds[i])));
      return button;
    }),
  );
});

function takeFrom(seed) {
  const part = $("donor-part").value;
  commit(scenes.swap(scene, region, seed, part), `${region} of seed ${seed}`);
}

function newPart(part, text) {
  commit(scenes.swap(scene, region, randomSeed(), part), `New ${text} of ${region}`);
}

function newFace(seed) {
  commit(scenes.reroll(scene, seed, locked), `Face of seed ${seed}`);
}

const findDirections = guarded(async () => {
  const wantedRegion = region;
  $("find").disabled = true;
  $("find-bar").hidden = false;
  try {
    await stream("/api/directions", JSON.stringify({ region: wantedRegion }), "application/json", (line) => {
      if (line.share !== undefined) $("find-bar").value = line.share;
      if (!line.names) return;
      directions[wantedRegion] = line.names;
      searched.add(wantedRegion);
    });
    buildDirections();
    refreshControls();
    say(`The directions of ${wantedRegion} are ready.`);
  } finally {
    $("find").disabled = false;
    $("find-bar").hidden = true;
  }
});

// ------------------------------------------------------------------ photos

const openPhoto = guarded(async (file) => {
  if (file.size > about.max_upload) {
    throw new ServerError(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB. Photos may have ${about.max_upload / 2 ** 20} MB.`, 413);
  }
  photoJob?.abort();
  photoJob = new AbortController();
  $("photo-progress").hidden = false;
  $("photo-live").hidden = true;
  $("photo-bar").value = 0;
  $("photo-stage").textContent = `Sending ${file.name}`;
  $("open-photo").disabled = true;
  try {
    let done = null;
    await stream("/api/photo", file, "application/octet-stream", (line) => {
      if (line.stage) $("photo-stage").textContent = line.stage;
      if (line.share !== undefined) $("photo-bar").value = line.share;
      if (line.image) {
        $("photo-live").src = `data:image/png;base64,${line.image}`;
        $("photo-live").hidden = false;
      }
      if (line.latents) done = line;
    }, photoJob.signal);
    if (!done) throw new ServerError("The server did not finish the photo.", 500);
    const changed = { ...scene, seed: null, latents: done.latents, edits: [] };
    setSteps([]);
    at = -1;
    start = changed;
    await commit(changed, `Photo ${file.name}`);
  } finally {
    $("photo-progress").hidden = true;
    $("open-photo").disabled = false;
    photoJob = null;
  }
});

// ------------------------------------------------------------------ saving

const saveFile = (path, name, data = () => ({ scene })) =>
  guarded(async () => save(await postForFile(path, data()), name));

const saveSession = guarded(async () => {
  const kept = await post("/api/session/save", { scenes: steps.map((step) => step.scene) });
  const data = { kind: "semantic-stylegan-session", version: 1, network: about.network, at, region, locked: [...locked],
    steps: steps.map((step) => ({ scene: step.scene, label: step.label })), kept };
  save(new Blob([JSON.stringify(data)], { type: "application/json" }), "session.json");
});

const openSession = guarded(async (file) => {
  let data;
  try {
    data = JSON.parse(await file.text());
  } catch {
    throw new ServerError(`${file.name} is not a session file: it is not JSON.`, 400);
  }
  if (data.kind !== "semantic-stylegan-session" || data.version !== 1 || !Array.isArray(data.steps) || !data.steps.length) {
    throw new ServerError(`${file.name} is not a session file of this editor.`, 400);
  }
  if (data.network !== about.network) await begin(data.network);
  const restored = await post("/api/session/open", { kept: data.kept });
  const renamed = (s) => ({ ...s, latents: s.latents === null ? null : restored.latents[s.latents] ?? s.latents,
    edits: s.edits.map((e) => (e.latents ? { ...e, latents: restored.latents[e.latents] ?? e.latents } : e)) });
  directions = restored.directions;
  searched = new Set(restored.searched);
  locked = new Set((data.locked || []).filter((name) => about.regions.some((r) => r.name === name)));
  const found = [];
  for (const step of data.steps) {
    const changed = renamed(step.scene);
    const drawn = await request({ scene: changed, preview: false });
    if (!drawn) return;
    found.push(stepOf(changed, drawn, String(step.label)));
  }
  setSteps(found);
  at = Math.min(Math.max(Number(data.at) || 0, 0), steps.length - 1);
  start = steps[0].scene;
  select(about.regions.some((r) => r.name === data.region) ? data.region : about.regions[1].name);
  await show();
  say("The session is open.");
});

// ------------------------------------------------------------------ beginning

async function begin(network) {
  about = await post("/api/session", { network });
  useSession(about.session);
  directions = about.directions;
  searched = new Set(about.searched);
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
  buildRegions();
  buildSliders();
  locked = new Set();
  setSteps([]);
  at = -1;
  const usual = about.regions.find((r) => r.name === "hair") || about.regions[1];
  scene = about.latents ? { ...scenes.newScene(null, about.psi), latents: about.latents } : scenes.newScene(about.seed, about.psi);
  start = scene;
  select(usual.name);
}

async function chooseNetwork() {
  $("loading").textContent = "Opening the network";
  $("frame").classList.add("busy");
  try {
    await fresh($("network").value);
  } finally {
    $("frame").classList.remove("busy");
    $("network").value = about.network; // the old network, where the new one did not open
  }
}

async function fresh(network) {
  await begin(network);
  await commit(scene, scene.latents ? "Photo" : `Face of seed ${scene.seed}`);
  await refreshDonors();
}

// ------------------------------------------------------------------ events

function compare(on) {
  if (on === comparing || !steps.length) return;
  comparing = on;
  $("compare").setAttribute("aria-pressed", String(on));
  const first = steps.find((step) => scenes.same(step.scene, start)) || steps[0];
  $("pointed").textContent = on ? "the start" : "";
  guarded(draw)(on ? first.view : view);
}

function dragRegion() {
  let from = null;
  const frame = $("frame");
  frame.addEventListener("pointerdown", (event) => {
    if (!view || event.button !== 0) return;
    const name = regionAt(event);
    if (!name) return;
    select(name);
    from = { x: event.clientX, y: event.clientY, move: scenes.moveOf(scene, name), moved: false };
    frame.setPointerCapture(event.pointerId);
  });
  const moved = (event) => {
    const box = frame.getBoundingClientRect();
    const value = (start, now, length) => Math.round((start + (2 * now) / length) * 100) / 100;
    return {
      dx: value(from.move.dx, event.clientX - from.x, box.width),
      dy: value(from.move.dy, event.clientY - from.y, box.height),
    };
  };
  frame.addEventListener("pointermove", (event) => {
    if (!view) return;
    if (!from) {
      const name = regionAt(event);
      $("pointed").textContent = name ? `${name}` : "";
      return;
    }
    if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4) from.moved = true;
    if (from.moved) preview(scenes.move(scene, region, moved(event)));
  });
  const end = (event) => {
    if (from?.moved) commit(scenes.move(scene, region, moved(event)), `Move ${region}`);
    from = null;
  };
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", () => { from = null; });
  frame.addEventListener("pointerleave", () => { if (!from) $("pointed").textContent = ""; });
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
  const canvas = $("image");
  canvas.tabIndex = 0;
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (!arrow) return;
    event.preventDefault();
    const old = scenes.moveOf(scene, region);
    const round = (value) => Math.round(value * 100) / 100;
    const values = event.shiftKey
      ? { scale: Math.min(Math.max(round(old.scale - 0.04 * arrow[1]), 0.5), 2), rotate: Math.min(Math.max(old.rotate - 2 * arrow[0], -90), 90) }
      : { dx: round(old.dx + 0.04 * arrow[0]), dy: round(old.dy + 0.04 * arrow[1]) };
    commit(scenes.move(scene, region, values), `Move ${region}`);
  });
}

function listen() {
  $("undo").addEventListener("click", () => goTo(at - 1));
  $("redo").addEventListener("click", () => goTo(at + 1));
  $("reset").addEventListener("click", () => commit({ ...scene, edits: [] }, "No edits"));
  $("compare").addEventListener("pointerdown", () => compare(true));
  for (const name of ["pointerup", "pointerleave", "blur"]) $("compare").addEventListener(name, () => compare(false));
  $("compare").addEventListener("keydown", (event) => { if ([" ", "Enter"].includes(event.key)) compare(true); });
  $("compare").addEventListener("keyup", () => compare(false));

  $("seed").addEventListener("change", () => {
    const seed = Math.min(Math.max(Math.floor(Number($("seed").value)) || 0, 0), 4294967295);
    newFace(seed);
  });
  $("reroll").addEventListener("click", () => newFace(randomSeed()));
  $("class").addEventListener("change", () => {
    const label = Math.min(Math.max(Math.floor(Number($("class").value)) || 0, 0), about.classes - 1);
    commit({ ...scene, label }, `Class ${label}`).then(refreshDonors);
  });
  $("psi").addEventListener("input", () => preview({ ...scene, psi: Number($("psi").value) }));
  $("psi").addEventListener("change", () => {
    commit({ ...scene, psi: Number($("psi").value) }, `Truncation ${$("psi").value}`).then(refreshDonors);
  });
  $("psi").addEventListener("dblclick", () => commit({ ...scene, psi: about.psi }, `Truncation ${about.psi}`));
  $("network").addEventListener("change", guarded(chooseNetwork));
  $("lock").addEventListener("change", () => setLock($("lock").checked));
  $("draw").addEventListener("change", () => setDraw($("draw").checked));
  $("show-blend").addEventListener("click", () => showBlend(true));
  $("show-mask").addEventListener("click", () => showBlend(false));
  $("mask").addEventListener("click", (event) => { if (view) select(regionAt(event, $("mask"))); });
  $("mask").addEventListener("pointermove", (event) => { if (view) $("pointed").textContent = regionAt(event, $("mask")); });
  $("mask").addEventListener("pointerleave", () => { $("pointed").textContent = ""; });

  $("new-shape").addEventListener("click", () => newPart("shape", "shape"));
  $("new-texture").addEventListener("click", () => newPart("texture", "texture"));
  $("new-both").addEventListener("click", () => newPart("both", "shape and texture"));
  $("find").addEventListener("click", findDirections);
  $("more-donors").addEventListener("click", refreshDonors);

  $("save-image").addEventListener("click", () => save(view.image, "edit.png"));
  $("save-mask").addEventListener("click", saveFile("/api/mask", "edit_mask.png"));
  $("save-latents").addEventListener("click", saveFile("/api/latents", "edit.npz"));
  $("save-base").addEventListener("click", guarded(async () => {
    save(await postForFile("/api/latents/base", { scene }), `${scene.latents}.npz`);
  }));
  $("save-photo").addEventListener("click", saveFile("/api/blend", "photo.png"));
  $("save-directions").addEventListener("click", saveFile("/api/directions/file", "directions.npz", () => ({})));
  $("save-session").addEventListener("click", saveSession);
  $("open-session").addEventListener("click", () => $("session-file").click());
  $("session-file").addEventListener("change", () => {
    if ($("session-file").files[0]) openSession($("session-file").files[0]);
    $("session-file").value = "";
  });
  $("copy").addEventListener("click", guarded(async () => {
    $("command").select();
    await navigator.clipboard.writeText($("command").value);
    say("The command is in the clipboard.");
  }));

  $("open-photo").addEventListener("click", () => $("photo-file").click());
  $("photo-file").addEventListener("change", () => {
    if ($("photo-file").files[0]) openPhoto($("photo-file").files[0]);
    $("photo-file").value = "";
  });
  $("photo-stop").addEventListener("click", () => photoJob?.abort());
  dropFiles(openPhoto, openSession);

  $("alert-close").addEventListener("click", () => { $("alert").hidden = true; });
  $("help-open").addEventListener("click", () => $("help").showModal());

  const typing = (event) => event.target.closest("input:not([type=range]):not([type=radio]):not([type=checkbox]), select, textarea, dialog");
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      goTo(event.shiftKey ? at + 1 : at - 1);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event) || !scene) return;
    const keys = { c: () => compare(true), n: () => $("reroll").click(), s: () => $("new-shape").click(),
      t: () => $("new-texture").click(), b: () => $("new-both").click(), l: () => setLock(!locked.has(region)),
      x: () => setDraw(scenes.isDropped(scene, region)) };
    const action = event.repeat ? null : keys[event.key.toLowerCase()];
    if (action) {
      event.preventDefault();
      action();
    }
  });
  document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "c") compare(false); });
  window.addEventListener("blur", () => compare(false));
  dragRegion();
}

listen();
guarded(fresh)(null);
