// From heatmaps to the points of the object in the crop, in its pixels.

const LEAST = 1e-10; // of a value before its logarithm

export function result(outputs, sizes, labels, settings) {
  const [width, height, wide, high] = sizes;
  const [, count, rows, columns] = outputs.logits.dims;
  const points = {}, sure = [];
  for (let k = 0; k < count; k++) {
    const plane = outputs.logits.data.subarray(k * rows * columns, (k + 1) * rows * columns);
    const { x, y, value } = peak(plane, rows, columns, settings.sigma, settings.decode === "dark");
    const place = [((x + 0.5) * settings.stride * width) / wide, ((y + 0.5) * settings.stride * height) / high];
    const seen = Math.max(value, 0);
    if (seen > settings.threshold) sure.push(seen);
    points[labels[k]] = [round(place[0], 2), round(place[1], 2), round(seen, 6)];
  }
  const mean = sure.length ? sure.reduce((sum, value) => sum + value, 0) / sure.length : 0;
  return { width, height, score: round(Math.min(mean, 1), 6), points };
}

// Column and row of the highest cell, refined: DARK (arXiv 1910.06278), near the border of the map itself.
export function peak(plane, rows, columns, sigma, dark) {
  let best = 0;
  for (let cell = 1; cell < plane.length; cell++) if (plane[cell] > plane[best]) best = cell;
  const row = Math.floor(best / columns), column = best % columns, value = plane[best];
  const margin = Math.min(row, rows - 1 - row, column, columns - 1 - column), reach = Math.ceil(3 * sigma);
  const at = (map, y, x) => map[y * columns + x];
  if (dark && margin >= 2) {
    const map = margin < reach + 2 ? plane : smooth(plane, rows, columns, sigma, reach);
    const log = (down, across) => Math.log(Math.max(at(map, row + down, column + across), LEAST));
    const step = newton(log);
    if (step) return { x: column + step[0], y: row + step[1], value };
  }
  let x = column, y = row;
  if (column > 0 && column < columns - 1) x += 0.25 * Math.sign(at(plane, row, column + 1) - at(plane, row, column - 1));
  if (row > 0 && row < rows - 1) y += 0.25 * Math.sign(at(plane, row + 1, column) - at(plane, row - 1, column));
  return { x, y, value };
}

// The step to the peak of logarithms; null where there is none within a cell.
function newton(log) {
  const dx = (log(0, 1) - log(0, -1)) / 2, dy = (log(1, 0) - log(-1, 0)) / 2;
  const xx = (log(0, 2) - 2 * log(0, 0) + log(0, -2)) / 4;
  const yy = (log(2, 0) - 2 * log(0, 0) + log(-2, 0)) / 4;
  const xy = (log(1, 1) - log(-1, 1) - log(1, -1) + log(-1, -1)) / 4;
  const determinant = xx * yy - xy * xy;
  if (!(xx < 0 && yy < 0 && determinant > LEAST)) return null;
  const step = [-(yy * dx - xy * dy) / determinant, -(xx * dy - xy * dx) / determinant];
  return Math.max(...step.map(Math.abs)) <= 1 ? step : null;
}

// Convolved with a Gaussian along rows, then columns, zeros around.
function smooth(plane, rows, columns, sigma, reach) {
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, k) => Math.exp(-((k - reach) ** 2) / (2 * sigma * sigma)));
  const sum = kernel.reduce((one, other) => one + other, 0);
  const along = (map, stride, length, other, lines) => {
    const out = new Float32Array(map.length);
    for (let line = 0; line < lines; line++) {
      for (let cell = 0; cell < length; cell++) {
        let value = 0;
        for (let k = -reach; k <= reach; k++) {
          const near = cell + k;
          if (near >= 0 && near < length) value += (kernel[k + reach] / sum) * map[line * other + near * stride];
        }
        out[line * other + cell * stride] = value;
      }
    }
    return out;
  };
  return along(along(plane, columns, rows, 1, columns), 1, columns, columns, rows);
}

function round(value, digits) {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
