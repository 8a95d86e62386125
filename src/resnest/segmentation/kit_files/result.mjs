// From a segmenter's logits to the class of every pixel of the picture, or with a threshold to a mask of each class.

import { resamplePlane } from "./preprocess.mjs";

export function result(outputs, sizes, labels, settings) {
  const counts = new Array(labels.length).fill(0);
  if (settings.threshold === undefined) {
    for (const number of labelMap(outputs.logits, sizes)) counts[number]++;
  } else {
    maskStack(outputs.logits, sizes, settings.threshold).forEach((mask, k) => {
      for (const inside of mask) counts[k] += inside;
    });
  }
  const order = counts.map((_, k) => k).filter((k) => counts[k]).sort((a, b) => counts[b] - counts[a] || a - b);
  const segments = order.map((k) => ({
    label: labels[k],
    category_id: settings.category_ids[k],
    pixels: counts[k],
    share: Math.round((counts[k] / (sizes[0] * sizes[1])) * 1e6) / 1e6,
  }));
  return { width: sizes[0], height: sizes[1], segments };
}

// Class numbers of the picture's pixels, row by row; probabilities are resized if its size is another.
export function labelMap(logits, [width, height, wide, high]) {
  const planes = innerPlanes(logits, wide, high);
  if (wide === width && high === height) return largest(planes, width * height);
  for (let pixel = 0; pixel < wide * high; pixel++) {
    let most = -Infinity, sum = 0;
    for (const plane of planes) most = Math.max(most, plane[pixel]);
    for (const plane of planes) sum += plane[pixel] = Math.exp(plane[pixel] - most);
    for (const plane of planes) plane[pixel] /= sum;
  }
  return largest(planes.map((plane) => resamplePlane(plane, wide, high, width, height, "bilinear")), width * height);
}

// Masks that may overlap, of 0 and 1, row by row: where a probability (sigmoid) reaches the threshold.
export function maskStack(logits, [width, height, wide, high], threshold) {
  const same = wide === width && high === height;
  return innerPlanes(logits, wide, high).map((plane) => {
    const part = plane.map((value) => 0.5 + 0.5 * Math.tanh(0.5 * value));
    const sized = same ? part : resamplePlane(part, wide, high, width, height, "bilinear");
    return Uint8Array.from(sized, (value) => value >= threshold);
  });
}

// The logits of each class, without padding.
function innerPlanes(logits, wide, high) {
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
  return planes;
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
