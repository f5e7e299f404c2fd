/**
 * Evidence over the slide: a cell that stands out is outlined, hatched the denser the stronger it is, and numbered, so
 * that nobody has to tell colours apart. Where nothing stands out there are thin outlines of what was tried, no more.
 */

import { onCommand } from "./commands.js";
import { svgElement } from "./elements.js";
import { strengthOf, STRENGTHS } from "./evidence_cells.js";
import { clamp } from "./geometry.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { viewer } from "./viewer.js";

const OPACITY_STEP = 0.15;
/** Pixels of the screen between the lines of a hatch, by strength. */
const HATCH_PX = [14, 10, 7, 4.5];
const HATCH_LINE_PX = 1.6;
/** Middle of a label from the upper left corner of its cell. */
const LABEL_PX = 15;

let shown = null;
let opacity = 0.65;

export function startEvidenceLayer() {
  onCommand("fainter", () => setOpacity(opacity - OPACITY_STEP));
  onCommand("bolder", () => setOpacity(opacity + OPACITY_STEP));
  viewer.addEventListener("opened", draw);
  viewer.addEventListener("moved", keepSizes);
}

/** Show the evidence of an answer over its slide; null for none. */
export function showEvidence(evidence) {
  shown?.removeEventListener("change", draw);
  shown = evidence;
  shown?.addEventListener("change", draw);
  draw();
}

export const shownEvidence = () => shown;

export function evidenceOpacity() {
  return opacity;
}

/** 0 to 1. */
export function setOpacity(value) {
  opacity = clamp(value, 0, 1);
  viewer.layer("evidence").setAttribute("opacity", opacity);
  for (const slider of document.querySelectorAll(".evidence-opacity")) slider.value = opacity;
  say(`Overlay at ${Math.round(100 * opacity)} per cent.`);
}

function draw() {
  const layer = viewer.layer("evidence");
  layer.replaceChildren();
  if (!shown || shown.answer.slide.id !== viewer.slideId || store.get("slideGone")) return;
  layer.setAttribute("opacity", opacity);
  layer.append(hatches(), ...cellsOf(shown), ...(shown.refined ? cellsOf(shown.refined) : []));
  keepSizes();
}

function cellsOf(evidence) {
  const strongest = evidence.strongest;
  return evidence.cells.map((cell) => {
    const rank = strongest.findIndex((it) => it.cell === cell.cell);
    return rank < 0 ? plainCell(cell) : strongCell(cell, rank, rank === evidence.chosen);
  });
}

function plainCell(cell) {
  return svgElement("rect", { class: "cell", ...boxOf(cell), dataset: { cell: cell.cell } });
}

function strongCell(cell, rank, isChosen) {
  const strength = strengthOf(cell.drop);
  const box = boxOf(cell);
  return svgElement(
    "g",
    { class: isChosen ? "cell strong chosen" : "cell strong", dataset: { cell: cell.cell, rank: rank + 1, strength: STRENGTHS[strength].name } },
    svgElement("rect", { class: "hatch", ...box, fill: `url(#hatch-${strength})` }),
    svgElement("rect", { class: "casing", ...box }),
    svgElement("rect", { class: "line", ...box }),
    svgElement(
      "g",
      { class: "cell-label", dataset: { x: cell.x, y: cell.y } },
      svgElement("circle", { cx: LABEL_PX, cy: LABEL_PX, r: 10 }),
      svgElement("text", { x: LABEL_PX, y: LABEL_PX, text: String(rank + 1) }),
    ),
  );
}

const boxOf = ({ x, y, width, height }) => ({ x, y, width, height });

function hatches() {
  return svgElement(
    "defs",
    {},
    HATCH_PX.map((px, strength) =>
      svgElement(
        "pattern",
        { id: `hatch-${strength}`, class: "hatch-pattern", patternUnits: "userSpaceOnUse", width: px, height: px },
        svgElement("rect", { class: "hatch-line", width: HATCH_LINE_PX, height: px }),
      ),
    ),
  );
}

/** Hatches and labels are as large as on the screen, however large the slide is shown. */
function keepSizes() {
  if (!shown || !viewer.isOpen) return;
  const scale = viewer.slidePxPerScreenPx;
  const layer = viewer.layer("evidence");
  for (const pattern of layer.querySelectorAll("pattern")) pattern.setAttribute("patternTransform", `scale(${scale}) rotate(45)`);
  for (const label of layer.querySelectorAll(".cell-label")) {
    label.setAttribute("transform", `translate(${label.dataset.x} ${label.dataset.y}) scale(${scale})`);
  }
}
