// From a segmenter's logits to the class of every pixel of the picture.

import { resamplePlane } from "./preprocess.mjs";

export function result(outputs, sizes, labels, settings) {
  const classes = labelMap(outputs.logits, sizes);
  const counts = new Array(labels.length).fill(0);
  for (const number of classes) counts[number]++;
  const order = counts.map((_, k) => k).filter((k) => counts[k]).sort((a, b) => counts[b] - counts[a] || a - b);
  const segments = order.map((k) => ({
    label: labels[k],
    category_id: settings.category_ids[k],
    pixels: counts[k],
    share: Math.round((counts[k] / classes.length) * 1e6) / 1e6,
  }));
  return { width: sizes[0], height: sizes[1], segments };
}

// Class numbers of the picture's pixels, row by row; probabilities are resized if its size is another.
export function labelMap(logits, [width, height, wide, high]) {
  const [, count, rows, columns] = logits.dims;
  const planes = [];
  for (let k = 0; k < count; k++) {
    const plane = new Float32Array(wide * high);
    for (let y = 0; y < high; y++) {
      const start = (k * rows + y) * columns;
      plane.set(logits.data.subarray(start, start + wide), y * wide);
    }
    planes.push(plane);
  }
  if (wide === width && high === height) return largest(planes, width * height);
  for (let pixel = 0; pixel < wide * high; pixel++) {
    let most = -Infinity, sum = 0;
    for (const plane of planes) most = Math.max(most, plane[pixel]);
    for (const plane of planes) sum += plane[pixel] = Math.exp(plane[pixel] - most);
    for (const plane of planes) plane[pixel] /= sum;
  }
  return largest(planes.map((plane) => resamplePlane(plane, wide, high, width, height, "bilinear")), width * height);
}

function largest(planes, pixels) {
  const classes = new Uint8Array(pixels), top = new Float32Array(pixels).fill(-Infinity);
  planes.forEach((plane, number) => {
    for (let pixel = 0; pixel < pixels; pixel++) {
      if (plane[pixel] > top[pixel]) [top[pixel], classes[pixel]] = [plane[pixel], number];
    }
  });
  return classes;
}
