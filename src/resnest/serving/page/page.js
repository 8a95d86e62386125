// The page of `resnest serve`. It knows results by their fields: `top` are labels of the whole picture, `objects` have
// boxes and perhaps masks, and `segments` come with a drawing that the server has made.
"use strict";

const find = (id) => document.getElementById(id);
const cards = new Set();
const AT_ONCE = 2; // requests
let models = [];
let token = sessionStorage.getItem("token") || "";
let running = 0;
const waiting = [];

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(path, { ...options, headers });
}

// --- models ---

async function loadModels() {
  const answer = await call("models").catch(() => null);
  find("token-form").hidden = answer?.status !== 401;
  if (!answer?.ok) {
    say(answer?.status === 401 ? "Enter the token of this server." : "The server does not answer.");
    return;
  }
  say("");
  models = await answer.json();
  find("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  find("chooser").hidden = models.length < 2;
  showModel();
}

const chosen = () => models.find((model) => model.name === find("model").value) || models[0];

function showModel() {
  const model = chosen();
  const classes = model.classes.length === 1 ? "1 class" : `${model.classes.length} classes`;
  find("about").textContent = `${model.name}: ${model.task}, ${classes}; input: ${model.preprocessing}`;
  find("slider").hidden = model.options.length === 0;
  const threshold = model.options.includes("threshold") ? 50 : 0;
  find("threshold").value = threshold;
  showThreshold();
}

function showThreshold() {
  find("percent").textContent = `${find("threshold").value} %`;
  cards.forEach((card) => card.show());
}

// --- pictures ---

function add(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || /\.(jpe?g|png|webp)$/i.test(file.name));
  if (files.length > pictures.length) say(`${files.length - pictures.length} of ${files.length} files are no pictures.`);
  for (const file of pictures) {
    const card = new Card(file);
    cards.add(card);
    find("results").prepend(card.element);
    request(card);
  }
}

function request(card) {
  waiting.push(card);
  next();
}

async function next() {
  if (running >= AT_ONCE || !waiting.length) return;
  running += 1;
  const card = waiting.shift();
  await card.predict();
  running -= 1;
  if (!running && !waiting.length) say(cards.size === 1 ? "1 picture." : `${cards.size} pictures.`);
  next();
}

