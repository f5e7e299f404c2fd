/** The outlines of the regions over the slide; the one that the next question is about stands out. */

import { svgElement } from "./elements.js";
import { boxAround } from "./geometry.js";
import { store } from "./store.js";
import { viewer } from "./viewer.js";

export function startRegionsLayer() {
  for (const name of ["regions", "scope"]) store.on(name, show);
  viewer.addEventListener("opened", show);
}

/** Move the view to a region. */
export function showRegion({ polygon }) {
  if (viewer.isOpen) viewer.show(boxAround(polygon));
}

function show() {
  const layer = viewer.layer("regions");
  const { region_id: chosen } = store.get("scope");
  layer.replaceChildren(...store.get("regions").map((region) => outline(region, region.region_id === chosen)));
}

function outline({ region_id: id, label, polygon }, isChosen) {
  const points = polygon.map((corner) => corner.join(",")).join(" ");
  const { x, y } = boxAround(polygon);
  return svgElement(
    "g",
    { class: isChosen ? "region chosen" : "region", dataset: { region: id } },
    svgElement("polygon", { class: "casing", points }),
    svgElement("polygon", { class: "line", points }),
    svgElement("text", { class: "label", x, y, text: label }),
  );
}
