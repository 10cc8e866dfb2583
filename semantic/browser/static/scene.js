// A scene decides a picture: a seed (or latents), a truncation, and edits in order. Scenes are never changed, only copied.

export const MOVES = {
  dx: { label: "Right", min: -1, max: 1, step: 0.02, neutral: 0 },
  dy: { label: "Down", min: -1, max: 1, step: 0.02, neutral: 0 },
  scale: { label: "Size", min: 0.5, max: 2, step: 0.02, neutral: 1 },
  rotate: { label: "Turn", min: -90, max: 90, step: 1, neutral: 0 },
};

export function newScene(seed, psi) {
  return { seed, latents: null, psi, label: 0, edits: [] };
}

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;

export function same(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function find(scene, op, region, name) {
  return scene.edits.find((e) => e.op === op && e.region === region && (name === undefined || e.name === name));
}

// Puts an edit in the place of the one that it replaces, else at the end; null takes that one away.
function replaced(scene, isOld, edit) {
  const index = scene.edits.findIndex(isOld);
  const edits = scene.edits.filter((e) => !isOld(e));
  if (edit) edits.splice(index < 0 ? edits.length : Math.min(index, edits.length), 0, edit);
  return { ...scene, edits };
}

export function swap(scene, region, seed, part) {
  const covers = { both: ["both", "shape", "texture"], whole: ["both", "shape", "texture", "whole"] }[part] || [part];
  const edits = scene.edits.filter((e) => !(e.op === "swap" && e.region === region && covers.includes(e.part)));
  return { ...scene, edits: [...edits, { op: "swap", region, seed, part }] };
}

export function move(scene, region, values) {
  const old = moveOf(scene, region);
  const edit = { op: "transform", region, ...old, ...values };
  const neutral = Object.entries(MOVES).every(([name, about]) => edit[name] === about.neutral);
  return replaced(scene, (e) => e.op === "transform" && e.region === region, neutral ? null : edit);
}

export function moveOf(scene, region) {
  const edit = find(scene, "transform", region);
  return Object.fromEntries(Object.entries(MOVES).map(([name, about]) => [name, edit ? edit[name] : about.neutral]));
}

export function drop(scene, region, gone) {
  return replaced(scene, (e) => e.op === "drop" && e.region === region, gone ? { op: "drop", region } : null);
}

export function isDropped(scene, region) {
  return Boolean(find(scene, "drop", region));
}

export function truncate(scene, region, psi) {
  return replaced(scene, (e) => e.op === "psi" && e.region === region, psi === 1 ? null : { op: "psi", region, psi });
}

export function truncationOf(scene, region) {
  return find(scene, "psi", region)?.psi ?? 1;
}

export function along(scene, region, name, strength) {
  const edit = strength === 0 ? null : { op: "apply", region, name, strength };
  return replaced(scene, (e) => e.op === "apply" && e.name === name, edit);
}

export function strengthOf(scene, name) {
  return scene.edits.find((e) => e.op === "apply" && e.name === name)?.strength ?? 0;
}

// Another seed; locked regions keep their codes and edits, the others lose theirs.
export function reroll(scene, seed, locked) {
  const kept = scene.edits.filter((e) => locked.has(e.region));
  const from = [...locked]
    .filter((region) => !kept.some((e) => e.op === "swap" && e.region === region && ["both", "whole"].includes(e.part)))
    .map((region) => ({ op: "swap", region, part: "both", ...(scene.latents ? { latents: scene.latents } : { seed: scene.seed }) }));
  return { ...newScene(seed, scene.psi), label: scene.label, edits: [...from, ...kept] };
}
