"""The look of every page: one accent colour, the reader's own fonts, light and dark paper, and print.

    f"<style>{CSS}</style>"

`--heat` is the accent as bare numbers, so that a cell can set its opacity. Text on a heat cell changes colour at the
opacities where the contrast of the other colour becomes the higher one, which differ between light and dark.
"""

CSS = """
:root {
  --paper: #fcfcfa; --panel: #f0f0ec; --ink: #1a1c1e; --muted: #686d72; --rule: #e2e2dd;
  --dim: #babdbc; --blank: #f6f6f3; --accent: #0f766e; --heat: 15 118 110; --on-mid: #1a1c1e; --on-full: #fff;
  --line-0: #0072b1; --line-1: #d55e01; --line-2: #009e72; --line-3: #cc79a6; --line-4: #b89501;
  --line-5: #56b4e8; --line-6: #8c5109; --line-7: #7d3c97; --line-8: #666601; --line-9: #e7298b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #141617; --panel: #1f2224; --ink: #e9e9e5; --muted: #989da2; --rule: #2d3032;
    --dim: #4f5457; --blank: #191c1d; --accent: #5cc2b4; --heat: 92 194 180; --on-mid: #0e1011; --on-full: #0e1011;
    --line-0: #4aa8e0; --line-6: #c98a45; --line-7: #b583cc; --line-8: #a8a83a;
  }
}
* { box-sizing: border-box; margin: 0; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums lining-nums;
  max-width: 78rem; margin: 0 auto; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1.1rem, 4vw, 3rem);
}
h1, h2 { font-weight: 600; line-height: 1.2; }
h1 { font-size: 1.5rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1rem; }
p + p { margin-top: .35rem; }
.note, .eyebrow, dt, figcaption, footer { color: var(--muted); font-size: .8125rem; }
.note { margin-top: .4rem; max-width: 34rem; }
.warning { color: var(--ink); border-left: 3px solid var(--accent); padding-left: .75rem; margin-top: 1.25rem; }
.cut { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.num { text-align: right; white-space: nowrap; }
.faint { color: var(--muted); }

header { margin-bottom: clamp(2.5rem, 6vw, 4rem); }
.eyebrow { margin-bottom: .25rem; }
.summary { display: grid; gap: 2rem clamp(2rem, 6vw, 5rem); margin-top: clamp(1.75rem, 4vw, 3rem); }
.figure {
  font-size: clamp(3.75rem, 13vw, 6rem); font-weight: 600; line-height: 1; letter-spacing: -.045em;
  color: var(--accent); font-variant-numeric: lining-nums; margin-left: -.04em; margin-bottom: 1rem;
}
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; }
.figures .figure { font-size: clamp(3rem, 9vw, 4.25rem); }
.figure small { font-size: .45em; font-weight: 500; letter-spacing: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); gap: 0 1.5rem; }
.facts div { border-top: 1px solid var(--rule); padding: .55rem 0 .8rem; }
dd { overflow-wrap: anywhere; }

section { border-top: 1px solid var(--rule); padding: 1.5rem 0 clamp(2.5rem, 6vw, 4rem); display: grid; gap: 1.5rem; }
.body { min-width: 0; container-type: inline-size; }
@media (min-width: 62rem) {
  section { grid-template-columns: 11.5rem minmax(0, 1fr); column-gap: 2.75rem; padding-top: 1.75rem; }
  .summary { grid-template-columns: minmax(0, 1fr) minmax(0, 1.1fr); align-items: start; }
}

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15.5rem), 1fr)); gap: 2rem 1.75rem; }
.plots figure { min-width: 0; max-width: 26rem; }
.plots svg { display: block; width: 100%; height: auto; overflow: visible; margin-top: .6rem; }
.plots text { font-size: 11.5px; }
@container (max-width: 36rem) { .plots text { font-size: 9.5px; } }
figcaption strong { color: var(--ink); font-weight: 600; font-size: .9375rem; margin-right: .6rem; }
.key { white-space: nowrap; margin-right: .6rem; }
.key::before {
  content: ""; display: inline-block; width: .9rem; height: 2px; vertical-align: .25em; margin-right: .35rem;
  background: var(--muted);
}
.key.main::before { background: var(--accent); height: 3px; }
.key.line::before { background: var(--line); }
.key.patch { margin-right: .9rem; }
.key.patch::before, .patch i { width: .75rem; height: .75rem; border-radius: 2px; background: var(--line);
  vertical-align: -.06em; }
.patch i { display: inline-block; margin-right: .5rem; }
.plots .large { max-width: 42rem; }
.plots .large svg { margin-top: 1rem; }

table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th { font-weight: 500; text-align: left; }
thead th { color: var(--muted); font-size: .8125rem; font-weight: 400; vertical-align: bottom; }
.list th, .list td { padding: .4rem 1.25rem .4rem 0; border-bottom: 1px solid var(--rule); }
.list th:last-child, .list td:last-child { padding-right: 0; }
.list tbody th, .list td.cut { max-width: 0; width: 26%; }
.list .num { width: 1%; }
.list .wide { padding-left: .5rem; width: 18%; }
.twelve .meaning { color: var(--muted); width: 70%; white-space: normal; }
.twelve tbody th { width: auto; max-width: none; white-space: nowrap; }
.bar { display: block; height: 4px; border-radius: 2px; background: var(--rule); min-width: 3rem; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }

.scroll { overflow-x: auto; padding-bottom: .5rem; }
.heat {
  --narrowest: 3rem;
  --side: clamp(var(--narrowest), calc(var(--name) * .5rem + 1rem), max(var(--narrowest), min(22cqw, 9rem)));
  --cell: clamp(var(--min), calc((100cqw - var(--side)) / var(--classes)), 3.5rem);
  width: auto; table-layout: fixed; border-collapse: separate; border-spacing: 2px; margin: -2px; font-size: .75rem;
}
.heat td { width: calc(var(--cell) - 2px); min-width: calc(var(--cell) - 2px); height: calc(var(--cell) - 2px);
  text-align: center; border-radius: 2px; background: rgb(var(--heat) / var(--s, 0)); padding: 0; }
.heat td.none { color: var(--dim); background: var(--blank); }
.heat td.mid { color: var(--on-mid); }
.heat td.full { color: var(--on-full); }
.heat tbody th { position: sticky; left: 0; background: var(--paper); width: var(--side); max-width: var(--side);
  min-width: var(--side); padding: 0 .6rem 0 2px; font-weight: 400; }
.heat thead th { text-align: center; font-size: .75rem; color: var(--ink); padding-bottom: .3rem; }
.heat thead .axis { text-align: left; color: var(--muted); padding-left: 2px; }
.heat thead td { background: none; height: auto; }
.heat thead tr:last-child .axis { position: sticky; left: 0; background: var(--paper); }
.heat:has(.turned) { --narrowest: 5.25rem; }
.heat .turned span { display: block; margin: 0 auto; max-height: 8rem; writing-mode: vertical-rl;
  transform: rotate(180deg); }

.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.75rem, 1fr)); gap: 1.75rem 1.1rem; }
.mistakes figure { min-width: 0; }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel);
  border-radius: 4px; margin-bottom: .55rem; }
.mistakes img.tiny { image-rendering: pixelated; }
.mistakes.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.marked { position: relative; margin-bottom: .55rem; }
.mistakes .marked img { aspect-ratio: auto; margin: 0; }
.marked svg { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 4px; }
.marked rect { fill: transparent; vector-effect: non-scaling-stroke; stroke: rgb(0 0 0 / .55); stroke-width: 4px; }
.marked rect + rect { stroke: var(--mark); stroke-width: 1.75px; pointer-events: none; }
.missed { --mark: #ffb020; }
.false { --mark: #4cc3ff; }
.marked .false rect + rect { stroke-dasharray: 5 3; }
.key.missed::before, .key.false::before { background: var(--mark); height: 3px; outline: 1px solid rgb(0 0 0 / .55); }
.mistakes.large b { color: var(--ink); font-weight: 600; }
.mistakes.compared { grid-template-columns: minmax(0, 1fr); }
.patches { margin-bottom: 1.25rem; line-height: 1.8; color: var(--muted); font-size: .8125rem; }
.three { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5rem; margin-bottom: .55rem; }
.mistakes .three img { aspect-ratio: auto; margin: 0; }
.mistakes.compared figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; }
.mistakes.compared b { color: var(--ink); font-weight: 600; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) auto; column-gap: .5rem; font-size: .8125rem;
  line-height: 1.4; }
.pair b { font-weight: 600; color: var(--ink); }
.pair span:not(.cut) { text-align: right; }
.pair .shown { color: var(--ink); }
.file { font-size: .6875rem; margin-top: .2rem; direction: rtl; text-align: left; }
.empty { font-size: 1.125rem; }

summary { cursor: pointer; width: fit-content; color: var(--accent); font-weight: 500; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 4px; border-radius: 2px; }
pre { margin-top: 1rem; padding: 1.1rem 1.25rem; background: var(--panel); border-radius: 6px; overflow-x: auto;
  font: .8125rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; tab-size: 2; }
footer { border-top: 1px solid var(--rule); padding-top: 1rem; }

@media (max-width: 40rem) {
  .list .wide, .list .extra { display: none; }
  .list th, .list td { padding-right: .9rem; }
  .list tbody th, .list td.cut { width: 45%; }
  .mistakes { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .mistakes.large, .mistakes.compared { grid-template-columns: minmax(0, 1fr); }
  .three { gap: .25rem; }
}
@media print {
  @page { margin: 15mm; }
  :root { --paper: #fff; }
  body { font-size: 10pt; padding: 0; max-width: none; }
  section { padding-bottom: 1.5rem; }
  .plots { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1rem; }
  .mistakes { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 1rem .75rem; }
  .mistakes.large { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .mistakes.compared { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  figure, tr, h2, .figure, .scroll { break-inside: avoid; }
  .side { break-after: avoid; }
  .heat td, .bar, .bar i, .patch i, .key::before { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""
