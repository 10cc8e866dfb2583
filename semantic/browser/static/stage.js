// Draws pictures and masks on the page's canvases.

import { $ } from "/static/dom.js";

export async function inflate(data) {
  const unpacked = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

export async function drawView(view, regions) {
  const bitmap = await createImageBitmap(view.image);
  const canvas = $("image");
  canvas.width = canvas.height = Math.max(view.size, 256);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();

  const mask = $("mask");
  mask.width = mask.height = view.size;
  const pixels = new ImageData(view.size, view.size);
  const words = new Uint32Array(pixels.data.buffer);
  const colors = new Uint32Array(new Uint8Array(regions.flatMap((r) => [...r.color, 255])).buffer);
  view.mask.forEach((k, i) => { words[i] = colors[k]; });
  mask.getContext("2d").putImageData(pixels, 0, 0);
}

// Draws the edge of region k over the image, or no edge for k < 0.
export function drawOutline(view, k) {
  const canvas = $("outline");
  const size = view ? view.size : 0;
  const scale = Math.max(Math.floor(512 / Math.max(size, 1)), 1);
  canvas.width = canvas.height = size * scale;
  if (!size || k < 0) return;
  const context = canvas.getContext("2d");
  const inside = (x, y) => x >= 0 && y >= 0 && x < size && y < size && view.mask[y * size + x] === k;
  const edge = new Path2D();
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      if (!inside(x, y)) continue;
      const [a, b, c, d] = [x * scale, y * scale, (x + 1) * scale, (y + 1) * scale];
      if (!inside(x, y - 1)) { edge.moveTo(a, b); edge.lineTo(c, b); }
      if (!inside(x, y + 1)) { edge.moveTo(a, d); edge.lineTo(c, d); }
      if (!inside(x - 1, y)) { edge.moveTo(a, b); edge.lineTo(a, d); }
      if (!inside(x + 1, y)) { edge.moveTo(c, b); edge.lineTo(c, d); }
    }
  }
  const width = canvas.width / 512;
  for (const [color, thickness] of [["rgb(0 0 0 / .55)", 3.2], ["#fff", 1.4]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness * width;
    context.stroke(edge);
  }
}

// The index of the region under a pointer on a canvas, or -1.
export function indexAt(event, canvas, view) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * view.size);
  const y = Math.floor(((event.clientY - box.top) / box.height) * view.size);
  if (x < 0 || y < 0 || x >= view.size || y >= view.size) return -1;
  return view.mask[y * view.size + x];
}

// Fills a small canvas with a colour. A canvas takes its colour without inline style.
export function fill(canvas, color) {
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(${color.join(",")})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
}
