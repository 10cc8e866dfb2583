// What the page knows: the network, the scene, its picture, the selected region, and the steps of the history.

export const state = {
  about: null, // what the server says of the network
  scene: null,
  start: null, // the scene that comparing shows
  view: null, // the last picture: { image: Blob, mask: Uint8Array, size, command, photo }
  steps: [], // see `stepOf`
  at: -1, // index of the step that is shown
  region: null, // name of the selected region
  locked: new Set(), // names of the regions that a new face keeps
  directions: {}, // by region: names
  searched: new Set(), // regions whose directions were searched
};

// The index of a region, or -1.
export const indexOf = (name) => state.about.regions.findIndex((r) => r.name === name);

// A step of the history. Its small picture has an address until the step is forgotten.
export const stepOf = (scene, view, label) => ({ scene, view, label, url: URL.createObjectURL(view.image) });

// Puts steps in the place of the old ones, and forgets the old ones that are not among them.
export function setSteps(steps, at = steps.length - 1) {
  const kept = new Set(steps);
  state.steps.filter((step) => !kept.has(step)).forEach((step) => URL.revokeObjectURL(step.url));
  Object.assign(state, { steps, at });
}
