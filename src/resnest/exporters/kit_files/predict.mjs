// What the network says about pictures, in node: npm install onnxruntime-node sharp
//
//     node predict.mjs photo.jpg ...      a line of JSON for each
//     node predict.mjs --check            the reference picture gives its input and output to 1e-4

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import sharp from "sharp";
import { prepare } from "./preprocess.mjs";
import { result } from "./result.mjs";

const file = (name) => new URL(name, import.meta.url);
const json = async (name) => JSON.parse(await readFile(file(name), "utf8"));
const SPEC = await json("preprocessing.json"), KIT = await json("kit.json");
const LABELS = (await readFile(file("labels.txt"), "utf8")).split("\n").slice(0, -1);
const TOLERANCE = 1e-4;

// An upright RGB picture, without alpha; colours as they are stored.
async function decode(content) {
  const image = sharp(content, { ignoreIcc: true, limitInputPixels: 89478485, failOn: "warning" });
  const about = await image.metadata();
  if ((about.pages ?? 1) > 1 || isAnimatedPng(content)) throw new Error("an animation");
  if (about.space === "cmyk") throw new Error("CMYK, which this program converts otherwise than the network expects");
  const { data, info } = await image.autoOrient().removeAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  if (info.channels !== 3) throw new Error(`${info.channels} channels where 3 are expected`);
  return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), width: info.width, height: info.height };
}

// Animated PNGs say so before their pixels; sharp reads the first picture alone.
function isAnimatedPng(content) {
  const start = content.subarray(0, Math.max(0, content.indexOf("IDAT")));
  return content.indexOf("PNG") === 1 && start.includes("acTL");
}

async function run(session, { type, data, dims }) {
  return session.run({ [SPEC.input.name]: new ort.Tensor(type, data, dims) }, KIT.outputs);
}

async function check(session) {
  const input = prepare(await decode(await readFile(file("reference/picture.png"))), SPEC);
  let same = true;
  for (const [name, { data, dims }] of Object.entries({ input, ...(await run(session, input)) })) {
    const expected = await npy(`reference/${name}.npy`);
    let apart = String(dims) === String(expected.dims) ? 0 : Infinity, largest = 1;
    expected.data.forEach((value, k) => {
      const gap = Math.abs(Number(value) - Number(data[k]));
      apart = gap <= apart ? apart : gap; // NaN as well
      largest = Math.max(largest, Math.abs(Number(value)));
    });
    same &&= apart <= TOLERANCE * largest;
    console.log(`${name}: largest difference ${apart.toExponential(1)}, of values up to ${largest.toPrecision(4)}`);
  }
  return same;
}

// An array of numpy's file format, version 1.
async function npy(name) {
  const content = await readFile(file(name)), start = 10 + content.readUInt16LE(8);
  const header = content.toString("latin1", 10, start);
  const dims = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((side) => side.trim()).map(Number);
  const kind = { "<f4": Float32Array, "<i8": BigInt64Array, "<i4": Int32Array, "|u1": Uint8Array }[header.match(/'descr': '([^']*)'/)[1]];
  return { data: new kind(content.buffer.slice(content.byteOffset + start, content.byteOffset + content.length)), dims };
}

async function main(arguments_) {
  const session = await ort.InferenceSession.create(await readFile(file(KIT.model)));
  if (String(arguments_) === "--check") {
    if (!(await check(session))) throw new Error("the reference picture gives something else here");
    return;
  }
  for (const path of arguments_) {
    let input;
    try {
      input = prepare(await decode(await readFile(path)), SPEC);
    } catch (error) {
      throw new Error(`${path}: ${error.message}`);
    }
    const found = result(await run(session, input), input.sizes, LABELS, KIT.settings);
    console.log(JSON.stringify({ image: path, ...found }));
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
