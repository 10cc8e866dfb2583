// Parts of the page that know nothing of pictures: sliders, files that are saved, files that are dropped.

import { $ } from "/static/dom.js";

// Sets a slider, and the number beside it.
export function setSlider(input, value, digits) {
  input.value = value;
  $(`${input.id}-value`).textContent = Number(value).toFixed(digits);
}

// A row with a slider: its label, the slider, and its number.
export function slider(id, text, range, onInput, onChange) {
  const row = document.createElement("div");
  row.className = "field slider";
  const label = document.createElement("label");
  label.htmlFor = id;
  label.textContent = label.title = text;
  const input = document.createElement("input");
  Object.assign(input, { id, type: "range", min: range.min, max: range.max, step: range.step });
  const output = document.createElement("output");
  output.id = `${id}-value`;
  output.htmlFor = id;
  row.append(label, input, output);
  input.addEventListener("input", () => onInput(Number(input.value)));
  input.addEventListener("change", () => onChange(Number(input.value)));
  input.addEventListener("dblclick", () => onChange(range.neutral));
  return row;
}

// Saves data as a file.
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Files may be dropped anywhere on the page: photos, and sessions.
export function dropFiles(openPhoto, openSession) {
  const carries = (event) => event.dataTransfer.types.includes("Files");
  let inside = 0; // elements that the pointer has entered and not left
  const leave = () => {
    inside = 0;
    document.body.classList.remove("dropping");
  };
  document.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    inside += 1;
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => { if (carries(event) && --inside <= 0) leave(); });
  document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    leave();
    const file = event.dataTransfer.files[0];
    if (file) (file.name.endsWith(".json") ? openSession : openPhoto)(file);
  });
}
