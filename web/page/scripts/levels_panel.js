/** What a model of levels was given: its regions over the slide in their order, of one its patches by rank and its cells. */

import { api } from "./api.js";
import { onCommand } from "./commands.js";
import { button, byId, element, svgElement } from "./elements.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { setOn, setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";

let isOn = false;
/** `SlideLevels` of the chosen slide and model, and that of one of its regions with cells; null while not known. */
let levels = null;
let chosen = null;

export function startLevelsPanel() {
  const group = toolGroup(
    "Levels",
    tool("Given", { key: "L", command: "levels", title: "Show the regions and patches that the model was given", isSwitch: true }),
  );
  byId("instruments").before(element("section", { id: "levels", "aria-labelledby": "levels-heading", hidden: true }));
  onCommand("levels", () => {
    isOn = !isOn && hasLevels();
    refresh();
  });
  const showGroup = () => {
    group.hidden = store.get("model")?.kind !== "levels";
    setUsable("levels", hasLevels());
    isOn &&= hasLevels();
    levels = null;
    refresh();
  };
  for (const name of ["model", "slideId"]) store.on(name, showGroup);
  store.on("slide", () => setUsable("levels", hasLevels()));
  viewer.addEventListener("opened", draw);
  showGroup();
}

function hasLevels() {
  const model = store.get("model");
  const encoding = store.get("slide")?.encodings?.find((it) => it.model === model?.id);
  return model?.kind === "levels" && encoding?.status === "ready";
}

async function refresh() {
  chosen = null;
  setOn("levels", isOn);
  if (isOn && !levels) {
    try {
      levels = await load();
    } catch (error) {
      isOn = false;
      say(error.detail ?? String(error), true);
    }
  }
  draw();
  list();
}

function load(region = null) {
  const query = new URLSearchParams({ model: store.get("model").id, ...(region === null ? {} : { region }) });
  return api.get(`/v1/slides/${store.get("slideId")}/levels?${query}`);
}

async function choose(index) {
  viewer.show(levels.regions.find((it) => it.index === index).box, 0.05);
  try {
    const { regions } = await load(index);
    chosen = regions[0];
  } catch (error) {
    return say(error.detail ?? String(error), true);
  }
  draw();
  list();
}

function draw() {
  const layer = viewer.layer("levels");
  layer.replaceChildren();
  if (!isOn || !levels || levels.slide_id !== viewer.slideId) return;
  layer.append(...levels.regions.map((region) => boxElement(region.box, "given-region", String(region.index + 1))));
  for (const patch of chosen?.patches ?? []) {
    layer.append(boxElement(patch.box, "given-patch", String(patch.rank)), ...(patch.cells ?? []).map(cellElement));
  }
}

function boxElement({ x, y, width, height }, name, label) {
  return svgElement(
    "g",
    { class: name },
    svgElement("rect", { class: "casing", x, y, width, height }),
    svgElement("rect", { class: "line", x, y, width, height }),
    svgElement("text", { class: "label", x, y, text: label }),
  );
}

const cellElement = ({ kind, contour }) =>
  svgElement("polygon", { class: "given-cell", dataset: { kind }, points: contour.map((point) => point.join(",")).join(" ") });

function list() {
  const panel = byId("levels");
  panel.hidden = !isOn || !levels;
  if (panel.hidden) return panel.replaceChildren();
  panel.replaceChildren(
    element("h3", { id: "levels-heading", text: `${levels.region_count} regions, in the order in which the model is given them` }),
    element("p", { class: "small", text: levels.meaning }),
    element("ol", { class: "given" }, levels.regions.map(regionItem)),
  );
}

function regionItem(region) {
  const isChosen = chosen?.index === region.index;
  const counts = region.cell_counts ? `, ${region.cell_counts.total} cells` : "";
  const fly = button(`Region ${region.index + 1}: ${region.patches.length} patches${counts}`, () => choose(region.index), { class: "quiet" });
  return element("li", { "aria-current": isChosen ? "true" : null }, fly, isChosen ? patchList(region) : null);
}

function patchList({ patches }) {
  return element(
    "ol",
    { class: "given-patches", "aria-label": "Its patches by rank" },
    patches.map(({ rank, box }) => element("li", {}, button(`Patch ${rank}`, () => viewer.show(box, 0.3), { class: "quiet" }))),
  );
}
