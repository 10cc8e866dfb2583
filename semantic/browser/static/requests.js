// Requests for pictures, one at a time: while one is under way, only the newest wish waits.

import { bytes, post } from "/static/api.js";
import { $ } from "/static/dom.js";
import { inflate } from "/static/stage.js";

let busy = null; // the request that is under way
let wanted = null; // the request that waits for it
let turn = 0;

// The picture of a scene, or null for a wish that a newer one overtook.
export function request(wish) {
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

async function asView(answer) {
  const image = new Blob([bytes(answer.image)], { type: "image/png" });
  return { image, mask: await inflate(bytes(answer.mask)), size: answer.size, command: answer.command, photo: answer.photo };
}