class Card {
  constructor(file) {
    this.file = file;
    this.element = find("card").content.firstElementChild.cloneNode(true);
    this.image = this.part("img");
    this.url = this.image.src = URL.createObjectURL(file);
    this.image.alt = file.name;
    this.image.addEventListener("load", () => this.show());
    this.part("h2").textContent = file.name;
    this.part(".copy").addEventListener("click", () => this.copy());
    this.part(".remove").addEventListener("click", () => this.remove());
    this.note("Waiting …");
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  note(text, wrong = false) {
    this.part(".note").textContent = text;
    this.element.classList.toggle("wrong", wrong);
  }

  async predict() {
    const model = chosen();
    const turn = this.turn = (this.turn || 0) + 1; // an answer of the model that was chosen before may come later
    const query = new URLSearchParams({ model: model.name });
    if (model.options.includes("top")) query.set("top", Math.min(10, model.classes.length));
    else if (model.options.includes("threshold")) query.set("threshold", "0.01");
    else query.set("draw", "data");
    this.result = null;
    this.part(".labels").replaceChildren();
    this.note("Predicting …");
    for (;;) {
      const answer = await call(`predict?${query}`, { method: "POST", body: this.file }).catch(() => null);
      if (turn !== this.turn) return;
      if (answer?.status === 429) {
        await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)));
        continue;
      }
      const content = await answer?.json().catch(() => null);
      if (turn !== this.turn) return;
      if (answer?.ok && content) {
        this.result = { ...content, image: this.file.name };
        this.note("");
        this.show();
      } else {
        this.note(content?.error || "The server does not answer.", true);
      }
      return;
    }
  }

  // Everything from here on happens without the server: the slider is immediate.
  show() {
    if (!this.result) return;
    const least = find("threshold").value / 100;
    const { top, objects, segments, drawing } = this.result;
    if (drawing && this.image.src !== drawing) this.image.src = drawing;
    const above = (entry) => entry.score >= least;
    if (top) this.list(top.filter(above).map((one) => ({ ...one, share: one.score })));
    if (objects) this.showObjects(objects.filter(above));
    if (segments) this.list(segments.map((one) => ({ ...one, share: one.share ?? one.score })));
  }

  showObjects(objects) {
    const canvas = this.part("canvas");
    const { width, height } = this.result;
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const thick = Math.max(2, Math.round(width / 300));
    for (const one of [...objects].reverse()) { // the best on top
      if (one.segmentation) pen.drawImage(maskOf(one.segmentation, colour(one.label)), 0, 0);
      pen.strokeStyle = colour(one.label);
      pen.lineWidth = thick;
      pen.strokeRect(...one.bbox);
    }
    this.list(objects.map((one) => ({ ...one, share: one.score })), true);
    if (!objects.length) this.note("Nothing at this score.");
    else this.note(objects.length === 1 ? "1 object" : `${objects.length} objects`);
  }

  list(entries, coloured = false) {
    this.part(".labels").replaceChildren(...entries.slice(0, 200).map((entry) => {
      const [line, key, name, bar, percent] = ["li", "i", "span", "meter", "span"].map((kind) => document.createElement(kind));
      if (coloured) key.style.backgroundColor = colour(entry.label);
      name.textContent = entry.label;
      bar.value = entry.share;
      bar.setAttribute("aria-hidden", "true");
      percent.textContent = `${(100 * entry.share).toFixed(entry.share < 0.0995 ? 1 : 0)} %`;
      line.append(key, name, bar, percent);
      return line;
    }));
  }

  async copy() {
    if (!this.result) return;
    const { drawing, ...content } = this.result;
    const text = JSON.stringify(content, null, 2);
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not allow copying here: it wants https, or localhost.");
    }
  }

  remove() {
    URL.revokeObjectURL(this.url);
    cards.delete(this);
    this.element.remove();
  }
}

// --- colours and masks ---

function colour(label) {
  const { classes, colours } = chosen();
  return colours[classes.indexOf(label)] || "#808080";
}

// COCO's compressed run lengths: column by column, background first; six bits a character, differences from the third on
function runsOf(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
      more = (bits & 32) !== 0;
      if (!more && bits & 16) value |= -1 << shift;
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function maskOf({ size: [height, width], counts }, fill) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = fill;
  pen.globalAlpha = 0.45;
  let at = 0, inside = false;
  for (const run of runsOf(counts)) {
    for (let left = run; inside && left > 0; ) { // a rectangle of each column that the run crosses
      const x = Math.floor((at + run - left) / height), y = (at + run - left) % height;
      const part = Math.min(left, height - y);
      pen.fillRect(x, y, 1, part);
      left -= part;
    }
    at += run;
    inside = !inside;
  }
  return canvas;
}

// --- the camera ---

async function openCamera() {
  try {
    find("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    find("viewfinder").hidden = false;
    find("shoot").focus();
  } catch {
    say("There is no camera that this page may use: browsers want https, or localhost.");
  }
}

function closeCamera() {
  find("video").srcObject?.getTracks().forEach((track) => track.stop());
  find("video").srcObject = null;
  find("viewfinder").hidden = true;
  find("camera").focus();
}

function shoot() {
  const video = find("video");
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `camera ${new Date().toLocaleTimeString()}.jpg`;
  canvas.toBlob((blob) => add([new File([blob], name, { type: "image/jpeg" })]), "image/jpeg", 0.92);
}

// --- events ---

function say(text) {
  find("status").textContent = text;
}

find("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
find("model").addEventListener("change", () => {
  showModel();
  cards.forEach((card) => {
    card.image.src = card.url;
    card.part("canvas").width = 0;
    request(card);
  });
});
find("threshold").addEventListener("input", showThreshold);
find("camera").addEventListener("click", openCamera);
find("shoot").addEventListener("click", shoot);
find("stop").addEventListener("click", closeCamera);
find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value;
  sessionStorage.setItem("token", token);
  loadModels();
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
loadModels();
