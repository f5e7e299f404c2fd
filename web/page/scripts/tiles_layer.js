/** The tiles that the model was given, over the slide: all of them, and nothing else. */

import { onCommand } from "./commands.js";
import { svgElement } from "./elements.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { setOn, setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";

let isOn = false;

export function startTilesLayer() {
  toolGroup("Tiles", tool("Tiles", { key: "T", command: "tiles", title: "Show the tiles that the model was given", isSwitch: true }));
  onCommand("tiles", () => {
    isOn = !isOn;
    show();
    say(isOn ? words(store.get("places")) : "");
  });
  store.on("places", show);
  viewer.addEventListener("opened", show);
  show();
}

function show() {
  const places = store.get("places");
  setOn("tiles", isOn);
  setUsable("tiles", isOn || places !== null);
  const layer = viewer.layer("tiles");
  layer.replaceChildren();
  if (!isOn || !places || places.slide_id !== viewer.slideId) return;
  // One path: a browser draws twenty thousand rectangles in it faster than as many elements.
  layer.append(svgElement("path", { class: "tile-outlines", d: outlines(places), dataset: { count: places.count } }));
}

function outlines({ coords, side_px: side }) {
  return coords.map(([x, y]) => `M${x} ${y}h${side}v${side}h${-side}z`).join("");
}

function words(places) {
  if (!places) return "";
  const what = store.get("model")?.kind === "levels" ? "regions" : "tiles";
  return `The model was given ${places.count} ${what}. What lies outside them, glass and pen, it did not see.`;
}
