// Pointer and arrow keys on the pictures: they name, select, and move regions.

import { select } from "/static/controls.js";
import { $ } from "/static/dom.js";
import { commit, preview } from "/static/pictures.js";
import { move, moveOf } from "/static/scene.js";
import { indexAt } from "/static/stage.js";
import { state } from "/static/state.js";

const round = (value) => Math.round(value * 100) / 100;
const clamp = (value, min, max) => Math.min(Math.max(value, min), max);

function regionAt(event, canvas) {
  const k = indexAt(event, canvas, state.view);
  return k < 0 ? null : state.about.regions[k].name;
}

function drag() {
  let from = null;
  const [frame, canvas] = [$("frame"), $("image")];
  const moved = (event) => {
    const box = frame.getBoundingClientRect();
    return {
      dx: round(from.move.dx + (2 * (event.clientX - from.x)) / box.width),
      dy: round(from.move.dy + (2 * (event.clientY - from.y)) / box.height),
    };
  };
  frame.addEventListener("pointerdown", (event) => {
    if (!state.view || event.button !== 0 || event.target !== canvas) return; // a captured pointer clicks no button
    const name = regionAt(event, canvas);
    if (!name) return;
    select(name);
    from = { x: event.clientX, y: event.clientY, move: moveOf(state.scene, name), moved: false };
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!state.view) return;
    if (!from) {
      $("pointed").textContent = regionAt(event, canvas) ?? "";
      return;
    }
    if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4) from.moved = true;
    if (from.moved) preview(move(state.scene, state.region, moved(event)));
  });
  frame.addEventListener("pointerup", (event) => {
    if (from?.moved) commit(move(state.scene, state.region, moved(event)), `Move ${state.region}`);
    from = null;
  });
  frame.addEventListener("pointercancel", () => { from = null; });
  frame.addEventListener("pointerleave", () => { if (!from) $("pointed").textContent = ""; });
}

function moveByKeys() {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const canvas = $("image");
  canvas.tabIndex = 0;
  canvas.addEventListener("keydown", (event) => {
    const arrow = arrows[event.key];
    if (!arrow) return;
    event.preventDefault();
    const old = moveOf(state.scene, state.region);
    const values = event.shiftKey
      ? { scale: clamp(round(old.scale - 0.04 * arrow[1]), 0.5, 2), rotate: clamp(old.rotate - 2 * arrow[0], -90, 90) }
      : { dx: round(old.dx + 0.04 * arrow[0]), dy: round(old.dy + 0.04 * arrow[1]) };
    commit(move(state.scene, state.region, values), `Move ${state.region}`);
  });
}

function pointAtMask() {
  const mask = $("mask");
  mask.addEventListener("click", (event) => { if (state.view) select(regionAt(event, mask)); });
  mask.addEventListener("pointermove", (event) => { if (state.view) $("pointed").textContent = regionAt(event, mask); });
  mask.addEventListener("pointerleave", () => { $("pointed").textContent = ""; });
}

export function listenToPointer() {
  drag();
  moveByKeys();
  pointAtMask();
}
