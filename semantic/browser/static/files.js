// What people take from the page: files of the present picture, and its command.

import { postForFile } from "/static/api.js";
import { $ } from "/static/dom.js";
import { guarded, say } from "/static/messages.js";
import { state } from "/static/state.js";
import { save } from "/static/widgets.js";

// Saves a file that the server makes of the present scene.
const saveFrom = (path, nameOf) => guarded(async () => {
  const { scene } = state;
  save(await postForFile(path, { scene }), nameOf(scene));
});

export function listenToFiles() {
  $("save-image").addEventListener("click", () => save(state.view.image, "edit.png"));
  $("save-mask").addEventListener("click", saveFrom("/api/mask", () => "edit_mask.png"));
  $("save-latents").addEventListener("click", saveFrom("/api/latents", () => "edit.npz"));
  $("save-base").addEventListener("click", saveFrom("/api/latents/base", (scene) => `${scene.latents}.npz`));
  $("save-photo").addEventListener("click", saveFrom("/api/blend", () => "photo.png"));
  $("save-directions").addEventListener("click", guarded(async () => {
    save(await postForFile("/api/directions/file", {}), "directions.npz");
  }));
  $("copy").addEventListener("click", guarded(async () => {
    $("command").select();
    await navigator.clipboard.writeText($("command").value);
    say("The command is in the clipboard.");
  }));
}
