"use strict";
// Decisions on pictures by keyboard or click; kept in the browser until the list is saved, and read from it again.
const items = [...document.querySelectorAll(".item")];
const columns = ["part", "image", "finding", "score", "label", "suggestion", "other_part", "other"];
const key = "resnest review " + document.title + " " + location.pathname;
const rowOf = (item) => JSON.parse(item.dataset.row);
const nameOf = (row) => [row.finding, row.part, row.image, row.other].join("\n");
let decisions = {};
try { decisions = JSON.parse(localStorage.getItem(key) || "{}"); } catch { /* a page without storage */ }

function show(item) {
  const decision = decisions[nameOf(rowOf(item))] || "";
  item.dataset.decision = decision;
  item.querySelector(".decision").textContent = decision || "undecided";
}
function progress() {
  const done = items.filter((item) => item.dataset.decision).length;
  const out = items.filter((item) => item.dataset.decision === "exclude").length;
  document.getElementById("progress").textContent = `${done} of ${items.length} decided, ${out} excluded`;
}
function decide(item, decision) {
  decisions[nameOf(rowOf(item))] = decision;
  try { localStorage.setItem(key, JSON.stringify(decisions)); } catch { /* saved with the list alone */ }
  show(item);
  progress();
}
function move(step) {
  const at = items.indexOf(document.activeElement);
  const next = items[Math.min(Math.max(at + step, 0), items.length - 1)];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}
function quoted(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function listed() {
  const rows = items.map((item) => {
    const row = rowOf(item);
    return [...columns.map((column) => row[column]), item.dataset.decision].map(quoted).join(",");
  });
  return [[...columns, "decision"].join(","), ...rows].join("\n") + "\n";
}
function save() {
  const link = document.createElement("a");
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(listed());
  link.download = document.getElementById("save").dataset.name;
  link.click();
}
const keys = {
  j: () => move(1), ArrowRight: () => move(1), k: () => move(-1), ArrowLeft: () => move(-1), s: save,
  x: (item) => { decide(item, "exclude"); move(1); },
  o: (item) => { decide(item, "keep"); move(1); },
  u: (item) => decide(item, ""),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  const item = document.activeElement.closest(".item");
  if (!item && "xou".includes(event.key)) return;
  event.preventDefault();
  keys[event.key](item);
});
document.getElementById("save").addEventListener("click", save);
for (const item of items) {
  show(item);
  item.addEventListener("dblclick", () => decide(item, item.dataset.decision === "exclude" ? "keep" : "exclude"));
}
progress();
