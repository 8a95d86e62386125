// From a detector's arrays to objects in pixels of the picture.

export function result(outputs, sizes, labels, settings) {
  const [width, height, wide, high] = sizes;
  const factors = [width / wide, height / high, width / wide, height / high];
  const most = [width, height, width, height];
  const objects = [];
  outputs.scores.data.forEach((score, number) => {
    const box = factors.map((factor, side) =>
      Math.min(Math.max(outputs.boxes.data[number * 4 + side] * factor, 0), most[side]));
    if (score < settings.threshold || score <= 0 || box[2] <= box[0] || box[3] <= box[1]) return;
    const label = Number(outputs.labels.data[number]);
    const found = {
      label: labels[label],
      category_id: settings.category_ids[label],
      score: Math.round(score * 1e6) / 1e6,
      box: box.map((side) => Math.round(side * 100) / 100),
    };
    if (outputs.masks) found.mask_pixels = paste(outputs.masks, number, box, width, height).area;
    objects.push(found);
  });
  return { width, height, objects };
}

// An object's mask in the picture: a map within its box, resampled linearly at the pixels' centres.
export function paste(masks, number, [x1, y1, x2, y2], width, height) {
  const [rows, columns] = masks.dims.slice(-2);
  const map = masks.data.subarray(number * rows * columns, (number + 1) * rows * columns);
  const left = Math.max(0, Math.floor(x1)), top = Math.max(0, Math.floor(y1));
  const right = Math.min(width, Math.ceil(x2)), bottom = Math.min(height, Math.ceil(y2));
  const value = (y, x) => (y < 0 || x < 0 || y >= rows || x >= columns ? 0 : map[y * columns + x]);
  const inside = new Uint8Array(width * height);
  let area = 0;
  for (let y = top; y < bottom; y++) {
    const row = ((y + 0.5 - y1) / (y2 - y1)) * rows - 0.5, up = Math.floor(row), down = row - up;
    for (let x = left; x < right; x++) {
      const column = ((x + 0.5 - x1) / (x2 - x1)) * columns - 0.5, before = Math.floor(column), after = column - before;
      const above = value(up, before) * (1 - after) + value(up, before + 1) * after;
      const below = value(up + 1, before) * (1 - after) + value(up + 1, before + 1) * after;
      if (above * (1 - down) + below * down >= 0.5) area += inside[y * width + x] = 1;
    }
  }
  return { inside, area };
}
