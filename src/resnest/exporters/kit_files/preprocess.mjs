// From pixels to the network's input, as preprocessing.json says. No packages: for node and browsers.
// Resizing is Pillow's, bit for bit: where a picture becomes smaller, the filter covers all its pixels (antialias).

const MOST_PIXELS = 89478485; // of a picture, and of what it is enlarged to
const BITS = 22; // of the fraction of a filter's weights, for 8-bit pixels

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at(x) {
      const a = -0.5, d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};

// An upright RGB picture {data: Uint8Array, width, height} -> {data, dims, type} of one picture, and sizes: width and
// height of the picture, and width and height that it has in the input, at the top left.
export function prepare(picture, spec) {
  if (picture.width * picture.height > MOST_PIXELS) throw new Error(`too many pixels (${picture.width} x ${picture.height})`);
  let values = picture, inner = picture;
  for (const step of spec.steps) {
    if (step.do === "decode") continue;
    else if (step.do === "crop") values = crop(values, step);
    else if (step.do === "resize" || step.do === "fit") values = resize(values, scaled(values, step), step.filter, spec.vertical_first);
    else if (step.do === "normalise") values = normalise(values, step);
    else if (step.do === "pad") values = pad(values, step);
    else throw new Error(`a step ${step.do} is unknown`);
    if (step.do === "resize" || step.do === "fit" || step.do === "crop") inner = values;
  }
  const { layout, dtype } = spec.input, { width, height } = values;
  const data = layout === "NCHW" ? planes(values) : values.data;
  const dims = layout === "NCHW" ? [1, 3, height, width] : [1, height, width, 3];
  return { data, dims, type: dtype, sizes: [picture.width, picture.height, inner.width, inner.height] };
}

// Halves to even numbers, as in Python.
function round(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function crop({ data, width, height }, step) {
  const side = step.size ?? step.fraction * Math.min(width, height);
  const left = round((width - side) / 2), top = round((height - side) / 2);
  const wide = (step.size === undefined ? round(left + side) : left + side) - left;
  const high = (step.size === undefined ? round(top + side) : top + side) - top;
  const cut = new Uint8Array(wide * high * 3); // what lies outside the picture stays black
  for (let y = Math.max(0, -top); y < Math.min(high, height - top); y++) {
    const first = Math.max(0, -left), last = Math.min(wide, width - left);
    const start = ((y + top) * width + left) * 3;
    cut.set(data.subarray(start + first * 3, start + last * 3), (y * wide + first) * 3);
  }
  return { data: cut, width: wide, height: high };
}

function scaled({ width, height }, step) {
  if (step.width) return [step.width, step.height];
  if (step.do === "resize") { // the short side; the long one is rounded down
    const { short } = step;
    return width <= height
      ? [short, Math.floor((short * height) / width)]
      : [Math.floor((short * width) / height), short];
  }
  const limits = [];
  if ("scale" in step) limits.push(step.scale);
  if ("short" in step) limits.push(step.short / Math.min(width, height));
  if ("long" in step) limits.push(step.long / Math.max(width, height));
  if (step.canvas) limits.push(step.canvas[0] / height, step.canvas[1] / width);
  const scale = Math.min(...limits);
  let wide = Math.floor(width * scale + 0.5), high = Math.floor(height * scale + 0.5);
  if (step.canvas) [high, wide] = [Math.min(high, step.canvas[0]), Math.min(wide, step.canvas[1])];
  return [Math.max(wide, 1), Math.max(high, 1)];
}

function resize(picture, [wide, high], kind, verticalFirst) {
  const { width, height } = picture;
  if (wide * high > Math.max(MOST_PIXELS, 2 * width * height)) {
    throw new Error(`too long and narrow: ${width} x ${height} would become ${wide} x ${high}`);
  }
  return { data: resampleBoth(picture.data, width, height, 3, wide, high, kind, verticalFirst), width: wide, height: high };
}

// A map of floats, in one channel.
export function resamplePlane(plane, width, height, wide, high, kind) {
  return resampleBoth(plane, width, height, 1, wide, high, kind, false);
}

// Rows first; Pillow 13 does columns first where the height shrinks by more than twice as many pixels as the width.
function resampleBoth(data, width, height, channels, wide, high, kind, verticalFirst) {
  if (verticalFirst && high < height && height - high > 2 * (width - wide)) {
    data = resample(data, width, height, channels, high, kind, false);
    return wide === width ? data : resample(data, width, high, channels, wide, kind, true);
  }
  if (wide !== width) data = resample(data, width, height, channels, wide, kind, true);
  return high === height ? data : resample(data, wide, height, channels, high, kind, false);
}

// Along one axis; 8-bit pixels with weights in fixed point, rounded to 8 bits.
function resample(data, width, height, channels, target, kind, horizontal) {
  const bytes = !(data instanceof Float32Array), source = horizontal ? width : height;
  const { starts, weights } = coefficients(source, target, FILTERS[kind], bytes);
  const lines = horizontal ? height : width;
  const size = lines * target * channels;
  const out = bytes ? new Uint8ClampedArray(size) : new Float32Array(size);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < target; place++) {
      const some = weights[place], start = starts[place];
      const step = horizontal ? channels : width * channels;
      const first = horizontal ? (line * width + start) * channels : (start * width + line) * channels;
      const to = horizontal ? (line * target + place) * channels : (place * width + line) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = bytes ? 2 ** (BITS - 1) : 0;
        for (let k = 0, at = first + channel; k < some.length; k++, at += step) sum += data[at] * some[k];
        out[to + channel] = bytes ? Math.floor(sum / 2 ** BITS) : sum;
      }
    }
  }
  return bytes ? new Uint8Array(out.buffer) : out;
}

function coefficients(source, target, filter, bytes) {
  const scale = source / target, wider = Math.max(scale, 1), support = filter.support * wider, narrow = 1 / wider;
  const starts = [], weights = [];
  for (let place = 0; place < target; place++) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(source, Math.trunc(centre + support + 0.5)) - first;
    let some = [], sum = 0;
    for (let k = 0; k < count; k++) {
      some.push(filter.at((k + first - centre + 0.5) * narrow));
      sum += some[k];
    }
    if (sum !== 0) some = some.map((weight) => weight / sum);
    if (bytes) some = some.map((weight) => Math.trunc(weight * 2 ** BITS + (weight < 0 ? -0.5 : 0.5)));
    starts.push(first);
    weights.push(some);
  }
  return { starts, weights };
}

// In 32 bits at each step.
function normalise({ data, width, height }, { scale, shift }) {
  const [factors, offsets] = [Float32Array.from(scale), Float32Array.from(shift)];
  const values = new Float32Array(data.length);
  for (let k = 0; k < values.length; k++) values[k] = Math.fround(data[k] * factors[k % 3]) - offsets[k % 3];
  return { data: values, width, height };
}

// Zeros at the right and bottom.
function pad({ data, width, height }, step) {
  const fit = (side) => (step.multiple ? Math.ceil(side / step.multiple) * step.multiple : Math.max(side, step.least));
  const [wide, high] = step.width ? [step.width, step.height] : [fit(width), fit(height)];
  const padded = new data.constructor(wide * high * 3);
  for (let y = 0; y < height; y++) padded.set(data.subarray(y * width * 3, (y + 1) * width * 3), y * wide * 3);
  return { data: padded, width: wide, height: high };
}

// (H, W, 3) -> (3, H, W)
function planes({ data, width, height }) {
  const out = new data.constructor(data.length), size = width * height;
  for (let k = 0; k < size; k++) for (let c = 0; c < 3; c++) out[c * size + k] = data[k * 3 + c];
  return out;
}
