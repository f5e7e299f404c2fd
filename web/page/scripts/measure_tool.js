/** A length on the slide, between two places: dragged, or by keys from the crosshair to the crosshair. */

import { captureCommands, onCommand, useTool } from "./commands.js";
import { takePointer } from "./draw_surface.js";
import { byId, svgElement } from "./elements.js";
import { lengthWords } from "./magnification.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { setOn, setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";

const HINT = "Drag from one place to the other. By keys: Enter at the crosshair begins, arrows move the slide, Enter ends. Esc leaves.";
let leave = null;

export function startMeasureTool() {
  toolGroup("Measure", tool("Measure", { key: "M", command: "measure", title: "Measure a length", isSwitch: true }));
  onCommand("measure", () => (leave ? end() : begin()));
  store.on("slideId", end);
  viewer.addEventListener("opened", () => setUsable("measure", viewer.slideId !== null));
  setUsable("measure", false);
}

/** Between two places on the slide: in µm, or in pixels where nobody knows their size. */
function distanceWords(from, to, mpp) {
  const px = Math.hypot(to.x - from.x, to.y - from.y);
  return mpp ? lengthWords(px * mpp) : `${Math.round(px)} px; the slide does not say its µm/px`;
}

function begin() {
  if (!viewer.isOpen) return;
  useTool(end);
  let from = null;
  let isFixed = true;
  const draw = (to) => from && show(from, to);
  const release = takePointer({
    down(place) {
      from = place;
      isFixed = true;
    },
    move: draw,
    up: draw,
  });
  const follow = () => !isFixed && draw(middle());
  viewer.addEventListener("moved", follow);
  const free = captureCommands((name) => {
    if (name === "cancel") end();
    else if (name === "enter" && isFixed) {
      from = middle();
      isFixed = false;
      draw(from);
    } else if (name === "enter") {
      draw(middle());
      isFixed = true;
    } else return false;
    return true;
  });
  leave = () => {
    release();
    free();
    viewer.removeEventListener("moved", follow);
  };
  setOn("measure", true);
  byId("canvas").dataset.drawing = "measure";
  byId("canvas").focus({ preventScroll: true });
  say(HINT);
}

function end() {
  if (!leave) return;
  leave();
  leave = null;
  setOn("measure", false);
  delete byId("canvas").dataset.drawing;
  viewer.layer("measure").replaceChildren();
  say();
}

function middle() {
  const { x, y, width, height } = viewer.view;
  return { x: x + width / 2, y: y + height / 2 };
}

function show(from, to) {
  const words = distanceWords(from, to, store.get("slide")?.mpp);
  const ends = { x1: from.x, y1: from.y, x2: to.x, y2: to.y };
  viewer.layer("measure").replaceChildren(
    svgElement("line", { class: "casing", ...ends }),
    svgElement("line", { class: "line", ...ends }),
    svgElement("text", { class: "label", x: (from.x + to.x) / 2, y: (from.y + to.y) / 2, text: words }),
  );
  say(words);
}
