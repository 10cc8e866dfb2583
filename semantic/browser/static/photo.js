// Opens a photo: sends it, shows how the network comes to draw it, and goes on from its latents.

import { ServerError, stream } from "/static/api.js";
import { $ } from "/static/dom.js";
import { guarded } from "/static/messages.js";
import { commit } from "/static/pictures.js";
import { state } from "/static/state.js";

let job = null; // stops the photo that is under way

// Stops the photo that is under way, if there is one.
export function stopPhoto() {
  job?.abort();
}

export const openPhoto = guarded(async (file) => {
  const limit = state.about.max_upload;
  if (file.size > limit) {
    throw new ServerError(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB. Photos may have ${limit / 2 ** 20} MB.`, 413);
  }
  stopPhoto();
  const mine = job = new AbortController();
  $("photo-progress").hidden = false;
  $("photo-live").hidden = true;
  $("photo-bar").value = 0;
  $("photo-stage").textContent = `Sending ${file.name}`;
  $("open-photo").disabled = true;
  try {
    const latents = await latentsOf(file, mine.signal);
    mine.signal.throwIfAborted();
    await commit({ ...state.scene, seed: null, latents, edits: [] }, `Photo ${file.name}`, { anew: true });
  } finally {
    if (job === mine) { // else a newer photo is under way
      $("photo-progress").hidden = true;
      $("open-photo").disabled = false;
      job = null;
    }
  }
});

async function latentsOf(file, signal) {
  let latents = null;
  await stream("/api/photo", file, "application/octet-stream", (line) => {
    if (line.stage) $("photo-stage").textContent = line.stage;
    if (line.share !== undefined) $("photo-bar").value = line.share;
    if (line.image) {
      $("photo-live").src = `data:image/png;base64,${line.image}`;
      $("photo-live").hidden = false;
    }
    if (line.latents) latents = line.latents;
  }, signal);
  if (!latents) throw new ServerError("The server did not finish the photo.", 500);
  return latents;
}

export function listenToPhoto() {
  $("open-photo").addEventListener("click", () => $("photo-file").click());
  $("photo-file").addEventListener("change", () => {
    if ($("photo-file").files[0]) openPhoto($("photo-file").files[0]);
    $("photo-file").value = "";
  });
  $("photo-stop").addEventListener("click", stopPhoto);
}
