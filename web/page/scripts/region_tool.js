/** Drawing a region on the slide: a rectangle or freehand by the pointer, or a box by keys. */

import { captureCommands, onCommand, useTool } from "./commands.js";
import { takePointer } from "./draw_surface.js";
import { byId, svgElement } from "./elements.js";
import { boxAround, boxBetween, cornersOf, countInside, thinnedTo } from "./geometry.js";
import { firstBox, movedBox, sizedBox } from "./key_box.js";
import { drawRegion, scopeOf } from "./regions.js";
import { scopeWords } from "./cards.js";
import { store } from "./store.js";
import { say } from "./tool_says.js";
import { setOn, setUsable, tool, toolGroup } from "./toolbar.js";
import { viewer } from "./viewer.js";
import { showView } from "./views.js";

/** The server takes a thousand. */
const MOST_CORNERS = 500;
/** Pixels of the screen: a line drawn by hand is not finer; less is a click. */
const LINE_TOLERANCE_PX = 1.5;
const LEAST_DRAG_PX = 6;
/** Tiles by corners: more take longer to count than the pointer takes to move on. */
const MOST_COUNTED = 4e6;
const ARROWS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };
const HINTS = {
  rectangle: "Drag a rectangle over the tissue. Enter places a box that arrows move. Esc ends.",
  freehand: "Draw around the tissue with the button held down. Esc ends.",
  box: "Arrows move the box, Shift+arrows size it. Enter draws the region. Esc ends.",
};

/** What is being drawn: `{mode, end}`, null for nothing. */
let drawing = null;

export function startRegionTool() {
  toolGroup(
    "Region",
    tool("Rectangle", { key: "R", command: "rectangle", title: "Draw a region as a rectangle", isSwitch: true }),
    tool("Freehand", { key: "F", command: "freehand", title: "Draw a region freehand", isSwitch: true }),
  );
  onCommand("rectangle", () => toggle("rectangle"));
  onCommand("freehand", () => toggle("freehand"));
  onCommand("enter", () => begin("box"));
  onCommand("whole-slide", () => {
    store.set("scope", scopeOf(null));
    say("The next question is about the whole slide.");
  });
  onCommand("cancel", () => say());
  for (const name of ["slideId", "slide", "slideGone"]) store.on(name, showUsable);
  store.on("slideId", end);
  showUsable();
}

/** Whether a region can be drawn now. */
const canDraw = () => store.get("slide")?.status === "ready" && !store.get("slideGone") && viewer.isOpen;

function showUsable() {
  const isReady = store.get("slide")?.status === "ready" && !store.get("slideGone");
  for (const command of ["rectangle", "freehand"]) setUsable(command, isReady);
}

function toggle(mode) {
  if (drawing?.mode === mode) end();
  else begin(mode);
}

function begin(mode) {
  if (!canDraw()) return;
  useTool(end);
  showView("viewer");
  byId("canvas").focus({ preventScroll: true });
  const ends = mode === "box" ? beginBox() : beginPointer(mode);
  drawing = { mode, end: ends };
  setOn(mode, true);
  byId("canvas").dataset.drawing = mode;
  if (mode !== "box") say(HINTS[mode]);
}

function end() {
  if (!drawing) return;
  drawing.end();
  setOn(drawing.mode, false);
  drawing = null;
  delete byId("canvas").dataset.drawing;
  preview(null);
  say();
}

function beginPointer(mode) {
  const shape = { rectangle: rectangleShape, freehand: freehandShape }[mode]();
  const release = takePointer({
    down: (place) => preview(shape.begin(place)),
    move: (place) => preview(shape.extend(place)),
    up: (place) => finishPointer(shape.extend(place)),
  });
  const free = captureCommands((name) => {
    if (name === "cancel") end();
    else if (name === "enter") begin("box");
    else return false;
    return true;
  });
  return () => {
    release();
    free();
  };
}

function finishPointer(corners) {
  const box = boxAround(corners);
  if (Math.max(box.width, box.height) < LEAST_DRAG_PX * viewer.slidePxPerScreenPx) return preview(null);
  return send(corners);
}

function rectangleShape() {
  let from = null;
  return {
    begin({ x, y }) {
      from = [x, y];
      return [from];
    },
    extend: ({ x, y }) => cornersOf(boxBetween(from, [x, y])),
  };
}

function freehandShape() {
  let line = [];
  return {
    begin({ x, y }) {
      line = [[x, y]];
      return line;
    },
    extend({ x, y }) {
      line.push([x, y]);
      return thinnedTo(line, LINE_TOLERANCE_PX * viewer.slidePxPerScreenPx, MOST_CORNERS);
    },
  };
}

function beginBox() {
  const { x, y, width, height } = viewer.view;
  const bounds = { x: 0, y: 0, ...viewer.size };
  const middle = { x: x + width / 2, y: y + height / 2 };
  let box = firstBox(middle, { mpp: store.get("slide").mpp, places: store.get("places"), bounds });
  const firstSide = box.width;
  const show = () => {
    preview(cornersOf(box), `${HINTS.box} `);
    if (!liesIn(box, viewer.view)) viewer.show(box, 0.5);
  };
  show();
  return captureCommands((name, large) => {
    if (name in ARROWS) {
      box = large ? sizedBox(box, ...ARROWS[name], bounds, firstSide) : movedBox(box, ...ARROWS[name], bounds);
      show();
    } else if (name === "enter") send(cornersOf(box));
    else if (name === "cancel") end();
    else return false;
    return true;
  });
}

const liesIn = (box, view) =>
  box.x >= view.x && box.y >= view.y && box.x + box.width <= view.x + view.width && box.y + box.height <= view.y + view.height;

/** Show an outline that is not a region yet, and how many tiles it has; null for none. */
function preview(corners, hint = "", isRefused = false) {
  const layer = viewer.layer("drawing");
  layer.replaceChildren();
  if (!corners) return;
  const points = corners.map((corner) => corner.join(",")).join(" ");
  layer.append(
    svgElement("polygon", { class: "casing", points }),
    svgElement("polygon", { class: isRefused ? "line refused" : "line", points }),
  );
  if (!isRefused && corners.length > 2) say(`${hint}${countWords(corners)}`);
}

function countWords(corners) {
  const places = store.get("places");
  if (!places || places.count * corners.length > MOST_COUNTED) return "";
  const count = countInside(places.coords, places.side_px, corners);
  const missing = places.least - count;
  const tiles = `${count} ${count === 1 ? "tile" : "tiles"} of tissue`;
  return missing > 0 ? `${tiles}, ${missing} more needed.` : `${tiles}.`;
}

async function send(corners) {
  const [slideId, model] = [store.get("slideId"), store.get("model").id];
  const mode = drawing?.mode;
  preview(corners);
  try {
    const region = await drawRegion(slideId, model, { polygon: corners });
    if (store.get("slideId") !== slideId) return;
    if (drawing?.mode === mode) end();
    say(`${scopeWords(scopeOf(region))}: the next question is about this region.`);
  } catch (error) {
    if (store.get("slideId") !== slideId) return;
    preview(corners, "", true);
    say(error.detail ?? String(error), true);
  }
}
